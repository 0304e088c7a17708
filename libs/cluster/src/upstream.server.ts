/**
 * The other side of upstream.http.ts, in the processes of portal and downloader: requests of the edges become InsideRequests.
 * It never speaks with clients: without a certificate of the cluster that says `tunnel-node` no connection comes about.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { PeerCertificate, TLSSocket } from 'node:tls';
import type { Log } from '@sallyport/chassis';
import { ProtocolError } from '@sallyport/protocol';
import { mayCome, type PeerCertificates, type PeerRole } from './peers.ts';
import { ServiceUnavailable } from './replicas.ts';
import { StoreUnavailable } from './sessions.ts';
import { streamFile, type InsideRequest, type InsideResponse, type Upstream } from './upstream.ts';
import {
  CLOSE_HEADER,
  FACTS_PREFIX,
  factsFrom,
  HOP_HEADERS,
  MALFORMED_HEADER,
  REASON_HEADER,
  UPSTREAM_HEALTH,
} from './upstream-wire.ts';

export interface UpstreamServerOptions {
  /** `HOST:PORT`. */
  listen: string;
  certificates: PeerCertificates;
  handle: Upstream;
  /** May new requests come? */
  ready: () => boolean;
  log: Log;
  /** Of peers whose certificate names roles. */
  callers?: readonly PeerRole[];
}

export interface UpstreamServer {
  readonly port: number;
  /** Answers under way are finished. Idempotent. */
  close(): Promise<void>;
  /** Ends at once, in the middle of whatever there is. */
  destroy(): void;
}

/** Rejects with the error of `listen`. */
export async function serveUpstream(options: UpstreamServerOptions): Promise<UpstreamServer> {
  const { listen, certificates, callers = ['tunnel-node'], log } = options;
  const server = createServer(
    {
      ...certificates.current,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: 'TLSv1.3',
      maxHeaderSize: MAX_HEAD_BYTES,
      headersTimeout: HEAD_MS,
      requestTimeout: REQUEST_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
    },
    (request, response) => {
      answer(request, response, options).catch((error: unknown) => {
        log.error({ err: error }, 'a request of the edge failed');
        response.destroy();
      });
    },
  );
  server.maxHeadersCount = 0;
  // Before HTTP hears of it: `secureConnection` handlers run in the order in which they were added.
  server.prependListener('secureConnection', (socket: TLSSocket) => {
    const certificate: PeerCertificate = socket.getPeerCertificate();
    if (mayCome(certificate, callers)) return;
    log.warn({}, 'a peer whose certificate has another role was refused');
    socket.destroy();
  });
  // The present certificate for each handshake, without a word from whoever renews it.
  const renewed = () => server.setSecureContext(certificates.current);
  certificates.addIdentityCertificateListener(renewed);
  await listening(server, listen);
  const { port } = server.address() as AddressInfo; // it listens on an address
  let closed: Promise<void> | undefined;
  return {
    port,
    destroy() {
      server.close();
      server.closeAllConnections();
    },
    close: () =>
      (closed ??= new Promise((resolve) => {
        certificates.removeIdentityCertificateListener(renewed);
        server.close(() => resolve());
        server.closeIdleConnections();
        setTimeout(() => server.closeAllConnections(), CLOSE_MS).unref();
      })),
  };
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  { handle, ready, log }: UpstreamServerOptions,
): Promise<void> {
  if (request.url === UPSTREAM_HEALTH && !request.rawHeaders.some((name) => isFact(name))) {
    request.resume();
    response.writeHead(ready() ? 200 : 503, { 'Content-Length': '0' });
    return void response.end();
  }
  let inside: InsideRequest;
  let result: InsideResponse;
  try {
    inside = await insideRequest(request);
    result = await handle(inside);
  } catch (error) {
    if (response.destroyed || request.readableAborted) return response.destroy() && undefined;
    return refuse(response, error, log);
  }
  await write(response, inside.method, result);
}

async function insideRequest(request: IncomingMessage): Promise<InsideRequest> {
  const facts = factsFrom(request.rawHeaders);
  const headers: [string, string][] = [];
  for (let at = 0; at + 1 < request.rawHeaders.length; at += 2) {
    const name = (request.rawHeaders[at] ?? '').toLowerCase();
    if (!HOP_HEADERS.has(name) && !isFact(name)) headers.push([name, request.rawHeaders[at + 1] ?? '']);
  }
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES) throw new ProtocolError('the body is too large', 413);
    chunks.push(chunk);
  }
  return {
    method: request.method ?? '',
    target: request.url ?? '',
    headers: Object.fromEntries(headers),
    body: Buffer.concat(chunks),
    facts,
  };
}

function refuse(response: ServerResponse, error: unknown, log: Log): void {
  if (response.headersSent) return void response.destroy();
  if (error instanceof ProtocolError) {
    response.writeHead(error.status, {
      [MALFORMED_HEADER]: 'yes',
      'Content-Length': '0',
      Connection: 'close',
    });
    return void response.end();
  }
  const known = error instanceof StoreUnavailable || error instanceof ServiceUnavailable;
  // What is away stands in the log once already (replicas.ts, the store).
  if (known) log.debug({ problem: error.message }, 'a request was refused');
  else log.error({ err: error }, 'a service failed on a request');
  const reason =
    error instanceof StoreUnavailable
      ? 'store-unavailable'
      : error instanceof ServiceUnavailable
        ? error.reason
        : 'error';
  response.writeHead(503, { [REASON_HEADER]: reason, 'Content-Length': '0' });
  response.end();
}

async function write(response: ServerResponse, method: string, answer: InsideResponse): Promise<void> {
  const { body } = answer;
  const isFile = !(body instanceof Uint8Array);
  try {
    if (response.destroyed) return;
    const headers = answer.headers.flat();
    if (answer.status !== 304) headers.push('Content-Length', String(body.length));
    if (answer.close) headers.push(CLOSE_HEADER, 'yes');
    response.sendDate = false;
    response.writeHead(answer.status, headers);
    if (method === 'HEAD' || answer.status === 304) response.end();
    else if (isFile) await streamFile(response, body);
    else response.end(body);
  } finally {
    if (isFile) await body.file.close();
  }
}

function isFact(name: string): boolean {
  return name.toLowerCase().startsWith(FACTS_PREFIX);
}

function listening(server: Server, address: string): Promise<void> {
  const colon = address.lastIndexOf(':');
  const host = address.slice(0, colon).replace(/^\[(.*)\]$/, '$1');
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port: Number(address.slice(colon + 1)), backlog: BACKLOG }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

/** What the edge lets through, with facts and a certificate of a client. */
export const MAX_HEAD_BYTES = 65_536;
export const MAX_BODY_BYTES = 262_144;
const HEAD_MS = 5_000;
const REQUEST_MS = 20_000;
/** Longer than the edge keeps a connection that it does not use: else it would send into one that closes. */
const KEEP_ALIVE_MS = 65_000;
const CLOSE_MS = 5_000;
const BACKLOG = 4096;
