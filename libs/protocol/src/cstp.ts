import { ProtocolError } from './errors.ts';

/** Types of CSTP packets (docs/protocol.md §6.1). 8 (compressed) is never offered and never accepted. */
export const PACKET = {
  data: 0,
  dpdRequest: 3,
  dpdResponse: 4,
  disconnect: 5,
  keepalive: 7,
  compressed: 8,
  terminate: 9,
} as const;

/** Takes one CSTP packet. `payload` may be a view of the chunk that was pushed: valid until the chunk is used again. */
export type FrameHandler = (type: number, payload: Uint8Array) => void;

/**
 * A complete CSTP packet: 8 bytes of header and the payload. Write each as one TLS record.
 * @param payload at most `MAX_PAYLOAD_BYTES`.
 */
export function encodeFrame(type: number, payload: Uint8Array = NOTHING): Uint8Array {
  if (payload.length > MAX_PAYLOAD_BYTES) throw new RangeError('CSTP payload is too long for one TLS record');
  const frame = new Uint8Array(HEADER_BYTES + payload.length);
  frame[0] = 0x53;
  frame[1] = 0x54;
  frame[2] = 0x46;
  frame[3] = 0x01;
  frame[4] = payload.length >>> 8;
  frame[5] = payload.length & 0xff;
  frame[6] = type;
  frame.set(payload, HEADER_BYTES);
  return frame;
}

/**
 * Cuts a byte stream into CSTP packets, whatever the borders of the chunks are. Holds at most one packet, and nothing
 * while no packet is incomplete. After a ProtocolError the stream is lost: close it.
 */
export class CstpDecoder {
  /** The beginning of an incomplete packet: first 8 bytes for the header, then as long as the header says. */
  #partial: Uint8Array | undefined;
  #held = 0;

  /** Bytes of an incomplete packet that are held now. */
  get pendingBytes(): number {
    return this.#held;
  }

  /**
   * Hands out the packets that are complete now, in order.
   * @throws ProtocolError for a bad header and for a packet longer than `MAX_PAYLOAD_BYTES`, after those before it.
   */
  push(chunk: Uint8Array, handle: FrameHandler): void {
    let at = this.#resume(chunk, handle);
    while (chunk.length - at >= HEADER_BYTES) {
      const length = payloadLength(chunk, at);
      const end = at + HEADER_BYTES + length;
      if (end > chunk.length) break;
      handle(chunk[at + 6] ?? 0, chunk.subarray(at + HEADER_BYTES, end));
      at = end;
    }
    if (at < chunk.length) this.#keep(chunk, at);
  }

  /** Completes the held packet. @returns how many bytes of the chunk it took. */
  #resume(chunk: Uint8Array, handle: FrameHandler): number {
    if (this.#partial === undefined) return 0;
    let at = 0;
    if (this.#held < HEADER_BYTES) {
      at = this.#fill(chunk, 0, HEADER_BYTES);
      checkMagic(this.#partial, 0, this.#held);
      if (this.#held < HEADER_BYTES) return at;
      const whole = new Uint8Array(HEADER_BYTES + payloadLength(this.#partial, 0));
      whole.set(this.#partial);
      this.#partial = whole;
    }
    at += this.#fill(chunk, at, this.#partial.length);
    if (this.#held === this.#partial.length) {
      const whole = this.#partial;
      this.#partial = undefined;
      this.#held = 0;
      handle(whole[6] ?? 0, whole.subarray(HEADER_BYTES));
    }
    return at;
  }

  /** Copies from the chunk until `goal` bytes are held. @returns how many were taken. */
  #fill(chunk: Uint8Array, at: number, goal: number): number {
    const take = Math.min(goal - this.#held, chunk.length - at);
    this.#partial?.set(chunk.subarray(at, at + take), this.#held);
    this.#held += take;
    return take;
  }

  #keep(chunk: Uint8Array, at: number): void {
    const rest = chunk.length - at;
    const size = rest < HEADER_BYTES ? HEADER_BYTES : HEADER_BYTES + payloadLength(chunk, at);
    this.#partial = new Uint8Array(size);
    this.#fill(chunk, at, size);
    if (rest < HEADER_BYTES) checkMagic(this.#partial, 0, rest);
  }
}

function payloadLength(bytes: Uint8Array, at: number): number {
  checkMagic(bytes, at, HEADER_BYTES);
  if (bytes[at + 7] !== 0) throw new ProtocolError('CSTP header does not end in zero');
  const length = (bytes[at + 4] ?? 0) * 0x100 + (bytes[at + 5] ?? 0);
  if (length > MAX_PAYLOAD_BYTES) throw new ProtocolError('CSTP packet is too long');
  return length;
}

/** A stream that is not CSTP is noticed with its first byte. */
function checkMagic(bytes: Uint8Array, at: number, known: number): void {
  for (let i = 0; i < MAGIC.length && i < known; i += 1) {
    if (bytes[at + i] !== MAGIC[i]) throw new ProtocolError('not a CSTP packet');
  }
}

const NOTHING = new Uint8Array(0);

// Of the wire: docs/protocol.md §6.1
const MAGIC = [0x53, 0x54, 0x46, 0x01] as const;
export const HEADER_BYTES = 8;
/** One packet is one TLS record of at most 16,384 bytes. */
export const MAX_PAYLOAD_BYTES = 16_376;
