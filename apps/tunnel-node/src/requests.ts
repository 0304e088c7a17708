/**
 * One HTTP request (docs/protocol.md §2.2):
 *
 *  1. head      within the limits, no header twice that must be single
 *  2. route     by the target; an unknown one is 404
 *  3. body      collected, bounded
 *  4. upstream  portal or downloader, as a call with the facts of the connection
 *  5. answer    with Content-Length, names spelled as given
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import {
  streamFile,
  type ConnectionFacts,
  type InsideRequest,
  type InsideResponse,
} from '@sallyport/cluster';
import { answerHeaders } from './answers.ts';
import type { StreamFacts } from './listener.ts';
import type { EdgeRefusal } from './metrics.ts';

/** The edge will not pass this request on. */
export interface Refusal {
  status: number;
  cause: EdgeRefusal;
  /** Shown by openconnect with a 503. */
  text?: string;
}

// 1. head
/** @param method set where Node has looked at it already. */
export function checkHead(
  request: IncomingMessage,
  limits: RequestLimits,
  method?: 'CONNECT',
): Refusal | undefined {
  const target = request.url ?? '';
  if ((request.method ?? '').length + target.length + ' HTTP/1.1 '.length > limits.requestLineBytes) {
    return { status: 414, cause: 'request-line-too-long' };
  }
  if (headBytes(request) > limits.headerBytes) return { status: 431, cause: 'header-too-large' };
  if (hasDuplicates(request.rawHeaders)) return { status: 400, cause: 'duplicate-header' };
  if (method === undefined && !METHODS.includes(request.method ?? ''))
    return { status: 405, cause: 'method' };
  if (Number(request.headers['content-length'] ?? 0) > limits.bodyBytes)
    return { status: 413, cause: 'body-too-large' };
  return undefined;
}

/** As on the wire, with separators: Node itself counts names and values only. */
function headBytes(request: IncomingMessage): number {
  return request.rawHeaders.reduce((sum, text) => sum + text.length + 2, 0);
}

export function hasDuplicates(rawHeaders: readonly string[]): boolean {
  const seen = new Set<string>();
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = (rawHeaders[at] ?? '').toLowerCase();
    if (!SINGLE_HEADERS.includes(name)) continue;
    if (seen.has(name)) return true;
    seen.add(name);
  }
  return false;
}

// 3. body
/** @returns the body, or 'too-large', 'no-room' when the budget is spent, 'aborted' when the client went away. */
export function collectBody(
  request: IncomingMessage,
  limit: number,
  budget: BodyBudget,
): Promise<BodyResult> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    const finish = (result: BodyResult) => {
      request.removeAllListeners('data');
      budget.release(body);
      chunks.length = 0;
      resolve(result);
    };
    const body: BodyUnderWay = { bytes: 0, yieldPlace: () => finish('no-room') };
    request.on('data', (chunk: Buffer) => {
      if (body.bytes + chunk.length > limit) return finish('too-large');
      if (!budget.take(body, chunk.length)) return finish('no-room');
      chunks.push(chunk);
    });
    request.once('end', () => finish(Buffer.concat(chunks)));
    request.once('close', () => finish('aborted'));
    request.once('error', () => finish('aborted'));
  });
}

export type BodyResult = Buffer | 'too-large' | 'no-room' | 'aborted';

export interface BodyUnderWay {
  /** Collected so far. */
  bytes: number;
  /** Its bytes are needed for another one. */
  yieldPlace(): void;
}

/**
 * Bytes of bodies that are being collected, over all connections. The first `FREE_BODY_BYTES` of each do not count, so
 * that logins, which are small, need nothing of it; when it is spent, the largest body yields, the oldest of equal ones.
 */
export class BodyBudget {
  #left: number;
  /** Those with a part of it, the oldest first. */
  readonly #bodies = new Set<BodyUnderWay>();

  constructor(bytes: number) {
    this.#left = bytes;
  }

  /** Adds to the bytes of `body`. @returns false when it is the largest itself. */
  take(body: BodyUnderWay, bytes: number): boolean {
    const wanted = counted(body.bytes + bytes) - counted(body.bytes);
    while (wanted > this.#left) {
      const largest = this.#largest();
      if (largest === undefined || largest.bytes <= body.bytes + bytes) return false;
      largest.yieldPlace();
    }
    this.#left -= wanted;
    body.bytes += bytes;
    if (wanted > 0) this.#bodies.add(body);
    return true;
  }

  release(body: BodyUnderWay): void {
    if (this.#bodies.delete(body)) this.#left += counted(body.bytes);
    body.bytes = 0;
  }

  #largest(): BodyUnderWay | undefined {
    let largest: BodyUnderWay | undefined;
    for (const body of this.#bodies) if (body.bytes > (largest?.bytes ?? 0)) largest = body;
    return largest;
  }
}

function counted(bytes: number): number {
  return Math.max(0, bytes - FREE_BODY_BYTES);
}

// 4. upstream
export function insideRequest(request: IncomingMessage, body: Uint8Array, facts: StreamFacts): InsideRequest {
  return {
    method: request.method ?? '',
    target: request.url ?? '',
    headers: insideHeaders(request.rawHeaders),
    body,
    facts: connectionFacts(facts),
  };
}

/** Names in lower case, the first of each; what only the inside may say is left out. */
export function insideHeaders(rawHeaders: readonly string[]): Record<string, string> {
  const headers = new Map<string, string>();
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = (rawHeaders[at] ?? '').toLowerCase();
    const value = rawHeaders[at + 1] ?? '';
    if (name.startsWith(INSIDE_PREFIX)) continue;
    const before = headers.get(name);
    if (before === undefined) headers.set(name, value);
    else if (name === 'cookie') headers.set(name, `${before}; ${value}`);
  }
  return Object.fromEntries(headers);
}

function connectionFacts(facts: StreamFacts): ConnectionFacts {
  return {
    clientAddress: facts.peerAddress,
    serverName: facts.serverName,
    servedLeafSha1: facts.servedLeafSha1,
    tlsVersion: facts.tlsVersion,
    ...(facts.certificate && { certificate: facts.certificate }),
  };
}

// 5. answer
/** Writes the whole answer, closes the file of a FileRange. @param keep whether the connection may be used again. */
export async function writeAnswer(
  response: ServerResponse,
  answer: InsideResponse,
  keep: boolean,
): Promise<void> {
  const { body } = answer;
  try {
    if (response.destroyed) return;
    writeHead(response, answer, keep);
    if (body instanceof Uint8Array) response.end(body);
    else if (response.req.method === 'HEAD') response.end();
    else await streamFile(response, body);
  } finally {
    if (!(body instanceof Uint8Array)) await body.file.close();
  }
}

export function writeHead(response: ServerResponse, answer: InsideResponse, keep: boolean): void {
  const length = answer.status === 304 ? undefined : answer.body.length;
  response.sendDate = false;
  response.writeHead(answer.status, answerHeaders(answer.headers, { length, keep }));
}

export interface RequestLimits {
  /** Names, values and their separators. */
  headerBytes: number;
  bodyBytes: number;
  requestLineBytes: number;
}

const METHODS = ['GET', 'POST', 'HEAD'];
/** Two of them would be read differently by different programs. */
const SINGLE_HEADERS = ['host', 'content-length', 'transfer-encoding', 'authorization'];
/** Headers that only services inside may set. */
const INSIDE_PREFIX = 'x-sallyport-';
export const FREE_BODY_BYTES = 8192;
