/**
 * What went over the wire, read from what `openconnect -v --dump-http-traffic` prints:
 * `> ` the request with its body, `Got … response:` and header lines the answer, `< ` its body.
 */
export interface Exchange {
  method: string;
  path: string;
  requestHeaders: [string, string][];
  requestBody: string;
  status: number;
  headers: [string, string][];
  body: string;
}

export function exchangesOf(output: string): Exchange[] {
  const found: Exchange[] = [];
  let part: 'request-head' | 'request-body' | 'answer-head' | 'other' = 'other';
  for (const line of output.split(/\r?\n/)) {
    const request = /^> (GET|POST|HEAD|CONNECT) (\S+) HTTP\/1\.1/.exec(line);
    // A prompt of openconnect may stand before it on the same line.
    const answer = /Got (?:HTTP|CONNECT) response: HTTP\/1\.[01] (\d+)/.exec(line);
    const current = found.at(-1);
    if (request !== null) {
      const [, method = '', path = ''] = request;
      found.push({ method, path, requestHeaders: [], requestBody: '', status: 0, headers: [], body: '' });
      part = 'request-head';
    } else if (current === undefined) {
      continue;
    } else if (answer !== null) {
      current.status = Number(answer[1]);
      part = 'answer-head';
    } else if (line.startsWith('>')) {
      const text = line.slice(2);
      if (part === 'request-head' && text === '') part = 'request-body';
      else if (part === 'request-head') addHeader(current.requestHeaders, text);
      else if (part === 'request-body') current.requestBody += `${text}\n`;
    } else if (line.startsWith('<')) {
      current.body += `${line.slice(2)}\n`;
      part = 'other';
    } else if (part === 'answer-head' && !addHeader(current.headers, line)) {
      part = 'other';
    }
  }
  return found;
}

/** `TLS 1.3, AES-256-GCM` from openconnect's line; '' = not found. */
export function tlsOf(output: string): string {
  const line = /with ciphersuite \(([^)]+)\)(?:-\(([^)]+)\))*/.exec(output);
  if (line === null) return '';
  const parts = [...line[0].matchAll(/\(([^)]+)\)/g)].map((match) => match[1] ?? '');
  return `${parts[0]?.replace('TLS', 'TLS ') ?? ''}, ${parts.at(-1) ?? ''}`;
}

export function headersOf(headers: readonly [string, string][], name: string): string[] {
  return headers.filter(([given]) => given.toLowerCase() === name.toLowerCase()).map(([, value]) => value);
}

function addHeader(headers: [string, string][], line: string): boolean {
  const found = /^([A-Za-z0-9-]+): ?(.*)$/.exec(line);
  if (found === null) return false;
  headers.push([found[1] ?? '', (found[2] ?? '').trim()]);
  return true;
}
