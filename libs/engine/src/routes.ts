import { parseAddress } from '@sallyport/protocol';
import { u32 } from './packet.ts';

/** Which tunnel an address belongs to: one IPv4 address and one IPv6 prefix for each tunnel. */
export class Routes<T> {
  readonly #ipv4 = new Map<number, T>();
  /** By prefix length, then by the bytes of the prefix. Lengths are few: one per pool setting. */
  readonly #ipv6 = new Map<number, Map<string, T>>();

  /** @throws Error if an address is not one, or is taken. Then nothing was added. */
  add(owner: Owner, value: T): void {
    const ipv4 = owner.ipv4 === '' ? undefined : addressKey4(owner.ipv4);
    const ipv6 = owner.ipv6 === '' ? undefined : addressBytes6(owner.ipv6);
    if (ipv4 !== undefined && this.#ipv4.has(ipv4)) throw new Error('the IPv4 address is attached already');
    if (ipv6 && this.#overlaps(ipv6, owner.ipv6PrefixLength))
      throw new Error('the IPv6 prefix is attached already');
    if (ipv4 !== undefined) this.#ipv4.set(ipv4, value);
    if (!ipv6) return;
    const table = this.#ipv6.get(owner.ipv6PrefixLength) ?? new Map<string, T>();
    table.set(prefixKey(ipv6, 0, owner.ipv6PrefixLength), value);
    this.#ipv6.set(owner.ipv6PrefixLength, table);
  }

  remove(owner: Owner): void {
    if (owner.ipv4 !== '') this.#ipv4.delete(addressKey4(owner.ipv4));
    if (owner.ipv6 === '') return;
    const table = this.#ipv6.get(owner.ipv6PrefixLength);
    table?.delete(prefixKey(addressBytes6(owner.ipv6), 0, owner.ipv6PrefixLength));
    if (table?.size === 0) this.#ipv6.delete(owner.ipv6PrefixLength);
  }

  /** @param at where the address starts in `packet`. */
  find4(packet: Uint8Array, at: number): T | undefined {
    return this.#ipv4.get(u32(packet, at));
  }

  find6(packet: Uint8Array, at: number): T | undefined {
    for (const [length, table] of this.#ipv6) {
      const found = table.get(prefixKey(packet, at, length));
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #overlaps(address: Uint8Array, prefixLength: number): boolean {
    for (const [length, table] of this.#ipv6) {
      const shorter = Math.min(length, prefixLength);
      const wanted = prefixKey(address, 0, shorter);
      if (length <= prefixLength) {
        if (table.has(wanted)) return true;
      } else {
        for (const key of table.keys()) if (prefixKey(fromKey(key), 0, shorter) === wanted) return true;
      }
    }
    return false;
  }
}

export interface Owner {
  ipv4: string;
  ipv6: string;
  ipv6PrefixLength: number;
}

function addressKey4(text: string): number {
  const bytes = parseAddress(text);
  if (bytes?.length !== 4) throw new Error('not an IPv4 address');
  return u32(bytes, 0);
}

function addressBytes6(text: string): Uint8Array {
  const bytes = parseAddress(text);
  if (bytes?.length !== 16) throw new Error('not an IPv6 address');
  return bytes;
}

/** One character per byte of the prefix, the last one masked. */
function prefixKey(bytes: Uint8Array, at: number, prefixLength: number): string {
  const whole = prefixLength >>> 3;
  let key = '';
  for (let i = at; i < at + whole; i += 1) key += String.fromCharCode(bytes[i] ?? 0);
  const bits = prefixLength & 7;
  if (bits > 0) key += String.fromCharCode((bytes[at + whole] ?? 0) & (0xff << (8 - bits)));
  return key;
}

function fromKey(key: string): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, at) => (at < key.length ? key.charCodeAt(at) : 0));
}
