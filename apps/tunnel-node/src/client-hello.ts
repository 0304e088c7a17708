/**
 * Reads the server name from a TLS ClientHello, before any TLS is done, so that each virtual host can have its own
 * certificates, versions and client CAs. RFC 8446 §4.1.2, RFC 6066 §3.
 */

/** State of the first record of a connection: is it a whole one that carries a handshake? */
export function helloRecord(bytes: Buffer): 'incomplete' | 'complete' | 'not-tls' {
  if (bytes.length > 0 && bytes[0] !== HANDSHAKE_RECORD) return 'not-tls';
  if (bytes.length > 1 && bytes[1] !== 3) return 'not-tls';
  if (bytes.length < RECORD_HEADER_BYTES) return 'incomplete';
  const length = bytes.readUInt16BE(3);
  if (length === 0 || length > MAX_RECORD_BYTES) return 'not-tls';
  return bytes.length < RECORD_HEADER_BYTES + length ? 'incomplete' : 'complete';
}

/** @returns the name in lower case; '' = none, or a hello that cannot be read (the TLS library will refuse it). */
export function serverNameOf(record: Buffer): string {
  try {
    return findServerName(record);
  } catch (error) {
    // Reads past the end throw a RangeError: the hello is truncated or lies about a length.
    if (error instanceof RangeError) return '';
    throw error;
  }
}

function findServerName(record: Buffer): string {
  if (record.readUInt8(RECORD_HEADER_BYTES) !== CLIENT_HELLO) return '';
  let at = RECORD_HEADER_BYTES + 4 + 2 + 32;
  at += 1 + record.readUInt8(at);
  at += 2 + record.readUInt16BE(at);
  at += 1 + record.readUInt8(at);
  const end = at + 2 + record.readUInt16BE(at);
  at += 2;
  while (at + 4 <= end) {
    const type = record.readUInt16BE(at);
    const length = record.readUInt16BE(at + 2);
    if (type === SERVER_NAME_EXTENSION) return firstHostName(record, at + 4, length);
    at += 4 + length;
  }
  return '';
}

function firstHostName(record: Buffer, start: number, length: number): string {
  if (length < 5 || record.readUInt8(start + 2) !== 0) return '';
  const nameBytes = record.readUInt16BE(start + 3);
  if (nameBytes > MAX_NAME_BYTES || nameBytes > length - 5 || start + 5 + nameBytes > record.length)
    return '';
  return record.toString('latin1', start + 5, start + 5 + nameBytes).toLowerCase();
}

const RECORD_HEADER_BYTES = 5;
const HANDSHAKE_RECORD = 22;
const CLIENT_HELLO = 1;
const SERVER_NAME_EXTENSION = 0;
/** RFC 8446 §5.1. */
const MAX_RECORD_BYTES = 16_384;
/** RFC 1035 §2.3.4. */
const MAX_NAME_BYTES = 255;
