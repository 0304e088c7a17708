/**
 * The PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt): what a balancer that forwards TCP writes before the
 * client's first byte, so that the gateway knows the client's address.
 *
 *   1:  PROXY TCP4 192.0.2.1 198.51.100.1 40000 443\r\n        at most 107 bytes
 *   2:  signature 12 | version+command 1 | family 1 | length 2 | addresses | TLVs
 *
 * Whether one has to come is known from the configuration and never guessed: a client could write one as well.
 */
import { Reader, decodeLatin1 } from './bytes.ts';
import { ProtocolError } from './errors.ts';
import { formatAddress, parseAddress } from './ip.ts';

/** `bytes` is the size of the header: what follows it is the client's. */
export type ProxyHeader =
  | { kind: 'incomplete' }
  /** No header, or one that breaks the rules; `problem` is for the log and holds nothing that the peer wrote. */
  | { kind: 'bad'; problem: string }
  /** The balancer speaks for itself (its health check), or does not know the client: its own address counts. */
  | { kind: 'local'; bytes: number }
  | { kind: 'proxied'; bytes: number; source: ProxyEnd; destination: ProxyEnd };

export interface ProxyEnd {
  /** Dotted, or RFC 5952; an IPv4 address inside IPv6 is given as IPv4. */
  address: string;
  port: number;
}

/** @param bytes all that has come so far, from the first byte of the connection. */
export function readProxyHeader(bytes: Uint8Array): ProxyHeader {
  try {
    if (startsLike(bytes, V2_SIGNATURE)) return readVersion2(bytes);
    if (startsLike(bytes, V1_START)) return readVersion1(bytes);
    throw new ProtocolError('there is none');
  } catch (error) {
    if (error instanceof ProtocolError) return { kind: 'bad', problem: error.message };
    throw error;
  }
}

function readVersion1(bytes: Uint8Array): ProxyHeader {
  const end = bytes.subarray(0, MAX_V1_BYTES).indexOf(LINE_FEED);
  if (end < 0) {
    if (bytes.length >= MAX_V1_BYTES) throw new ProtocolError('the line is too long');
    return { kind: 'incomplete' };
  }
  const line = decodeLatin1(bytes.subarray(0, end + 1));
  if (/^PROXY UNKNOWN(?: [^\r\n]*)?\r\n$/.test(line)) return { kind: 'local', bytes: end + 1 };
  const found = /^PROXY TCP([46]) (\S+) (\S+) (\d{1,5}) (\d{1,5})\r\n$/.exec(line);
  if (!found) throw new ProtocolError('the line is malformed');
  const [, family, source = '', destination = '', sourcePort = '', destinationPort = ''] = found;
  const size = family === '4' ? 4 : 16;
  return {
    kind: 'proxied',
    bytes: end + 1,
    source: { address: readAddress(source, size), port: readPort(sourcePort) },
    destination: { address: readAddress(destination, size), port: readPort(destinationPort) },
  };
}

function readAddress(text: string, size: number): string {
  const address = parseAddress(text);
  if (address?.length !== size) throw new ProtocolError('an address is malformed');
  return plain(address);
}

function readPort(text: string): number {
  const port = Number(text);
  if (port > 65_535 || (text.length > 1 && text.startsWith('0')))
    throw new ProtocolError('a port is malformed');
  return port;
}

function readVersion2(bytes: Uint8Array): ProxyHeader {
  // What can be refused by its first bytes is not waited for.
  const [versionAndCommand, family] = bytes.subarray(V2_SIGNATURE.length);
  if (versionAndCommand !== undefined && versionAndCommand !== LOCAL && versionAndCommand !== PROXY)
    throw new ProtocolError('version or command is unknown');
  if (family !== undefined && versionAndCommand === PROXY && ADDRESS_BYTES[family] === undefined)
    throw new ProtocolError('the address family is not one of TCP');
  if (bytes.length < V2_HEAD_BYTES) return { kind: 'incomplete' };
  const length = new Reader(bytes.subarray(V2_HEAD_BYTES - 2)).u16();
  if (length > MAX_V2_LENGTH) throw new ProtocolError('the header is too long');
  const end = V2_HEAD_BYTES + length;
  if (bytes.length < end) return { kind: 'incomplete' };
  if (versionAndCommand === LOCAL) return { kind: 'local', bytes: end };
  const body = new Reader(bytes.subarray(V2_HEAD_BYTES, end));
  const size = ADDRESS_BYTES[family ?? 0] ?? 0;
  const [source, destination] = [body.take(size), body.take(size)];
  const [sourcePort, destinationPort] = size > 0 ? [body.u16(), body.u16()] : [0, 0];
  checkTlvs(bytes.subarray(0, end), end - body.remaining);
  if (size === 0) return { kind: 'local', bytes: end };
  return {
    kind: 'proxied',
    bytes: end,
    source: { address: plain(source), port: sourcePort },
    destination: { address: plain(destination), port: destinationPort },
  };
}

/** Each one ends inside the header, and a checksum is right. */
function checkTlvs(header: Uint8Array, start: number): void {
  const reader = new Reader(header.subarray(start));
  while (reader.remaining > 0) {
    const type = reader.u8();
    const value = reader.take(reader.u16());
    if (type !== TLV_CRC32C) continue;
    if (value.length !== 4) throw new ProtocolError('the checksum has a wrong size');
    const at = header.length - reader.remaining - 4;
    const zeroed = header.map((byte, index) => (index >= at && index < at + 4 ? 0 : byte));
    if (new Reader(value).u32() !== crc32c(zeroed)) throw new ProtocolError('the checksum is wrong');
  }
}

/** RFC 3720 appendix B.4. */
function crc32c(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}

function plain(address: Uint8Array): string {
  const isMapped = address.length === 16 && MAPPED_PREFIX.every((byte, at) => address[at] === byte);
  return formatAddress(isMapped ? address.subarray(MAPPED_PREFIX.length) : address);
}

/** Whether what is there of `start` agrees with it. */
function startsLike(bytes: Uint8Array, start: readonly number[]): boolean {
  return start.every((byte, at) => at >= bytes.length || bytes[at] === byte);
}

// proxy-protocol.txt §2.1
const V1_START = [0x50, 0x52, 0x4f, 0x58, 0x59, 0x20];
export const MAX_V1_BYTES = 107;
const LINE_FEED = 0x0a;

// proxy-protocol.txt §2.2
const V2_SIGNATURE = [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];
const V2_HEAD_BYTES = 16;
const LOCAL = 0x20;
const PROXY = 0x21;
/** Size of one address: UNSPEC, TCP over IPv4, TCP over IPv6. Datagrams and Unix sockets cannot arrive here. */
const ADDRESS_BYTES: Record<number, number | undefined> = { 0x00: 0, 0x11: 4, 0x21: 16 };
const TLV_CRC32C = 0x03;

/** RFC 4291 §2.5.5.2. */
const MAPPED_PREFIX = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/** Addresses and TLVs. The field allows 65,535; balancers stay within the least segment that TCP must carry. */
export const MAX_V2_LENGTH = 536;
