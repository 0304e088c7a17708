import { STATUS_CODES } from 'node:http';

/** Headers of every HTTP answer, unless the upstream set its own. Nothing names software or version (S9). */
export const FIXED_HEADERS: readonly [name: string, value: string][] = [
  ['Strict-Transport-Security', 'max-age=31536000'],
  ['X-Content-Type-Options', 'nosniff'],
  ['X-Frame-Options', 'DENY'],
  ['Referrer-Policy', 'no-referrer'],
  ['Content-Security-Policy', "default-src 'none'"],
  ['Cache-Control', 'no-store'],
];

/** A whole answer without a body that closes the connection, for where no HTTP response object is at hand. */
export function closingAnswer(status: number, reasonText = ''): Uint8Array {
  const lines = [`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Error'}`];
  // openconnect shows X-Reason of a 503 to its user. docs/protocol.md §5.2
  if (reasonText !== '') lines.push(`X-Reason: ${reasonText.replace(/[^\x20-\x7e]/g, '')}`);
  lines.push('Content-Length: 0', 'Connection: close');
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
}
