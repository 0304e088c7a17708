/** The client's end of a CSTP channel, and IP packets to send through it. PROTOCOL §6.6. */
import type { TlsClient } from './tls-client.ts';
import { eventually, PATIENCE_MS } from './run.ts';

export interface Frame {
  type: number;
  payload: Buffer;
}

export const FRAME = {
  data: 0,
  dpdRequest: 3,
  dpdResponse: 4,
  disconnect: 5,
  keepalive: 7,
  compressed: 8,
  terminate: 9,
} as const;

/** Takes over a connection after CONNECT was answered. Answers the gateway's DPD unless told not to. */
export class CstpChannel {
  readonly #client: TlsClient;
  #rest: Buffer = Buffer.alloc(0);
  /** Everything received, in order. */
  readonly frames: Frame[] = [];
  /** The gateway has closed. */
  closed: boolean;
  answerDpd = true;

  constructor(client: TlsClient) {
    this.#client = client;
    // It may have done that with its answer, before anybody listened here.
    this.closed = client.socket.destroyed || client.socket.readableEnded;
    const early = client.reader.release();
    client.socket.on('data', (chunk: Buffer) => this.#take(chunk));
    client.socket.on('close', () => (this.closed = true));
    client.socket.on('end', () => (this.closed = true));
    if (early.length > 0) this.#take(early);
  }

  send(type: number, payload: Uint8Array = Buffer.alloc(0)): void {
    this.#client.write(frame(type, payload));
  }

  sendRaw(bytes: Uint8Array): void {
    this.#client.write(bytes);
  }

  /** `DISCONNECT` with a reason byte and text, then the end of the connection, as clients do. */
  bye(reason: number, text = 'Aborted by caller'): void {
    this.send(FRAME.disconnect, Buffer.concat([Buffer.from([reason]), Buffer.from(text)]));
    this.#client.socket.end();
  }

  /** The first frame of a type, from `from` on in `frames`. @throws when the gateway closes without it */
  next(type: number, options: { from?: number; timeoutMs?: number } = {}): Promise<Frame> {
    const found = () => {
      const frame = this.frames.slice(options.from ?? 0).find((one) => one.type === type);
      if (frame === undefined && this.closed) throw new Error(`closed without a frame of type ${type}`);
      return frame;
    };
    return eventually(`frame of type ${type}`, found, options.timeoutMs ?? PATIENCE_MS);
  }

  whenClosed(timeoutMs = PATIENCE_MS): Promise<boolean> {
    return eventually('the gateway closes the channel', () => this.closed, timeoutMs);
  }

  close(): void {
    this.#client.close();
  }

  #take(chunk: Buffer): void {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let at = 0;
    while (this.#rest.length - at >= HEAD) {
      const head = this.#rest.subarray(at, at + HEAD);
      if (head.readUInt32BE(0) !== MAGIC || head.readUInt8(7) !== 0)
        throw new Error(`not CSTP: ${head.toString('hex')}`);
      const length = head.readUInt16BE(4);
      if (this.#rest.length - at < HEAD + length) break;
      const received = {
        type: head.readUInt8(6),
        payload: this.#rest.subarray(at + HEAD, at + HEAD + length),
      };
      this.frames.push(received);
      if (received.type === FRAME.dpdRequest && this.answerDpd)
        this.send(FRAME.dpdResponse, received.payload);
      at += HEAD + length;
    }
    this.#rest = this.#rest.subarray(at);
  }
}

export function frame(type: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(HEAD);
  head.writeUInt32BE(MAGIC, 0);
  head.writeUInt16BE(payload.length, 4);
  head.writeUInt8(type, 6);
  return Buffer.concat([head, payload]);
}

/** An ICMP echo request (IPv4), to be answered by `to`. @param length of the whole packet, 28 or more. */
export function echoRequest(from: string, to: string, sequence: number, length = 84): Buffer {
  const packet = Buffer.alloc(length, sequence & 0xff);
  packet.writeUInt8(0x45, 0);
  packet.writeUInt8(0, 1);
  packet.writeUInt16BE(length, 2);
  packet.writeUInt32BE(0, 4);
  packet.writeUInt16BE(0x4001, 8); // TTL 64, ICMP
  packet.writeUInt16BE(0, 10);
  Buffer.from(from.split('.').map(Number)).copy(packet, 12);
  Buffer.from(to.split('.').map(Number)).copy(packet, 16);
  packet.writeUInt16BE(checksum(packet.subarray(0, 20)), 10);
  packet.writeUInt16BE(0x0800, 20);
  packet.writeUInt16BE(0, 22);
  packet.writeUInt16BE(0x5350, 24);
  packet.writeUInt16BE(sequence & 0xffff, 26);
  packet.writeUInt16BE(checksum(packet.subarray(20)), 22);
  return packet;
}

/** Sequence number of an ICMP echo reply, or undefined for anything else. */
export function echoReply(packet: Buffer): number | undefined {
  const isReply = packet.length >= 28 && packet.readUInt8(9) === 1 && packet.readUInt8(20) === 0;
  return isReply ? packet.readUInt16BE(26) : undefined;
}

function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at + 1 < bytes.length; at += 2) sum += bytes.readUInt16BE(at);
  if (bytes.length % 2 === 1) sum += bytes.readUInt8(bytes.length - 1) << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

const HEAD = 8;
const MAGIC = 0x53_54_46_01;
