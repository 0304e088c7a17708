import { ProtocolError } from './errors.ts';

/** Reads big-endian values from front to back. Reading past the end is the peer's fault: `ProtocolError`. */
export class Reader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get remaining(): number {
    return this.#bytes.length - this.#at;
  }

  u8(): number {
    return this.#byte();
  }

  u16(): number {
    return this.#byte() * 0x100 + this.#byte();
  }

  u32(): number {
    return this.u16() * 0x1_0000 + this.u16();
  }

  /** A view, not a copy. */
  take(length: number): Uint8Array {
    if (length > this.remaining) throw new ProtocolError('message ends too early');
    const start = this.#at;
    this.#at += length;
    return this.#bytes.subarray(start, this.#at);
  }

  rest(): Uint8Array {
    return this.take(this.remaining);
  }

  #byte(): number {
    const value = this.#bytes[this.#at];
    if (value === undefined) throw new ProtocolError('message ends too early');
    this.#at += 1;
    return value;
  }
}

/** One character per byte. */
export function decodeLatin1(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

/** Lone surrogates become U+FFFD. */
export function encodeUtf8(text: string): Uint8Array {
  const out: number[] = [];
  for (const character of text) {
    let point = character.codePointAt(0) ?? REPLACEMENT;
    if (point >= 0xd800 && point <= 0xdfff) point = REPLACEMENT;
    if (point < 0x80) out.push(point);
    else if (point < 0x800) out.push(0xc0 | (point >> 6), trail(point));
    else if (point < 0x1_0000) out.push(0xe0 | (point >> 12), trail(point >> 6), trail(point));
    else out.push(0xf0 | (point >> 18), trail(point >> 12), trail(point >> 6), trail(point));
  }
  return Uint8Array.from(out);
}

/** @returns undefined if the text is not base64 of RFC 4648 §4 with its padding. */
export function decodeBase64(text: string): Uint8Array | undefined {
  if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return undefined;
  const digits = text.replace(/=+$/, '');
  const out = new Uint8Array(Math.floor((digits.length * 3) / 4));
  let bits = 0;
  let held = 0;
  let at = 0;
  for (const digit of digits) {
    held = ((held << 6) | BASE64.indexOf(digit)) & 0xffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out[at] = (held >> bits) & 0xff;
      at += 1;
    }
  }
  return out;
}

export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function trail(point: number): number {
  return 0x80 | (point & 0x3f);
}

const REPLACEMENT = 0xfffd;
const BASE64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
