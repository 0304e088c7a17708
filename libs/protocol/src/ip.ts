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
  if (!text.includes(':') || text.includes('%') || !ipaddr.IPv6.isValid(text)) return undefined;
  return Uint8Array.from(ipaddr.IPv6.parse(text).toByteArray());
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
  const family = bits === 32 ? 'ipv4' : 'ipv6';
  return { family, network: address.map((byte, at) => byte & maskByte(prefixLength, at)), prefixLength };
}

export function formatCidr(cidr: Cidr): string {
  return `${formatAddress(cidr.network)}/${cidr.prefixLength}`;
}

export function cidrContains(cidr: Cidr, address: Uint8Array): boolean {
  if (address.length !== cidr.network.length) return false;
  return cidr.network.every((byte, at) => byte === ((address[at] ?? 0) & maskByte(cidr.prefixLength, at)));
}

export function cidrsOverlap(a: Cidr, b: Cidr): boolean {
  return a.prefixLength <= b.prefixLength ? cidrContains(a, b.network) : cidrContains(b, a.network);
}

/** First host: the gateway's own address in a pool. */
export function firstHost(cidr: Cidr): Uint8Array {
  const host = Uint8Array.from(cidr.network);
  const last = host.length - 1;
  if (cidr.prefixLength < host.length * 8) host[last] = (host[last] ?? 0) | 1;
  return host;
}

/** `255.255.0.0` for 16. */
export function dottedMask(prefixLength: number): string {
  return [0, 1, 2, 3].map((at) => maskByte(prefixLength, at)).join('.');
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
