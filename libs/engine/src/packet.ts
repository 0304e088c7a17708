/** The few facts about an IP packet that routing needs, and the errors that a router answers with. */

/** @returns 4 or 6 when header and lengths are sound, else 0. Bytes after the stated length are left to the kernel. */
export function soundVersion(packet: Uint8Array): 4 | 6 | 0 {
  const version = (packet[0] ?? 0) >> 4;
  if (version === 4 && packet.length >= IPV4_HEADER_BYTES) {
    const header = ((packet[0] ?? 0) & 0x0f) * 4;
    const total = u16(packet, 2);
    return header >= IPV4_HEADER_BYTES && total >= header && total <= packet.length ? 4 : 0;
  }
  if (version === 6 && packet.length >= IPV6_HEADER_BYTES) {
    return u16(packet, 4) + IPV6_HEADER_BYTES <= packet.length ? 6 : 0;
  }
  return 0;
}

export function u16(bytes: Uint8Array, at: number): number {
  return (bytes[at] ?? 0) * 0x100 + (bytes[at + 1] ?? 0);
}

export function u32(bytes: Uint8Array, at: number): number {
  return u16(bytes, at) * 0x1_0000 + u16(bytes, at + 2);
}

/**
 * Cuts an IPv4 packet that may be cut (RFC 791 §3.2).
 * @returns undefined if DF is set, or its header has options: then it is answered like one that may not be cut.
 */
export function fragmentIpv4(packet: Uint8Array, mtuBytes: number): Uint8Array[] | undefined {
  const flags = u16(packet, 6);
  if ((flags & DONT_FRAGMENT) !== 0 || packet[0] !== 0x45) return undefined;
  const body = packet.subarray(IPV4_HEADER_BYTES, u16(packet, 2));
  const step = (mtuBytes - IPV4_HEADER_BYTES) & ~7;
  const fragments: Uint8Array[] = [];
  for (let at = 0; at < body.length; at += step) {
    const part = body.subarray(at, at + step);
    const fragment = new Uint8Array(IPV4_HEADER_BYTES + part.length);
    fragment.set(packet.subarray(0, IPV4_HEADER_BYTES));
    fragment.set(part, IPV4_HEADER_BYTES);
    const more = at + step < body.length ? MORE_FRAGMENTS : flags & MORE_FRAGMENTS;
    put16(fragment, 2, fragment.length);
    put16(fragment, 6, more | ((flags & OFFSET_MASK) + at / 8));
    put16(fragment, 10, 0);
    put16(fragment, 10, checksum(fragment.subarray(0, IPV4_HEADER_BYTES)));
    fragments.push(fragment);
  }
  return fragments;
}

/**
 * "Packet too big" for the sender of `packet`: ICMP 3/4 (RFC 1191) or ICMPv6 2 (RFC 4443 §3.2). Like every error here it
 * comes from the client's address: the kernel takes no packet from outside with an address of its own.
 * @returns undefined where no error may be sent: about an ICMP error, a later fragment, multicast (RFC 1812 §4.3.2.7).
 */
export function packetTooBig(packet: Uint8Array, mtuBytes: number): Uint8Array | undefined {
  return isIpv4(packet)
    ? error4(packet, { type: 3, code: 4, value: mtuBytes })
    : error6(packet, { type: 2, code: 0, value: mtuBytes });
}

/** "Nobody has this address" for the sender of `packet`: ICMP 3/1 (RFC 792) or ICMPv6 1/3 (RFC 4443 §3.1). */
export function unreachable(packet: Uint8Array): Uint8Array | undefined {
  return isIpv4(packet)
    ? error4(packet, { type: 3, code: 1, value: 0 })
    : error6(packet, { type: 1, code: 3, value: 0 });
}

interface IcmpError {
  type: number;
  code: number;
  /** Of the last two bytes of the header. */
  value: number;
}

function isIpv4(packet: Uint8Array): boolean {
  return (packet[0] ?? 0) >> 4 === 4;
}

function error4(packet: Uint8Array, { type, code, value }: IcmpError): Uint8Array | undefined {
  const header = ((packet[0] ?? 0) & 0x0f) * 4;
  const laterFragment = (u16(packet, 6) & OFFSET_MASK) !== 0;
  const icmpError = packet[9] === ICMP && !ICMP_QUERIES.has(packet[header] ?? 0);
  const source = packet[12] ?? 0;
  const oneSender = source !== 0 && source < 224;
  if (laterFragment || icmpError || !oneSender || (packet[16] ?? 0) >= 224) return undefined;
  const quoted = packet.subarray(0, Math.min(packet.length, QUOTE4_BYTES));
  const out = new Uint8Array(IPV4_HEADER_BYTES + 8 + quoted.length);
  out[0] = 0x45;
  put16(out, 2, out.length);
  out[8] = 64;
  out[9] = ICMP;
  out.set(packet.subarray(16, 20), 12);
  out.set(packet.subarray(12, 16), 16);
  put16(out, 10, checksum(out.subarray(0, IPV4_HEADER_BYTES)));
  out[20] = type;
  out[21] = code;
  put16(out, 26, value);
  out.set(quoted, IPV4_HEADER_BYTES + 8);
  put16(out, 22, checksum(out.subarray(IPV4_HEADER_BYTES)));
  return out;
}

function error6(packet: Uint8Array, { type, code, value }: IcmpError): Uint8Array | undefined {
  const icmpError = packet[6] === ICMP6 && (packet[40] ?? 0) < 128;
  if (icmpError || packet[8] === 0xff || packet[24] === 0xff) return undefined;
  const quoted = packet.subarray(0, Math.min(packet.length, QUOTE6_BYTES));
  const out = new Uint8Array(IPV6_HEADER_BYTES + 8 + quoted.length);
  out[0] = 0x60;
  put16(out, 4, 8 + quoted.length);
  out[6] = ICMP6;
  out[7] = 64;
  out.set(packet.subarray(24, 40), 8);
  out.set(packet.subarray(8, 24), 24);
  out[40] = type;
  out[41] = code;
  put16(out, 46, value);
  out.set(quoted, 48);
  // RFC 8200 §8.1: addresses, length and protocol are part of the sum.
  const pseudo = new Uint8Array(40 + 8 + quoted.length);
  pseudo.set(out.subarray(8, 40));
  put16(pseudo, 34, 8 + quoted.length);
  pseudo[39] = ICMP6;
  pseudo.set(out.subarray(40), 40);
  put16(out, 42, checksum(pseudo));
  return out;
}

/**
 * An ICMP or ICMPv6 redirect. The kernel sends them when clients talk to each other, because the packets leave by the
 * device that they came by; in a tunnel there is no other way (RFC 792, RFC 4861 §4.5).
 */
export function isRedirect(packet: Uint8Array, version: 4 | 6): boolean {
  if (version === 6) return packet[6] === ICMP6 && packet[40] === REDIRECT6;
  const isFirstFragment = (u16(packet, 6) & OFFSET_MASK) === 0;
  const at = ((packet[0] ?? 0) & 0x0f) * 4;
  return packet[9] === ICMP && isFirstFragment && packet[at] === REDIRECT4;
}

/** RFC 1071. */
export function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += u16(bytes, i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

export function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value & 0xff;
}

const IPV4_HEADER_BYTES = 20;
const IPV6_HEADER_BYTES = 40;
const DONT_FRAGMENT = 0x4000;
const MORE_FRAGMENTS = 0x2000;
const OFFSET_MASK = 0x1fff;
const ICMP = 1;
const ICMP6 = 58;
const REDIRECT4 = 5;
const REDIRECT6 = 137;
/** ICMP types that are not errors: echo, timestamp. */
const ICMP_QUERIES = new Set([0, 8, 13, 14]);
/** The whole answer stays within 576 (RFC 1812 §4.3.2.3) and 1280 bytes (RFC 4443 §3.2). */
const QUOTE4_BYTES = 548;
const QUOTE6_BYTES = 1232;
