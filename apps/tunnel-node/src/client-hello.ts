/**
 * Reads the server name from a TLS ClientHello, before any TLS is done, so that each virtual host can have its own
 * certificates, versions and client CAs. RFC 8446 §4.1.2, RFC 6066 §3.
 */

/**
 * State of the ClientHello at the start of a connection. It may lie in several records (RFC 8446 §5.1): it is complete
 * when all of the handshake message is there.
 */
export function helloState(bytes: Buffer): 'incomplete' | 'complete' | 'not-tls' {
  const hello = joinRecords(bytes);
  return typeof hello === 'string' ? hello : 'complete';
}

/**
 * @param bytes of a complete ClientHello, as records.
 * @returns the name in lower case, without the dot of the root; '' = none, or a hello that cannot be read (the TLS
 * library will refuse it).
 */
export function serverNameOf(bytes: Buffer): string {
  const hello = joinRecords(bytes);
  if (typeof hello === 'string') return '';
  try {
    return findServerName(hello).replace(/\.$/, '');
  } catch (error) {
    // Reads past the end throw a RangeError: the hello is truncated or lies about a length.
    if (error instanceof RangeError) return '';
    throw error;
  }
}

/** @returns the handshake message without the headers of its records. */
function joinRecords(bytes: Buffer): Buffer | 'incomplete' | 'not-tls' {
  const fragments: Buffer[] = [];
  let at = 0;
  for (let records = 0; records < MAX_HELLO_RECORDS; records += 1) {
    const length = recordLength(bytes, at);
    if (typeof length === 'string') return length;
    at += RECORD_HEADER_BYTES;
    fragments.push(bytes.subarray(at, at + length));
    at += length;
    const hello = fragments.length === 1 ? (fragments[0] ?? EMPTY) : Buffer.concat(fragments);
    if (hello.length > 0 && hello[0] !== CLIENT_HELLO) return 'not-tls';
    if (hello.length >= MESSAGE_HEADER_BYTES) {
      const wanted = MESSAGE_HEADER_BYTES + hello.readUIntBE(1, 3);
      if (wanted > MAX_HELLO_BYTES) return 'not-tls';
      if (hello.length >= wanted) return hello.subarray(0, wanted);
    }
    if (at > bytes.length) return 'incomplete';
  }
  return 'not-tls';
}

/** Of the record that starts at `at`; it may not be whole. */
function recordLength(bytes: Buffer, at: number): number | 'incomplete' | 'not-tls' {
  const left = bytes.length - at;
  if (left > 0 && bytes[at] !== HANDSHAKE_RECORD) return 'not-tls';
  if (left > 1 && bytes[at + 1] !== 3) return 'not-tls';
  if (left < RECORD_HEADER_BYTES) return 'incomplete';
  const length = bytes.readUInt16BE(at + 3);
  return length === 0 || length > MAX_RECORD_BYTES ? 'not-tls' : length;
}

function findServerName(hello: Buffer): string {
  let at = MESSAGE_HEADER_BYTES + 2 + 32;
  at += 1 + hello.readUInt8(at);
  at += 2 + hello.readUInt16BE(at);
  at += 1 + hello.readUInt8(at);
  const end = at + 2 + hello.readUInt16BE(at);
  at += 2;
  while (at + 4 <= end) {
    const type = hello.readUInt16BE(at);
    const length = hello.readUInt16BE(at + 2);
    if (type === SERVER_NAME_EXTENSION) return firstHostName(hello, at + 4, length);
    at += 4 + length;
  }
  return '';
}

function firstHostName(hello: Buffer, start: number, length: number): string {
  if (length < 5 || hello.readUInt8(start + 2) !== 0) return '';
  const nameBytes = hello.readUInt16BE(start + 3);
  if (nameBytes > MAX_NAME_BYTES || nameBytes > length - 5 || start + 5 + nameBytes > hello.length) return '';
  return hello.toString('latin1', start + 5, start + 5 + nameBytes).toLowerCase();
}

const RECORD_HEADER_BYTES = 5;
/** Type and length of a handshake message. */
const MESSAGE_HEADER_BYTES = 4;
const EMPTY = Buffer.alloc(0);
const HANDSHAKE_RECORD = 22;
const CLIENT_HELLO = 1;
const SERVER_NAME_EXTENSION = 0;
/** RFC 8446 §5.1. */
const MAX_RECORD_BYTES = 16_384;
/** Of the whole message; those of today's clients have less than 2 KiB. */
export const MAX_HELLO_BYTES = 16_384;
/** Nobody needs more than two; more would make a small hello dear to put together. */
export const MAX_HELLO_RECORDS = 32;
/** RFC 1035 §2.3.4. */
const MAX_NAME_BYTES = 255;
