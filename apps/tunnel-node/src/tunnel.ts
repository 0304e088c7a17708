import type { Lease, Micros, Session, SessionAddresses, TunnelInfo, Usage } from '@sallyport/cluster';
import type { Engine } from '@sallyport/engine';
import {
  Channel,
  channelTimers,
  encodeFrame,
  PACKET,
  type ChannelClose,
  type ChannelOutput,
  type Reason,
} from '@sallyport/protocol';
import { HIGH_WATER_BYTES, type ClientStream, type StreamReceiver } from './listener.ts';
import type { TunnelDrop } from './metrics.ts';

/**
 * One client's stream and its CSTP channel. It decides nothing about the session: it tells its owner how it ended.
 *
 *     up ──lost, BYE, timeout, broken──► closing ──► (owner parks or ends the session) ──► closed
 *      └── superseded, ended elsewhere ─────────────────────────────────────────────────► closed
 *
 * There may be ten thousand of these: no timer, no buffer and no closure that could be shared.
 */
export class Tunnel implements StreamReceiver {
  readonly id: number;
  readonly lease: Lease;
  readonly session: Session;
  readonly addresses: SessionAddresses;
  readonly mtuBytes: number;
  readonly mobile: boolean;
  readonly startedAt: Micros;
  readonly stream: ClientStream;
  readonly #channel: Channel;
  readonly #owner: TunnelOwner;
  #state: 'up' | 'closing' | 'closed' = 'up';
  /** Counters at the last checkpoint. */
  #checkpointed = 0;

  constructor(parts: TunnelParts, stream: ClientStream, owner: TunnelOwner) {
    this.id = parts.id;
    this.lease = parts.lease;
    this.session = parts.session;
    this.addresses = parts.addresses;
    this.mtuBytes = parts.mtuBytes;
    this.mobile = parts.mobile;
    this.startedAt = owner.wallNow();
    this.stream = stream;
    this.#owner = owner;
    const timers = channelTimers(parts.session.grant, parts.mobile);
    const settings = { ...timers, sessionRemainingSeconds: parts.sessionRemainingSeconds };
    const now = owner.now();
    const idleMs = Math.max(0, Number(this.startedAt - parts.session.activeAt) / 1000);
    this.#channel = new Channel(settings, now, now - idleMs);
  }

  /** Call when the answer to CONNECT is written. @param early what came with the head of CONNECT. */
  start(early: Uint8Array): void {
    this.stream.receive(this);
    if (early.length > 0) this.handleChunk(early);
  }

  handleChunk(chunk: Uint8Array): void {
    if (this.#state === 'up') this.#handleOutput(this.#channel.handleChunk(chunk, this.#owner.now()));
  }

  handleLoss(): void {
    this.#leave({ kind: 'park', reason: 'connection-lost' });
  }

  /** Packets from the engine: one TLS record each, dropped while the client is slow (D5). */
  deliver(packets: readonly Uint8Array[]): void {
    if (this.#state !== 'up') return this.#owner.dropped('superseded', packets.length);
    const now = this.#owner.now();
    let sent = 0;
    let bytes = 0;
    for (const packet of packets) {
      if (this.stream.pendingBytes >= HIGH_WATER_BYTES) break;
      this.stream.writeRecord(encodeFrame(PACKET.data, packet));
      this.#channel.dataSent(packet, now);
      sent += 1;
      bytes += packet.length;
    }
    this.#owner.traffic.txPackets += sent;
    this.#owner.traffic.txBytes += bytes;
    if (sent < packets.length) this.#owner.dropped('slow-client', packets.length - sent);
  }

  /** Once a second. */
  handleTick(now: number): void {
    if (this.#state === 'up' && now >= this.#channel.nextTimeout())
      this.#handleOutput(this.#channel.handleTimeout(now));
  }

  /** From now on nothing that this client sends changes anything. */
  silence(): void {
    if (this.#state === 'up') this.#state = 'closing';
  }

  /** @param frame last record; without it the client sees its connection end and comes back. */
  close(frame?: Uint8Array): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    if (frame) this.stream.writeRecord(frame);
    this.stream.end();
  }

  /** The DISCONNECT for an end that comes from outside. */
  disconnectFrame(reason: Reason): Uint8Array {
    return this.#channel.end(reason);
  }

  usage(): Usage {
    const { rxBytes, txBytes } = this.#channel.counters;
    const idleMs = this.#owner.now() - this.#channel.activeAt;
    return {
      rxBytes: BigInt(rxBytes),
      txBytes: BigInt(txBytes),
      activeAt: this.#owner.wallNow() - BigInt(Math.round(idleMs)) * 1000n,
    };
  }

  /** @returns what to checkpoint; undefined if no packet moved since the last time. */
  usageToCheckpoint(): Usage | undefined {
    const { rxPackets, txPackets } = this.#channel.counters;
    if (rxPackets + txPackets === this.#checkpointed) return undefined;
    this.#checkpointed = rxPackets + txPackets;
    return this.usage();
  }

  describe(node: string, device: string): TunnelInfo {
    const { session, lease } = this;
    const { facts } = this.stream;
    const timers = channelTimers(session.grant, this.mobile);
    const usage = this.usage();
    return {
      tunnelId: this.id,
      sessionId: session.id,
      epoch: lease.epoch,
      node,
      user: session.user,
      group: session.grant.group,
      profile: session.profile,
      device,
      mtuBytes: this.mtuBytes,
      clientAddress: facts.peerAddress,
      localDeviceAddress: facts.localAddress,
      hostname: session.client.hostname,
      userAgent: session.client.userAgent,
      ipv4: this.addresses.ipv4,
      ipv6: this.addresses.ipv6,
      rxBytes: Number(usage.rxBytes),
      txBytes: Number(usage.txBytes),
      dpdSeconds: timers.dpdSeconds,
      keepaliveSeconds: timers.keepaliveSeconds,
      connectedAt: this.startedAt,
      sessionStartedAt: session.createdAt,
      tlsCipher: `${facts.tlsVersion.replace('TLSv', 'TLS')}-${facts.cipher.replace(/^TLS_/, '')}`,
      dtlsCipher: '',
      dns: session.grant.dns,
      nbns: session.grant.nbns,
      splitDns: session.grant.splitDns,
      routes: session.grant.routes,
      noRoutes: session.grant.noRoutes,
    };
  }

  #handleOutput(output: ChannelOutput): void {
    const { packets, replies, close } = output;
    if (packets.length > 0) {
      this.#owner.traffic.rxPackets += packets.length;
      for (const packet of packets) this.#owner.traffic.rxBytes += packet.length;
      this.#owner.engine.write(this.id, packets);
    }
    for (const reply of replies) {
      // A client that asks and does not read must not make us hold its answers.
      if (this.stream.pendingBytes < CONTROL_HIGH_WATER_BYTES) this.stream.writeRecord(reply);
      else this.#owner.dropped('control-flood', 1);
    }
    if (close) this.#leave(close);
  }

  #leave(close: ChannelClose): void {
    if (this.#state !== 'up') return;
    this.#state = 'closing';
    this.#owner.handleClose(this, close);
  }
}

export interface TunnelParts {
  id: number;
  lease: Lease;
  session: Session;
  /** Those given to this client; '' = none. */
  addresses: SessionAddresses;
  mtuBytes: number;
  mobile: boolean;
  /** 0 = no limit. */
  sessionRemainingSeconds: number;
}

/** What all tunnels of a node share. */
export interface TunnelOwner {
  readonly engine: Engine;
  readonly traffic: Traffic;
  /** Monotonic, ms. */
  now(): number;
  wallNow(): Micros;
  dropped(reason: TunnelDrop, packets: number): void;
  /** The tunnel is over by itself; it is silent already and waits for `close`. */
  handleClose(tunnel: Tunnel, close: ChannelClose): void;
}

export interface Traffic {
  rxPackets: number;
  rxBytes: number;
  txPackets: number;
  txBytes: number;
}

/** Bytes that may wait for one client before answers to its DPD are dropped too. */
export const CONTROL_HIGH_WATER_BYTES = HIGH_WATER_BYTES + 65_536;
