/**
 * `Upstream` over HTTP/1.1: how the edge reaches the portals and downloaders of other processes. One request:
 *
 *  1. replica   the next good one; connections are kept
 *  2. request   with the facts of the client's connection
 *  3. head      until it is here the request may go to another replica: what the portal does with a POST is auth.Begin,
 *               auth.Reply and auth.Logout, which may be repeated (rpc.ts), and everything else only reads
 *  4. body      a small one is collected, a large one is passed on as it comes
 */
import type { IncomingMessage, RequestOptions } from 'node:http';
import { request as httpsRequest, Agent as HttpsAgent } from 'node:https';
import type { Log } from '@sallyport/chassis';
import { ProtocolError } from '@sallyport/protocol';
import { reasonFrom } from './auth-wire.ts';
import { checkRole, type PeerCertificates, type PeerRole } from './peers.ts';
import { ReplicaLost, Replicas, ServiceUnavailable, type Replica } from './replicas.ts';
import { StoreUnavailable } from './sessions.ts';
import type { FileRange, InsideRequest, InsideResponse, Upstream } from './upstream.ts';
import {
  CLOSE_HEADER,
  factHeaders,
  FACTS_PREFIX,
  HOP_HEADERS,
  MALFORMED_HEADER,
  REASON_HEADER,
  UPSTREAM_HEALTH,
} from './upstream-wire.ts';

export interface HttpUpstreamOptions {
  role: PeerRole & ('portal' | 'downloader');
  /** `HOST:PORT`. */
  addresses: readonly string[];
  /** Of this process. */
  certificates: PeerCertificates;
  checkEveryMs?: number;
  log?: Log;
  /** From the first try to the head of the answer. */
  deadlineMs?: number;
}

export function httpUpstream(options: HttpUpstreamOptions): { upstream: Upstream; close(): void } {
  const { role, addresses, certificates, checkEveryMs, log, deadlineMs = ANSWER_DEADLINE_MS } = options;
  const replicas = new Replicas(
    addresses.map((address) => new HttpReplica(address, role, certificates)),
    { service: role, checkEveryMs, log },
  );
  return {
    upstream: (request) =>
      replicas.call({ repeatable: true, deadlineMs }, async (replica, signal, leftMs) =>
        insideResponse(await replica.ask(request, signal, leftMs), request.method),
      ),
    close: () => replicas.close(),
  };
}

class HttpReplica implements Replica {
  readonly address: string;
  readonly #role: PeerRole;
  readonly #certificates: PeerCertificates;
  readonly #host: string;
  readonly #port: number;
  readonly #agent: HttpsAgent;

  constructor(address: string, role: PeerRole, certificates: PeerCertificates) {
    this.address = address;
    this.#role = role;
    this.#certificates = certificates;
    const colon = address.lastIndexOf(':');
    this.#host = address.slice(0, colon).replace(/^\[(.*)\]$/, '$1');
    this.#port = Number(address.slice(colon + 1));
    // No TLS sessions are kept: each new connection shows both certificates anew.
    this.#agent = new HttpsAgent({
      keepAlive: true,
      maxSockets: MAX_SOCKETS,
      maxFreeSockets: MAX_FREE_SOCKETS,
      maxCachedSessions: 0,
      timeout: IDLE_MS,
    });
  }

  ask(request: InsideRequest, signal: AbortSignal, leftMs: number): Promise<IncomingMessage> {
    const headers = Object.entries(request.headers)
      .filter(([name]) => !HOP_HEADERS.has(name) && !name.startsWith(FACTS_PREFIX))
      .flat();
    headers.push(...factHeaders(request.facts), 'Content-Length', String(request.body.length));
    if (request.headers['host'] === undefined) headers.push('Host', this.address);
    return this.#send(
      { method: request.method, path: request.target, headers },
      request.body,
      signal,
      leftMs,
    );
  }

  async check(signal: AbortSignal): Promise<boolean> {
    const options = { method: 'GET', path: UPSTREAM_HEALTH, headers: ['Host', this.address] };
    const answer = await this.#send(options, NOTHING, signal, CHECK_MS);
    answer.resume();
    return answer.statusCode === 200;
  }

  close(): void {
    this.#agent.destroy();
  }

  /** @returns the answer when its head is here. @throws ReplicaLost */
  #send(
    options: RequestOptions,
    body: Uint8Array,
    signal: AbortSignal,
    leftMs: number,
  ): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      let sent = false;
      const lost = (error: Error) =>
        reject(new ReplicaLost(`${this.address} was lost`, { cause: error, unsent: !sent }));
      let asked;
      try {
        const connection = {
          host: this.#host,
          port: this.#port,
          agent: this.#agent,
          // The agent hands it to node:tls; https does not know of it.
          secureContext: this.#certificates.context,
          checkServerIdentity: checkRole(this.#role),
        };
        asked = httpsRequest({ ...options, ...connection });
      } catch {
        // Node refuses to send some bytes in a target that it accepts from others.
        return reject(new ProtocolError('the request cannot be passed on'));
      }
      const deadline = setTimeout(() => asked.destroy(new Error('no answer in time')), leftMs);
      const abort = () => asked.destroy(new Error('the replica does not answer any more'));
      const settle = () => {
        clearTimeout(deadline);
        signal.removeEventListener('abort', abort);
      };
      signal.addEventListener('abort', abort, { once: true });
      asked.once('socket', (socket) => {
        const begin = () => (sent = true);
        if (socket.connecting || !asked.reusedSocket) socket.once('secureConnect', begin);
        else begin();
      });
      asked.on('error', (error) => {
        settle();
        lost(error);
      });
      asked.once('response', (answer) => {
        settle();
        // Who reads it hears of it there.
        answer.on('error', () => undefined);
        answer.setTimeout(STALLED_MS, () => answer.destroy(new Error('the answer stalled')));
        resolve(answer);
      });
      asked.end(body);
      if (signal.aborted) abort();
    });
  }
}

async function insideResponse(answer: IncomingMessage, method: string): Promise<InsideResponse> {
  const status = answer.statusCode ?? 0;
  if (answer.headers[MALFORMED_HEADER.toLowerCase()] !== undefined) {
    answer.resume();
    throw new ProtocolError('the client broke the protocol', status);
  }
  const reason = answer.headers[REASON_HEADER.toLowerCase()];
  if (reason !== undefined) {
    answer.resume();
    if (reason === 'store-unavailable') throw new StoreUnavailable('a service cannot reach the store');
    throw new ServiceUnavailable('a service refused', { reason: reasonFrom(reason) });
  }
  const close = answer.headers[CLOSE_HEADER.toLowerCase()] !== undefined;
  const head = { status, headers: headersOf(answer.rawHeaders), ...(close && { close }) };
  const length = Number(answer.headers['content-length'] ?? 0);
  if (method === 'HEAD' || status === 304) {
    answer.resume();
    return { ...head, body: status === 304 ? NOTHING : { file: NO_FILE, start: 0, length } };
  }
  if (length > COLLECTED_BYTES) return { ...head, body: streamed(answer, length) };
  return { ...head, body: await collected(answer, length) };
}

function headersOf(raw: readonly string[]): [string, string][] {
  const headers: [string, string][] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at] ?? '';
    const lower = name.toLowerCase();
    if (!HOP_HEADERS.has(lower) && !lower.startsWith(FACTS_PREFIX)) headers.push([name, raw[at + 1] ?? '']);
  }
  return headers;
}

async function collected(answer: IncomingMessage, length: number): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let got = 0;
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      got += chunk.length;
      chunks.push(chunk);
    }
  } catch (error) {
    throw new ReplicaLost('an answer broke off', { cause: error, unsent: false });
  }
  if (got !== length) throw new ReplicaLost('an answer broke off', { unsent: false });
  return Buffer.concat(chunks);
}

/** Bytes in the order in which they come: who reads must go on where it stopped, as the edge does. */
function streamed(answer: IncomingMessage, length: number): FileRange {
  let rest: Buffer = Buffer.alloc(0);
  const chunks = (answer as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  const read: FileRange['file']['read'] = async (buffer, offset, wanted) => {
    if (rest.length === 0) {
      const next = await chunks.next();
      if (next.done) return { bytesRead: 0 };
      rest = next.value;
    }
    const bytesRead = Math.min(wanted, rest.length);
    buffer.set(rest.subarray(0, bytesRead), offset);
    rest = rest.subarray(bytesRead);
    return { bytesRead };
  };
  return {
    file: {
      read,
      close: async () => {
        // One that nobody wants to the end must not be read to the end.
        if (!answer.readableEnded) answer.destroy();
      },
    },
    start: 0,
    length,
  };
}

const NOTHING = new Uint8Array(0);
const NO_FILE: FileRange['file'] = {
  read: async () => ({ bytesRead: 0 }),
  close: async () => undefined,
};
/** Less than the edge waits for an answer. */
export const ANSWER_DEADLINE_MS = 50_000;
/** Up to here an answer is collected, so that one that breaks off can be asked for again. */
export const COLLECTED_BYTES = 262_144;
const CHECK_MS = 1_000;
const STALLED_MS = 30_000;
const IDLE_MS = 55_000;
/** For each replica. */
const MAX_SOCKETS = 512;
const MAX_FREE_SOCKETS = 64;
