import { STATUS_CODES } from 'node:http';

/** Headers of every HTTP answer outside of a tunnel, unless the upstream set its own. Nothing names software or version (S9). */
export const FIXED_HEADERS: readonly [name: string, value: string][] = [
  ['Strict-Transport-Security', 'max-age=31536000'],
  ['X-Content-Type-Options', 'nosniff'],
  ['X-Frame-Options', 'DENY'],
  ['Referrer-Policy', 'no-referrer'],
  ['Content-Security-Policy', "default-src 'none'"],
  ['Cache-Control', 'no-store'],
];

/** Names and values of a whole head. @param length of the body; undefined = not said. */
export function answerHeaders(
  given: readonly (readonly [name: string, value: string])[],
  { length, keep }: { length: number | undefined; keep: boolean },
): string[] {
  const headers = given.flat();
  const names = new Set(given.map(([name]) => name.toLowerCase()));
  for (const [name, value] of FIXED_HEADERS) if (!names.has(name.toLowerCase())) headers.push(name, value);
  if (length !== undefined) headers.push('Content-Length', String(length));
  headers.push('Connection', keep ? 'Keep-Alive' : 'close');
  return headers;
}

export function refusalHeaders(status: number, text = ''): [name: string, value: string][] {
  const headers: [string, string][] = [];
  // openconnect shows X-Reason of a 503 to its user. docs/protocol.md §5.2
  if (text !== '') headers.push(['X-Reason', text.replace(/[^\x20-\x7e]/g, '')]);
  if (status === 405) headers.push(['Allow', 'GET, POST, HEAD']);
  return headers;
}

/** A whole refusal that closes the connection, for where no HTTP response object is at hand. */
export function closingAnswer(status: number, text = ''): Uint8Array {
  const headers = answerHeaders(refusalHeaders(status, text), { length: 0, keep: false });
  let head = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Error'}\r\n`;
  for (let at = 0; at + 1 < headers.length; at += 2) head += `${headers[at]}: ${headers[at + 1]}\r\n`;
  return Buffer.from(`${head}\r\n`, 'latin1');
}
