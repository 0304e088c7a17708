import type { Metrics } from '@sallyport/chassis';
import type { ListenerStats } from './listener.ts';
import type { Engine, ReturnPath } from '@sallyport/engine';

/** All metrics of a tunnel node, registered once. */
export class NodeMetrics {
  readonly #requests;
  readonly #badRequests;
  readonly #connects;
  readonly #connectSeconds;
  readonly #tunnelEnds;
  readonly #bytes;
  readonly #packets;
  readonly #drops;
  readonly #dpdTimeouts;

  constructor(metrics: Metrics) {
    this.#requests = metrics.counter(
      'sallyport_http_requests_total',
      'Requests answered, by class of status.',
      ['status'],
    );
    this.#badRequests = metrics.counter(
      'sallyport_http_refusals_total',
      'Requests refused by the edge, by cause.',
      ['cause'],
    );
    this.#connects = metrics.counter(
      'sallyport_connects_total',
      'CONNECTs, by result: ok, resumed or the reason.',
      ['result'],
    );
    this.#connectSeconds = metrics.histogram(
      'sallyport_connect_duration_seconds',
      'From CONNECT to its answer.',
      [0.001, 0.005, 0.02, 0.1, 0.5, 2, 8],
    );
    this.#tunnelEnds = metrics.counter('sallyport_tunnel_ends_total', 'Tunnels that ended, by reason.', [
      'reason',
    ]);
    this.#bytes = metrics.counter(
      'sallyport_tunnel_bytes_total',
      'Bytes of IP packets in tunnels; rx = from clients.',
      ['direction', 'transport'],
    );
    this.#packets = metrics.counter(
      'sallyport_tunnel_packets_total',
      'IP packets in tunnels; rx = from clients.',
      ['direction', 'transport'],
    );
    this.#drops = metrics.counter(
      'sallyport_tunnel_drops_total',
      'Packets dropped at the tunnels, by reason.',
      ['reason'],
    );
    this.#dpdTimeouts = metrics.counter(
      'sallyport_dpd_timeouts_total',
      'Tunnels whose client did not answer.',
    );
  }

  requestAnswered(status: number): void {
    this.#requests.inc({ status: `${Math.floor(status / 100)}xx` });
  }

  requestRefused(cause: EdgeRefusal): void {
    this.#badRequests.inc({ cause });
  }

  connected(result: string, seconds: number): void {
    this.#connects.inc({ result });
    this.#connectSeconds.observe(seconds);
  }

  tunnelEnded(reason: string): void {
    this.#tunnelEnds.inc({ reason });
    if (reason === 'dpd-timeout') this.#dpdTimeouts.inc();
  }

  traffic(direction: 'rx' | 'tx', packets: number, bytes: number): void {
    this.#packets.inc({ direction, transport: 'tls' }, packets);
    this.#bytes.inc({ direction, transport: 'tls' }, bytes);
  }

  dropped(reason: TunnelDrop, packets: number): void {
    this.#drops.inc({ reason }, packets);
  }
}

/** Gauges and counters that are read from their owners at each scrape. */
export function observeNode(
  metrics: Metrics,
  sources: {
    listener: { readonly stats: ListenerStats };
    engine: Engine;
    returnPath: ReturnPath;
    tunnels: { readonly size: number };
  },
): void {
  const { listener, engine, returnPath, tunnels } = sources;
  metrics.gauge('sallyport_sessions', 'Tunnels on this node, by transport.', ['transport'], (gauge) =>
    gauge.set({ transport: 'tls' }, tunnels.size),
  );
  metrics.gauge('sallyport_connections', 'Connections, by stage.', ['stage'], (gauge) => {
    gauge.set({ stage: 'silent' }, listener.stats.silent);
    gauge.set({ stage: 'handshaking' }, listener.stats.handshaking);
    gauge.set({ stage: 'open' }, listener.stats.open);
  });
  metrics.counterOf('sallyport_connections_accepted_total', 'Connections accepted.', [], (add) =>
    add(listener.stats.accepted),
  );
  metrics.counterOf('sallyport_tls_handshakes_total', 'TLS handshakes, by result.', ['result'], (add) => {
    add(listener.stats.handshakes, { result: 'ok' });
    for (const [result, count] of Object.entries(listener.stats.refused)) add(count, { result });
  });
  metrics.counterOf(
    'sallyport_engine_drops_total',
    'Packets dropped by the engine, by reason.',
    ['reason'],
    (add) => {
      for (const [reason, count] of Object.entries(engine.stats().drops)) add(count, { reason });
    },
  );
  observeReturnPath(metrics, returnPath);
}

/** The samples of another return path than that of the node are not there. */
function observeReturnPath(metrics: Metrics, returnPath: ReturnPath): void {
  const { routes, translation } = returnPath.stats();
  if (routes) {
    const help =
      'Routes of tunnels: announced; waiting for the kernel; failures of the kernel to change one, since the start.';
    metrics.gauge('sallyport_routes', help, ['state'], (gauge) => {
      const { announced, waiting, failures } = returnPath.stats().routes ?? routes;
      gauge.set({ state: 'announced' }, announced);
      gauge.set({ state: 'waiting' }, waiting);
      gauge.set({ state: 'failures' }, failures);
    });
  }
  if (translation) {
    const help =
      'Connections that the kernel tracks, and how many it can: each translated one takes a port of nat-addresses.';
    metrics.gauge('sallyport_tracked_connections', help, ['kind'], (gauge) => {
      const { connections, limit } = returnPath.stats().translation ?? translation;
      gauge.set({ kind: 'used' }, connections);
      gauge.set({ kind: 'limit' }, limit);
    });
  }
}

/** Why the edge itself refused a request. */
export type EdgeRefusal =
  | 'malformed'
  | 'header-too-large'
  | 'body-too-large'
  | 'request-line-too-long'
  | 'timeout'
  | 'pipelined'
  | 'duplicate-header'
  | 'method'
  | 'expectation'
  | 'not-found'
  | 'not-ready'
  | 'busy'
  | 'upstream';

export type TunnelDrop = 'slow-client' | 'superseded' | 'control-flood';
