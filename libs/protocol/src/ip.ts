import ipaddr from 'ipaddr.js';

/** Addresses and CIDRs; the only file on ipaddr.js. */
export interface Cidr {
  family: IpFamily;
  /** Network address, host bits zero: 4 or 16 bytes. */
  network: Uint8Array;
  prefixLength: number;
}

export type IpFamily = 'ipv4' | 'ipv6';

/** @returns 4 or 16 bytes; undefined if the text is not a plain address (four decimal parts, or IPv6 without a zone). */
export function parseAddress(text: string): Uint8Array | undefined {
  if (ipaddr.IPv4.isValidFourPartDecimal(text)) return Uint8Array.from(ipaddr.IPv4.parse(text).toByteArray());
  if (!text.includes(':') || text.includes('%')) return undefined;
  const groups = text.includes('.') ? withoutDots(text) : text;
  if (groups === undefined || !ipaddr.IPv6.isValid(groups)) return undefined;
  return Uint8Array.from(ipaddr.IPv6.parse(groups).toByteArray());
}

export function familyOf(address: Uint8Array): IpFamily {
  return address.length === 4 ? 'ipv4' : 'ipv6';
}

/** @param bytes big-endian. */
export function toBigint(bytes: Uint8Array): bigint {
  return bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

/** The inverse. @param length 4 or 16 bytes; what does not fit is cut off at the top. */
export function fromBigint(value: bigint, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => Number((value >> BigInt(8 * (length - 1 - at))) & 0xffn));
}

/** Dotted, or RFC 5952. @param bytes 4 or 16 of them. */
export function formatAddress(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  return new ipaddr.IPv6([...bytes]).toRFC5952String();
}

/** @param text `ADDRESS/LENGTH` or `ADDRESS/DOTTED-MASK`; an address alone is one host. Host bits are cleared. */
export function parseCidr(text: string): Cidr | undefined {
  const [addressText = '', maskText, more] = text.split('/');
  const address = parseAddress(addressText);
  if (address === undefined || more !== undefined) return undefined;
  const bits = address.length * 8;
  const prefixLength = maskText === undefined ? bits : parseMask(maskText, bits);
  if (prefixLength === undefined) return undefined;
  const network = address.map((byte, at) => byte & maskByte(prefixLength, at));
  return { family: familyOf(address), network, prefixLength };
}

export function formatCidr(cidr: Cidr): string {
  return `${formatAddress(cidr.network)}/${cidr.prefixLength}`;
}

/** From `first` to `last`, both included. */
export interface AddressRange {
  family: IpFamily;
  first: Uint8Array;
  last: Uint8Array;
}

/** Reads `192.0.2.8-192.0.2.15`, or one address. @returns undefined also for one whose end comes before its start. */
export function parseRange(text: string): AddressRange | undefined {
  const [from = '', to = from, more] = text.split('-');
  const first = parseAddress(from);
  const last = parseAddress(to);
  if (!first || last?.length !== first.length || more !== undefined) return undefined;
  return toBigint(first) <= toBigint(last) ? { family: familyOf(first), first, last } : undefined;
}

export function formatRange({ first, last }: AddressRange): string {
  const [from, to] = [formatAddress(first), formatAddress(last)];
  return from === to ? from : `${from}-${to}`;
}

export function cidrContains(cidr: Cidr, address: Uint8Array): boolean {
  if (address.length !== cidr.network.length) return false;
  return cidr.network.every((byte, at) => byte === ((address[at] ?? 0) & maskByte(cidr.prefixLength, at)));
}

export function cidrsOverlap(a: Cidr, b: Cidr): boolean {
  return a.prefixLength <= b.prefixLength ? cidrContains(a, b.network) : cidrContains(b, a.network);
}

/**
 * The gateway's own address in a pool: the first host, in a /31 and a /127 the lower of the two (RFC 3021, RFC 6164).
 * @returns undefined in a pool of one address: it is a client's.
 */
export function gatewayOf(pool: Cidr): Uint8Array | undefined {
  const { network, prefixLength } = pool;
  const hostBits = network.length * 8 - prefixLength;
  if (hostBits === 0) return undefined;
  return fromBigint(toBigint(network) + (hostBits === 1 ? 0n : 1n), network.length);
}

/** `255.255.0.0` for 16. */
export function dottedMask(prefixLength: number): string {
  return [0, 1, 2, 3].map((at) => maskByte(prefixLength, at)).join('.');
}

/** The dotted end of RFC 4291 §2.2 (`::1.2.3.4`) as two groups: ipaddr.js would make `::ffff:1.2.3.4` of this one. */
function withoutDots(text: string): string | undefined {
  const end = text.lastIndexOf(':') + 1;
  const dotted = text.slice(end);
  if (!ipaddr.IPv4.isValidFourPartDecimal(dotted)) return undefined;
  const value = toBigint(Uint8Array.from(ipaddr.IPv4.parse(dotted).toByteArray()));
  return `${text.slice(0, end)}${(value >> 16n).toString(16)}:${(value & 0xffffn).toString(16)}`;
}

function parseMask(text: string, bits: number): number | undefined {
  if (/^\d{1,3}$/.test(text)) {
    const length = Number(text);
    return length <= bits ? length : undefined;
  }
  if (bits !== 32 || !ipaddr.IPv4.isValidFourPartDecimal(text)) return undefined;
  return ipaddr.IPv4.parse(text).prefixLengthFromSubnetMask() ?? undefined;
}

function maskByte(prefixLength: number, at: number): number {
  const bits = Math.min(8, Math.max(0, prefixLength - at * 8));
  return (0xff << (8 - bits)) & 0xff;
}
