import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { isIPv6, type Socket } from 'node:net';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { StartError } from './faults.ts';
import type { Metrics } from './metrics.ts';

/**
 * Health and metrics over plain HTTP on `admin-address`:
 *
 *   /health/live      200: the event loop turns
 *   /health/startup   200: configuration read, TUN open, sockets served; else 404
 *   /health/ready     200: send me anybody; 404: no new clients, I keep those I have
 *   /metrics          Prometheus text
 *
 * No answer means dead. Each body has the reasons.
 */
export interface HealthFacts {
  /** What is not done yet; empty = started. */
  startup(): string[];
  /** Why no new clients may come; empty = ready. */
  ready(): string[];
  /** What operators should know but balancers must not act on, e.g. a store that is away for everybody. */
  notes?(): string[];
}

export interface HealthServer {
  /** Port that it listens on. */
  readonly port: number;
  /** Idempotent. */
  close(): Promise<void>;
}

/** @param address `HOST:PORT` or `[IPV6]:PORT`. Rejects with a StartError when it cannot listen there. */
export async function serveHealth(
  address: string,
  metrics: Metrics,
  facts: HealthFacts,
): Promise<HealthServer> {
  const { host, port } = splitAddress(address);
  const server = createServer(
    { maxHeaderSize: MAX_HEADER_BYTES, requestTimeout: REQUEST_TIMEOUT_MS },
    (request, response) => {
      // A scrape that fails is the scraper's news, never a fault of the process.
      answer(request, response, metrics, facts).catch(() => response.destroy());
    },
  );
  boundConnections(server);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(listenError(address, error)));
    server.listen({ host, port }, resolve);
  });
  const bound = server.address();
  return {
    port: typeof bound === 'object' && bound ? bound.port : port,
    async close() {
      if (!server.listening) return;
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

/** When there is one more, the one that has asked nothing for longest goes: idle ones must not lock a scraper out. */
function boundConnections(server: Server): void {
  const connections = new Set<Socket>();
  const asking = new Set<Socket>();
  server.on('connection', (socket) => {
    for (const oldest of connections) {
      if (connections.size < MAX_CONNECTIONS) break;
      if (asking.has(oldest)) continue;
      connections.delete(oldest);
      oldest.destroy();
    }
    if (connections.size >= MAX_CONNECTIONS) return void socket.destroy();
    connections.add(socket);
    socket.once('close', () => {
      connections.delete(socket);
      asking.delete(socket);
    });
  });
  server.on('request', ({ socket }, response) => {
    asking.add(socket);
    response.once('close', () => {
      asking.delete(socket);
      // To the end of the order.
      if (connections.delete(socket)) connections.add(socket);
    });
  });
}

/** Metrics of the process itself: build, event loop. */
export function processMetrics(metrics: Metrics, { version, name }: { version: string; name: string }): void {
  metrics
    .gauge('sallyport_build_info', 'Always 1; version and runtime are labels.', [
      'version',
      'role',
      'node_version',
    ])
    .set({ version, role: name, node_version: process.version }, 1);
  const delay = monitorEventLoopDelay({ resolution: LAG_RESOLUTION_MS });
  delay.enable();
  metrics.gauge(
    'sallyport_event_loop_lag_seconds',
    'Longest delay of the event loop since the last scrape.',
    [],
    (gauge) => {
      // The histogram counts the whole interval; what is above its resolution is delay.
      gauge.set(Math.max(0, delay.max / 1e9 - LAG_RESOLUTION_MS / 1e3));
      delay.reset();
    },
  );
}

/** Metrics of the configuration in use. */
export interface ConfigMetrics {
  applied(revision: string, atSeconds: number): void;
}

export function configMetrics(metrics: Metrics): ConfigMetrics {
  const info = metrics.gauge('sallyport_config_revision_info', 'Always 1; the revision in use is a label.', [
    'revision',
  ]);
  const reloaded = metrics.gauge(
    'sallyport_config_last_reload_success_timestamp_seconds',
    'When the configuration was last read without errors.',
  );
  return {
    applied(revision, atSeconds) {
      info.reset();
      info.set({ revision }, 1);
      reloaded.set(atSeconds);
    },
  };
}

/** @param certificates those served now; `host` is '' for the default one. Asked at each scrape. */
export function certificateMetrics(
  metrics: Metrics,
  certificates: () => { host: string; keyType: string; notAfterSeconds: number }[],
): void {
  metrics.gauge(
    'sallyport_certificate_not_after_timestamp_seconds',
    'When a served certificate ends.',
    ['host', 'key_type'],
    (gauge) => {
      gauge.reset();
      for (const { host, keyType, notAfterSeconds } of certificates()) {
        gauge.set({ host, key_type: keyType }, notAfterSeconds);
      }
    },
  );
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  metrics: Metrics,
  facts: HealthFacts,
): Promise<void> {
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return send(response, 405, { status: 'GET only' });
  const path = (request.url ?? '').split('?')[0];
  const notes = facts.notes?.() ?? [];
  if (path === '/metrics') {
    const text = await metrics.text();
    response.writeHead(200, {
      'Content-Type': metrics.contentType,
      'Content-Length': Buffer.byteLength(text),
    });
    response.end(request.method === 'HEAD' ? undefined : text);
  } else if (path === '/health/live') send(response, 200, { status: 'live', reasons: [], notes });
  else if (path === '/health/startup') sendState(response, 'started', 'starting', facts.startup(), notes);
  else if (path === '/health/ready')
    sendState(response, 'ready', 'not ready', [...facts.startup(), ...facts.ready()], notes);
  else send(response, 404, { status: 'unknown path' });
}

function sendState(
  response: ServerResponse,
  good: string,
  bad: string,
  reasons: string[],
  notes: string[],
): void {
  const fine = reasons.length === 0;
  send(response, fine ? 200 : 404, { status: fine ? good : bad, reasons, notes });
}

function send(response: ServerResponse, status: number, body: object): void {
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
    'Cache-Control': 'no-store',
  });
  response.end(text);
}

function splitAddress(address: string): { host: string; port: number } {
  const colon = address.lastIndexOf(':');
  const host = address.slice(0, colon).replace(/^\[(.*)\]$/, '$1');
  const port = Number(address.slice(colon + 1));
  if (colon < 1 || !Number.isInteger(port) || (host.includes(':') && !isIPv6(host))) {
    throw new StartError(`admin-address ${address} is not HOST:PORT.`);
  }
  return { host, port };
}

function listenError(address: string, error: NodeJS.ErrnoException): StartError {
  const why =
    error.code === 'EADDRINUSE'
      ? `admin-address ${address} is taken by another process: stop it or choose another admin-address.`
      : `admin-address ${address} cannot be listened on (${error.code ?? error.message}): choose an address of this machine.`;
  return new StartError(why, { cause: error });
}

const LAG_RESOLUTION_MS = 20;
/** Scrapers and probes are few and small. */
export const MAX_CONNECTIONS = 128;
const MAX_HEADER_BYTES = 8 * 1024;
const REQUEST_TIMEOUT_MS = 5_000;
