import { concatBytes, encodeUtf8 } from './bytes.ts';
import { CstpDecoder, encodeFrame, PACKET } from './cstp.ts';
import { ProtocolError } from './errors.ts';
import { reasonText, type Reason } from './reasons.ts';

/**
 * The life of one CSTP channel, from the answer to CONNECT to its end (docs/protocol.md §6).
 *
 *     open ──BYE b0, idle, session limit──────────► closed (end)
 *       │ ──other BYE, silence of 3×DPD───────────► closed (park)
 *       └─ broken frame, compressed packet────────► closed (error)
 *
 * Sans-IO: bytes and the time go in, what to do comes out. `now` is always a monotonic clock in milliseconds.
 * Costs no timer of its own: `nextTimeout` only moves to later times by itself, so one tick per second for all channels
 * of a node, with each channel in the slot of its `nextTimeout`, is enough. A timeout may be handled late, never early.
 *
 * The gateway sends no KEEPALIVE of its own: the client does, as told by `X-CSTP-Keepalive`, and that counts as a sign
 * of life. The rekey is a new CONNECT by the client; nothing happens here.
 */
export class Channel {
  readonly #settings: ChannelSettings;
  readonly #decoder = new CstpDecoder();
  readonly #sessionEndsAt: number;
  /** Last packet of any type from the client. */
  #heardAt: number;
  /** Last DATA packet that counts, in either direction. */
  #activeAt: number;
  /** DPD-REQ sent since `#heardAt`. */
  #asked = 0;
  #closed = false;
  readonly #counters: ChannelCounters = {
    rxPackets: 0,
    rxBytes: 0,
    txPackets: 0,
    txBytes: 0,
    dpdRequests: 0,
    unknownPackets: 0,
  };

  /** @param activeAt of the channels before in this session: a new connection alone is no activity. */
  constructor(settings: ChannelSettings, now: number, activeAt = now) {
    this.#settings = settings;
    this.#heardAt = now;
    this.#activeAt = activeAt;
    this.#sessionEndsAt =
      settings.sessionRemainingSeconds > 0 ? now + settings.sessionRemainingSeconds * 1000 : Infinity;
  }

  get counters(): Readonly<ChannelCounters> {
    return this.#counters;
  }

  /** Time of the last DATA packet that counts as activity, in either direction. */
  get activeAt(): number {
    return this.#activeAt;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Bytes from the client. What is good before a broken frame is still handed out. */
  handleChunk(chunk: Uint8Array, now: number): ChannelOutput {
    const output: ChannelOutput = { packets: [], replies: [] };
    if (this.#closed) return output;
    try {
      this.#decoder.push(chunk, (type, payload) => {
        if (!this.#closed) this.#handleFrame(type, payload, now, output);
      });
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      if (!this.#closed) this.#close(output, { kind: 'error', reason: 'protocol-error' });
    }
    return output;
  }

  /** Call for each IP packet that is written to the client. */
  dataSent(packet: Uint8Array, now: number): void {
    this.#counters.txPackets += 1;
    this.#counters.txBytes += packet.length;
    if (countsAsActivity(packet)) this.#activeAt = now;
  }

  /** Call at `nextTimeout` or later. */
  handleTimeout(now: number): ChannelOutput {
    const output: ChannelOutput = { packets: [], replies: [] };
    if (this.#closed) return output;
    if (now >= this.#sessionEndsAt) this.#close(output, this.#ended('session-timeout'));
    else if (now >= this.#idleAt()) this.#close(output, this.#ended('idle-timeout'));
    else if (now >= this.#deadAt()) this.#close(output, { kind: 'park', reason: 'dpd-timeout' });
    else if (now >= this.#askAt()) {
      this.#asked += 1;
      this.#counters.dpdRequests += 1;
      output.replies.push(encodeFrame(PACKET.dpdRequest));
    }
    return output;
  }

  /** When `handleTimeout` has something to do; Infinity = never. */
  nextTimeout(): number {
    if (this.#closed) return Infinity;
    return Math.min(this.#sessionEndsAt, this.#idleAt(), this.#askAt(), this.#deadAt());
  }

  /** The session was ended from outside. @returns the DISCONNECT to send before the connection is closed. */
  end(reason: Reason): Uint8Array {
    this.#closed = true;
    return disconnectFrame(reason);
  }

  #handleFrame(type: number, payload: Uint8Array, now: number, output: ChannelOutput): void {
    this.#heardAt = now;
    this.#asked = 0;
    switch (type) {
      case PACKET.data:
        if (payload.length === 0) return;
        this.#counters.rxPackets += 1;
        this.#counters.rxBytes += payload.length;
        if (countsAsActivity(payload)) this.#activeAt = now;
        output.packets.push(payload);
        return;
      case PACKET.dpdRequest:
        output.replies.push(encodeFrame(PACKET.dpdResponse, payload));
        return;
      case PACKET.dpdResponse:
      case PACKET.keepalive:
        return;
      case PACKET.disconnect:
        this.#close(output, byeMeaning(payload));
        return;
      case PACKET.compressed:
        throw new ProtocolError('compressed packet, which was not offered');
      default:
        this.#counters.unknownPackets += 1;
    }
  }

  #close(output: ChannelOutput, close: ChannelClose): void {
    this.#closed = true;
    output.close = close;
  }

  #ended(reason: Reason): ChannelClose {
    return { kind: 'end', reason, frame: disconnectFrame(reason) };
  }

  #idleAt(): number {
    return after(this.#activeAt, this.#settings.idleTimeoutSeconds);
  }

  #askAt(): number {
    return this.#asked >= DPD_REQUESTS
      ? Infinity
      : after(this.#heardAt, this.#settings.dpdSeconds * (this.#asked + 1));
  }

  #deadAt(): number {
    return after(this.#heardAt, this.#settings.dpdSeconds * (DPD_REQUESTS + 1));
  }
}

/** Seconds; 0 = off. Take those of the client's device class (`channelTimers`). */
export interface ChannelSettings {
  dpdSeconds: number;
  idleTimeoutSeconds: number;
  /** What is left of the session's absolute limit at this CONNECT. */
  sessionRemainingSeconds: number;
}

export interface ChannelOutput {
  /** IP packets for the engine. Views: valid until the chunk is used again. */
  packets: Uint8Array[];
  /** Complete frames for the client, one TLS record each, in this order. */
  replies: Uint8Array[];
  /** The channel is over. Do this after packets and replies. */
  close?: ChannelClose;
}

export interface ChannelClose {
  /** `park`: the session stays. `end`: the session is over. `error`: the client broke the rules; the session stays. */
  kind: 'park' | 'end' | 'error';
  reason: Reason;
  /** To be sent as the last record. Absent: close without a packet. */
  frame?: Uint8Array;
}

/** IP packets and their bytes, without framing: rx from the client, tx to it. */
export interface ChannelCounters {
  rxPackets: number;
  rxBytes: number;
  txPackets: number;
  txBytes: number;
  dpdRequests: number;
  unknownPackets: number;
}

/** DISCONNECT with our text. Final for every client, so never for a connection that was merely superseded. */
export function disconnectFrame(reason: Reason): Uint8Array {
  return encodeFrame(
    PACKET.disconnect,
    concatBytes(Uint8Array.of(BYE.userDisconnect), encodeUtf8(reasonText(reason))),
  );
}

/** docs/protocol.md §6.4: only an orderly end of the user ends the session. */
function byeMeaning(payload: Uint8Array): ChannelClose {
  if (payload[0] === BYE.userDisconnect) return { kind: 'end', reason: 'user-disconnect' };
  return { kind: 'park', reason: 'temp-disconnect' };
}

/** Pings and multicast housekeeping run without a user. docs/protocol.md §6.5 */
function countsAsActivity(packet: Uint8Array): boolean {
  const version = (packet[0] ?? 0) >> 4;
  if (version === 4) {
    const protocol = packet[9];
    return protocol !== undefined && protocol !== IP_PROTOCOL.icmp && protocol !== IP_PROTOCOL.igmp;
  }
  if (version !== 6) return false;
  let next = packet[6];
  // Multicast listener reports put a hop-by-hop header before ICMPv6 (RFC 3810 §5).
  if (next === IP_PROTOCOL.hopByHop) next = packet[40];
  return next !== undefined && next !== IP_PROTOCOL.icmp6;
}

function after(start: number, seconds: number): number {
  return seconds > 0 ? start + seconds * 1000 : Infinity;
}

/** Requests before the client is given up, one per DPD interval. docs/protocol.md §6.3 */
export const DPD_REQUESTS = 2;

/** First byte of a DISCONNECT. docs/protocol.md §6.4 */
export const BYE = { localError: 0x70, networkChanged: 0x91, userDisconnect: 0xb0, pause: 0xd1 } as const;

const IP_PROTOCOL = { hopByHop: 0, icmp: 1, igmp: 2, icmp6: 58 } as const;
