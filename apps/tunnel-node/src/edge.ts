/**
 * HTTP on top of any byte stream (docs/protocol.md §2.2). A connection goes through these stages, each with its deadline:
 *
 *     head ──► body ──► upstream ──► answer ──┬─► head (Keep-Alive)
 *      │        │          │                  └─► closing
 *      ├────────┴──────────┴─ refused ──────────► closing ──► closed
 *      └─ CONNECT: the stream leaves HTTP for good and belongs to the tunnels
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Log } from '@sallyport/chassis';
import { ServiceUnavailable, StoreUnavailable, type InsideResponse, type Upstream } from '@sallyport/cluster';
import { ProtocolError, reasonText } from '@sallyport/protocol';
import { closingAnswer, refusalHeaders } from './answers.ts';
import type { ClientStream } from './listener.ts';
import type { NodeMetrics } from './metrics.ts';
import {
  BodyBudget,
  checkHead,
  collectBody,
  insideRequest,
  writeAnswer,
  writeHead,
  type Refusal,
  type RequestLimits,
} from './requests.ts';

export interface EdgeOptions {
  /** Where a request target belongs; undefined = nowhere, 404. */
  route: (target: string) => UpstreamName | undefined;
  /** CONNECT is served before these are there; other requests wait for them. */
  upstreams: Promise<Record<UpstreamName, Upstream>>;
  tunnels: ConnectHandler;
  metrics: NodeMetrics;
  log: Log;
  limits?: Partial<EdgeLimits>;
  /** Monotonic, ms. Default: the machine's. */
  now?: () => number;
}

export type UpstreamName = 'portal' | 'downloader';

/** Takes a stream whose client has sent CONNECT, answers it and owns it from then on. Never rejects. */
export interface ConnectHandler {
  open(stream: ClientStream, connect: ConnectHead): Promise<void>;
}

export interface ConnectHead {
  target: string;
  rawHeaders: string[];
  /** Bytes that came with the head: CSTP already. */
  early: Uint8Array;
}

export interface EdgeLimits extends RequestLimits {
  /** Connections that speak HTTP; when there is one more, the one that has idled longest goes, or the longest body. */
  connections: number;
  requestsPerConnection: number;
  /** Bodies being received, all together. */
  bodyBytesInAll: number;
  /** From the handshake to the end of the first head. */
  headerSeconds: number;
  /** From an answer to the end of the next head: a person may be typing a password. */
  keepAliveSeconds: number;
  bodySeconds: number;
  upstreamSeconds: number;
  /** Without progress while an answer is read. */
  stalledSeconds: number;
  /** Requests that wait for services to load, and how long. */
  startWaiting: number;
  startSeconds: number;
}

export class Edge {
  readonly #options: EdgeOptions;
  readonly #limits: EdgeLimits;
  readonly #http: Server;
  readonly #connections = new Map<Duplex, Connection>();
  readonly #ticker: NodeJS.Timeout;
  readonly #bodies: BodyBudget;
  readonly #now: () => number;
  #upstreams: Record<UpstreamName, Upstream> | undefined;
  #startWaiting = 0;
  #closing = false;

  constructor(options: EdgeOptions) {
    this.#options = options;
    this.#limits = { ...EDGE_LIMITS, ...options.limits };
    this.#bodies = new BodyBudget(this.#limits.bodyBytesInAll);
    this.#http = this.#httpServer();
    this.#now = options.now ?? (() => performance.now());
    this.#ticker = setInterval(() => this.handleTick(), TICK_MS);
    this.#ticker.unref();
    options.upstreams.then(
      (upstreams) => (this.#upstreams = upstreams),
      () => options.log.error({}, 'services did not load, requests are refused'),
    );
  }

  /** Connections that speak HTTP now. */
  get size(): number {
    return this.#connections.size;
  }

  accept(stream: ClientStream): void {
    if (this.#closing || !this.#makeRoom()) return stream.destroy();
    const { duplex } = stream;
    const connection: Connection = {
      stream,
      stage: 'head',
      since: this.#now(),
      requests: 0,
      then: 'head',
      flushing: false,
      onClose: () => {},
    };
    connection.onClose = () => this.#connections.delete(duplex);
    this.#connections.set(duplex, connection);
    duplex.once('close', connection.onClose);
    duplex.on('error', ignore);
    this.#http.emit('connection', duplex);
  }

  /** Idle connections get a FIN, answers under way some time to finish. */
  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    const until = performance.now() + CLOSE_MS;
    for (const connection of this.#connections.values())
      if (connection.stage === 'head') connection.stream.end();
    while (this.#connections.size > 0 && performance.now() < until)
      await new Promise((resolve) => setTimeout(resolve, 20));
    for (const connection of this.#connections.values()) connection.stream.destroy();
    clearInterval(this.#ticker);
  }

  #httpServer(): Server {
    const http = createServer({
      maxHeaderSize: this.#limits.headerBytes,
      insecureHTTPParser: false,
      requireHostHeader: false,
      // Deadlines are kept here, by one tick for all connections; Node's own work on listening servers only.
      headersTimeout: 0,
      requestTimeout: 0,
      keepAliveTimeout: 0,
    });
    http.maxHeadersCount = 0;
    http.timeout = this.#limits.stalledSeconds * 1000;
    http.on('request', (request, response) => void this.#handleRequest(request, response));
    http.on('checkContinue', (request, response) => void this.#handleRequest(request, response, true));
    http.on('checkExpectation', (request, response) => {
      const connection = this.#connections.get(request.socket);
      if (connection) this.#refuse(connection, { status: 417, cause: 'expectation' }, { request, response });
    });
    http.on('connect', (request, duplex, head) => this.#handleConnect(request, duplex, head));
    http.on('clientError', (error: NodeJS.ErrnoException, duplex) => this.#handleBadBytes(error, duplex));
    return http;
  }

  async #handleRequest(
    request: IncomingMessage,
    response: ServerResponse,
    expectsContinue = false,
  ): Promise<void> {
    const connection = this.#connections.get(request.socket);
    if (connection === undefined) return void response.destroy();
    response.on('error', ignore);
    const exchange = { request, response };
    if (connection.stage !== 'head') {
      if (connection.then === 'closing' || connection.stage === 'closing') return connection.stream.destroy();
      return this.#refuse(connection, { status: 400, cause: 'pipelined' }, exchange);
    }
    connection.requests += 1;
    const refusal = checkHead(request, this.#limits);
    if (refusal) return this.#refuse(connection, refusal, exchange);
    const name = this.#options.route(request.url ?? '');
    if (name === undefined) return this.#refuse(connection, { status: 404, cause: 'not-found' }, exchange);

    if (expectsContinue) response.writeContinue();
    this.#enter(connection, 'body');
    const body = await collectBody(request, this.#limits.bodyBytes, this.#bodies);
    if (body === 'aborted') return;
    if (body === 'too-large')
      return this.#refuse(connection, { status: 413, cause: 'body-too-large' }, exchange);
    if (body === 'no-room') return this.#refuse(connection, BUSY, exchange);
    if (stageOf(connection) !== 'body') return;

    this.#enter(connection, 'upstream');
    const answer = await this.#ask(name, request, body, connection.stream);
    if ('cause' in answer) return this.#refuse(connection, answer, exchange);
    await this.#answer(connection, request, response, answer);
  }

  async #ask(
    name: UpstreamName,
    request: IncomingMessage,
    body: Uint8Array,
    stream: ClientStream,
  ): Promise<InsideResponse | Refusal> {
    const upstreams = this.#upstreams ?? (await this.#waitForServices());
    if (upstreams === undefined) return { status: 503, cause: 'not-ready', text: reasonText('not-ready') };
    try {
      return await upstreams[name](insideRequest(request, body, stream.facts));
    } catch (error) {
      if (error instanceof ProtocolError) return { status: error.status, cause: 'malformed' };
      if (error instanceof StoreUnavailable)
        return { status: 503, cause: 'upstream', text: reasonText('store-unavailable') };
      if (error instanceof ServiceUnavailable) {
        const { message, reason } = error;
        this.#options.log.warn(
          { upstream: name, error: message, reason },
          'no replica of a service answered',
        );
        return { status: 503, cause: 'upstream', text: error.text };
      }
      this.#options.log.error({ upstream: name, error: errorText(error) }, 'a service failed on a request');
      return { status: 503, cause: 'upstream', text: reasonText('error') };
    }
  }

  async #waitForServices(): Promise<Record<UpstreamName, Upstream> | undefined> {
    if (this.#startWaiting >= this.#limits.startWaiting) return undefined;
    this.#startWaiting += 1;
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<undefined>((resolve) => {
      timer = setTimeout(resolve, this.#limits.startSeconds * 1000, undefined);
    });
    try {
      return await Promise.race([this.#options.upstreams.catch(() => undefined), timeout]);
    } finally {
      clearTimeout(timer);
      this.#startWaiting -= 1;
    }
  }

  async #answer(
    connection: Connection,
    request: IncomingMessage,
    response: ServerResponse,
    answer: InsideResponse,
  ): Promise<void> {
    // The deadline of the upstream may have closed the connection meanwhile.
    if (connection.stage !== 'upstream' || response.destroyed) {
      if (!(answer.body instanceof Uint8Array)) await answer.body.file.close().catch(ignore);
      return;
    }
    const keep =
      !this.#closing &&
      answer.close !== true &&
      request.httpVersion === '1.1' &&
      !/\bclose\b/i.test(request.headers.connection ?? '') &&
      connection.requests < this.#limits.requestsPerConnection;
    this.#enter(connection, 'answer');
    this.#options.metrics.requestAnswered(answer.status);
    try {
      await writeAnswer(response, answer, keep);
    } catch (error) {
      this.#options.log.error({ error: errorText(error) }, 'an answer could not be written');
      return connection.stream.destroy();
    }
    const next = keep ? connection.then : 'closing';
    this.#enter(connection, next);
    this.#waitForFlush(connection, response, next);
  }

  /** The deadline after an answer counts from when the kernel has all of it; until then `http.timeout` watches. */
  #waitForFlush(connection: Connection, response: ServerResponse, next: Stage): void {
    if (response.writableFinished) return;
    connection.flushing = true;
    response.once('finish', () => {
      connection.flushing = false;
      if (connection.stage === next) this.#enter(connection, next);
    });
  }

  /**
   * The one way to refuse: an answer without a body, then the connection closes. What the client still sends is read and
   * dropped for a while. @param exchange the request; without one its bytes made no request.
   */
  #refuse(connection: Connection, refusal: Refusal, exchange?: Exchange): void {
    const { status, cause, text } = refusal;
    const pipelined = exchange !== undefined && cause === 'pipelined';
    if (connection.stage === 'closing') return;
    this.#options.metrics.requestRefused(cause);
    // In the middle of another answer there is no place for this one.
    if (exchange === undefined && ANSWERING.includes(connection.stage)) return connection.stream.destroy();
    this.#options.metrics.requestAnswered(status);
    // A pipelined one is refused behind the answer before, which goes on.
    if (pipelined) connection.then = 'closing';
    else this.#enter(connection, 'closing');
    if (exchange === undefined) return connection.stream.farewell(closingAnswer(status, text));
    const { request, response } = exchange;
    writeHead(response, { status, headers: refusalHeaders(status, text), body: NOTHING }, false);
    request.on('error', ignore);
    request.resume();
    if (pipelined || request.complete) return void response.end();
    response.flushHeaders();
    connection.stream.end();
  }

  #handleConnect(request: IncomingMessage, duplex: Duplex, early: Uint8Array): void {
    const connection = this.#connections.get(duplex);
    if (connection === undefined) return void duplex.destroy();
    if (connection.stage !== 'head') {
      this.#options.metrics.requestRefused('pipelined');
      return void connection.stream.destroy();
    }
    const refusal = checkHead(request, this.#limits, 'CONNECT') ?? bodyOfConnect(request);
    if (refusal) return this.#refuse(connection, refusal);
    this.#connections.delete(duplex);
    duplex.removeListener('close', connection.onClose);
    duplex.removeAllListeners('timeout');
    const head: ConnectHead = { target: request.url ?? '', rawHeaders: request.rawHeaders, early };
    void this.#options.tunnels.open(connection.stream, head);
  }

  #handleBadBytes(error: NodeJS.ErrnoException, duplex: Duplex): void {
    const connection = this.#connections.get(duplex);
    if (connection === undefined) return void duplex.destroy();
    const code = error.code ?? '';
    if (connection.stage === 'closing') return;
    if (!code.startsWith('HPE_')) return connection.stream.destroy();
    const overflow = code === 'HPE_HEADER_OVERFLOW';
    this.#refuse(
      connection,
      overflow ? { status: 431, cause: 'header-too-large' } : { status: 400, cause: 'malformed' },
    );
  }

  /** Four times a second: ends connections that are past the deadline of their stage. */
  handleTick(): void {
    const now = this.#now();
    for (const connection of this.#connections.values()) {
      const seconds = this.#secondsFor(connection);
      if (now - connection.since < seconds * 1000) continue;
      if (connection.flushing && IDLE.includes(connection.stage)) continue;
      if (connection.stage === 'body' || (connection.stage === 'head' && connection.requests === 0)) {
        this.#refuse(connection, { status: 408, cause: 'timeout' });
      } else if (connection.stage === 'head') {
        this.#enter(connection, 'closing');
        connection.stream.end();
      } else {
        connection.stream.destroy();
      }
    }
  }

  #enter(connection: Connection, stage: Stage): void {
    connection.stage = stage;
    connection.since = this.#now();
  }

  #secondsFor(connection: Connection): number {
    const limits = this.#limits;
    switch (connection.stage) {
      case 'head':
        return connection.requests === 0 ? limits.headerSeconds : limits.keepAliveSeconds;
      case 'body':
        return limits.bodySeconds;
      case 'upstream':
        return limits.upstreamSeconds;
      case 'answer':
        // A large download may take its time; `http.timeout` ends one that stalls.
        return Infinity;
      case 'closing':
        return LINGER_SECONDS;
    }
  }

  /** @returns false when all are busy: then the newcomer is the one that goes. */
  #makeRoom(): boolean {
    if (this.#connections.size < this.#limits.connections) return true;
    this.#options.metrics.requestRefused('busy');
    const connection = this.#longestIn(IDLE) ?? this.#longestIn(['body']);
    if (connection === undefined) return false;
    this.#connections.delete(connection.stream.duplex);
    connection.stream.destroy();
    return true;
  }

  #longestIn(stages: readonly Stage[]): Connection | undefined {
    let longest: Connection | undefined;
    for (const connection of this.#connections.values()) {
      if (!stages.includes(connection.stage)) continue;
      if (longest === undefined || connection.since < longest.since) longest = connection;
    }
    return longest;
  }
}

interface Connection {
  stream: ClientStream;
  stage: Stage;
  /** Monotonic ms, start of the present stage. */
  since: number;
  requests: number;
  /** What comes after the answer under way. */
  then: 'head' | 'closing';
  /** Bytes of the last answer wait for the client to read. */
  flushing: boolean;
  onClose: () => void;
}

interface Exchange {
  request: IncomingMessage;
  response: ServerResponse;
}

type Stage = 'head' | 'body' | 'upstream' | 'answer' | 'closing';

/** As a call, because the compiler does not see that it changes during an await. */
function stageOf(connection: Connection): Stage {
  return connection.stage;
}

/** After CONNECT comes the tunnel; a body would be read as packets by us and as a body by others. */
function bodyOfConnect(request: IncomingMessage): Refusal | undefined {
  const length = request.headers['content-length'] ?? '0';
  if (request.headers['transfer-encoding'] === undefined && Number(length) === 0) return undefined;
  return { status: 400, cause: 'malformed' };
}

function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function ignore(): void {
  // 'close' follows an error and is what counts.
}

export const EDGE_LIMITS: EdgeLimits = {
  headerBytes: 32_768,
  bodyBytes: 262_144,
  requestLineBytes: 2048,
  connections: 8192,
  requestsPerConnection: 100,
  bodyBytesInAll: 67_108_864,
  headerSeconds: 10,
  keepAliveSeconds: 60,
  bodySeconds: 20,
  upstreamSeconds: 60,
  stalledSeconds: 60,
  startWaiting: 1024,
  startSeconds: 15,
};

const BUSY: Refusal = { status: 503, cause: 'busy', text: 'The gateway is busy.' };
/** Stages in which nothing of the client is under way. */
const IDLE: readonly Stage[] = ['head', 'closing'];
/** Stages in which bytes of another answer may be on their way. */
const ANSWERING: readonly Stage[] = ['upstream', 'answer'];
const NOTHING = new Uint8Array(0);
const TICK_MS = 250;
/** How long a refused client may go on sending before it is cut off. */
const LINGER_SECONDS = 2;
const CLOSE_MS = 2000;
