import { isIP } from 'node:net';

/** An address with a prefix length; `first` to `last` are the addresses in it. */
export interface Cidr {
  family: 'ipv4' | 'ipv6';
  prefixLength: number;
  first: bigint;
  last: bigint;
}

/** @returns undefined for what is no IPv4 or IPv6 address (zone ids are refused). */
export function parseAddress(text: string): { family: 'ipv4' | 'ipv6'; value: bigint } | undefined {
  const version = isIP(text);
  if (version === 4) return { family: 'ipv4', value: ipv4Value(text) };
  if (version === 6 && !text.includes('%')) return { family: 'ipv6', value: ipv6Value(text) };
  return undefined;
}

/** `10.0.0.0/8`, `10.0.0.0/255.0.0.0`, `fd00::/48`, or one address. Bits after the prefix are cut off. */
export function parseCidr(text: string): Cidr | undefined {
  const slash = text.indexOf('/');
  const address = parseAddress(slash < 0 ? text : text.slice(0, slash));
  if (!address) return undefined;
  const bits = address.family === 'ipv4' ? 32 : 128;
  const prefixLength = slash < 0 ? bits : prefixOf(text.slice(slash + 1), address.family);
  if (prefixLength === undefined || prefixLength > bits) return undefined;
  const hostBits = BigInt(bits - prefixLength);
  const first = (address.value >> hostBits) << hostBits;
  return { family: address.family, prefixLength, first, last: first + (1n << hostBits) - 1n };
}

/** Normal form: dotted IPv4, RFC 5952 IPv6. */
export function formatAddress(family: 'ipv4' | 'ipv6', value: bigint): string {
  if (family === 'ipv4') return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 0xffn).join('.');
  const groups = Array.from({ length: 8 }, (_, i) => Number((value >> BigInt(112 - 16 * i)) & 0xffffn));
  return compressGroups(groups);
}

export function formatCidr({ family, first, prefixLength }: Cidr): string {
  return `${formatAddress(family, first)}/${prefixLength}`;
}

export function cidrContains(outer: Cidr, inner: { family: string; first: bigint; last: bigint }): boolean {
  return outer.family === inner.family && outer.first <= inner.first && inner.last <= outer.last;
}

export function cidrsOverlap(a: Cidr, b: Cidr): boolean {
  return a.family === b.family && a.first <= b.last && b.first <= a.last;
}

function prefixOf(text: string, family: 'ipv4' | 'ipv6'): number | undefined {
  if (/^\d{1,3}$/.test(text)) return Number(text);
  if (family !== 'ipv4' || isIP(text) !== 4) return undefined;
  const mask = ipv4Value(text).toString(2).padStart(32, '0');
  return /^1*0*$/.test(mask) ? mask.replaceAll('0', '').length : undefined;
}

function ipv4Value(text: string): bigint {
  return text.split('.').reduce((value, octet) => (value << 8n) | BigInt(octet), 0n);
}

function ipv6Value(text: string): bigint {
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  if (dotted) {
    const low = ipv4Value(dotted[2] ?? '');
    return ipv6Value(`${dotted[1]}${(low >> 16n).toString(16)}:${(low & 0xffffn).toString(16)}`);
  }
  const [head = '', tail] = text.split('::');
  const groups = (part: string) => (part === '' ? [] : part.split(':').map((group) => BigInt(`0x${group}`)));
  const before = groups(head);
  const after = tail === undefined ? [] : groups(tail);
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => 0n);
  return [...before, ...zeros, ...after].reduce((value, group) => (value << 16n) | group, 0n);
}

/** RFC 5952 §4.2: the longest run of two or more zero groups, the first of equals. */
function compressGroups(groups: readonly number[]): string {
  let best = { start: 0, length: 1 };
  for (let start = 0; start < groups.length; start++) {
    let length = 0;
    while (groups[start + length] === 0) length++;
    if (length > best.length) best = { start, length };
  }
  const hex = groups.map((group) => group.toString(16));
  if (best.length < 2) return hex.join(':');
  return `${hex.slice(0, best.start).join(':')}::${hex.slice(best.start + best.length).join(':')}`;
}
