import { connectionsAllowed, type Log, type Metrics, type Supervision } from '@sallyport/chassis';
import {
  routeOf,
  type EventLog,
  type NodeIdentity,
  type Sessions,
  type Settings,
  type Upstream,
} from '@sallyport/cluster';
import type { Engine, ReturnPath } from '@sallyport/engine';
import { Edge, type EdgeLimits, type UpstreamName } from './edge.ts';
import { TlsListener } from './listener.tls.ts';
import type { AddressRules, Listener, ListenerCertificates } from './listener.ts';
import { NodeMetrics, observeNode } from './metrics.ts';
import { Tunnels, type TunnelsOptions } from './tunnels.ts';

export interface TunnelNodeParts {
  settings: NodeSettings;
  certificates: ListenerCertificates;
  node: NodeIdentity;
  sessions: Sessions;
  events?: Pick<EventLog, 'append'>;
  /** Stays open at `close`: whoever opened it closes it. */
  engine: Engine;
  /** Likewise. */
  returnPath: ReturnPath;
  /** CONNECT is served before these are there; other requests wait for them. */
  upstreams: Promise<Record<UpstreamName, Upstream>>;
  /** As of `Tunnels`. */
  onTaken?: TunnelsOptions['onTaken'] | undefined;
  metrics: Metrics;
  log: Log;
  /** Brings the port, if somebody above holds it. */
  supervision?: Supervision;
  /** Default: TLS by Node on the port of the settings. */
  listener?: Listener;
  /** Default: `routeOf`. */
  route?: (target: string) => UpstreamName | undefined;
  limits?: Pick<TunnelsOptions, 'connectsAtOnce' | 'checkpointSeconds'> & { edge?: Partial<EdgeLimits> };
  /** Monotonic, ms, for the deadlines of edge and tunnels. Default: the machine's. */
  now?: () => number;
}

export type NodeSettings = Pick<
  Settings,
  'listenHost' | 'tcpPort' | 'maxConnectionsPerAddress' | 'trustedProxies' | 'strap'
>;

/** A tunnel node that serves: listener, HTTP edge and tunnels, with their metrics. */
export interface TunnelNode {
  readonly tunnels: Tunnels;
  readonly listener: Listener;
  /** @returns the step that takes over, which does not fail. @throws Error when the certificates do not load. */
  prepare(settings: NodeSettings, certificates: ListenerCertificates): Promise<() => void>;
  /** Planned stop: no new connections, then answers under way, then the tunnels, whose sessions are parked. Idempotent. */
  close(): Promise<void>;
}

/** Resolves when the port is open. @throws Error with one sentence for the operator. */
export async function openTunnelNode(parts: TunnelNodeParts): Promise<TunnelNode> {
  const { settings, certificates, node, sessions, engine, returnPath, metrics, log, limits = {} } = parts;
  const { edge: edgeLimits = {}, ...tunnelLimits } = limits;
  const listener = parts.listener ?? listenerOf(settings, log, parts.supervision);
  listener.prepare(certificates, addressRules(settings))();
  const nodeMetrics = new NodeMetrics(metrics);
  const tunnels = new Tunnels({
    ...{ node, gatewayName: node.name, sessions, engine, returnPath },
    ...{ strap: settings.strap, metrics: nodeMetrics },
    ...tunnelLimits,
    ...(parts.events && { events: parts.events }),
    ...(parts.onTaken && { onTaken: parts.onTaken }),
    ...(parts.now && { now: parts.now }),
    log: log.child({ part: 'tunnels' }),
  });
  const edge = new Edge({
    route: parts.route ?? routeOf,
    upstreams: parts.upstreams,
    tunnels,
    metrics: nodeMetrics,
    log: log.child({ part: 'edge' }),
    limits: edgeLimits,
    ...(parts.now && { now: parts.now }),
  });
  const close = async (): Promise<void> => {
    await listener.close();
    await edge.close();
    await tunnels.close();
  };
  try {
    await listener.listen((stream) => edge.accept(stream));
  } catch (error) {
    await close();
    throw error;
  }
  observeNode(metrics, { listener, engine, returnPath, tunnels });
  return {
    tunnels,
    listener,
    async prepare(next, fresh) {
      const listenAnew = listener.prepare(fresh, addressRules(next));
      return () => {
        listenAnew();
        tunnels.strap = next.strap;
      };
    },
    close,
  };
}

function addressRules({ maxConnectionsPerAddress, trustedProxies }: NodeSettings): AddressRules {
  return { connectionsPerAddress: maxConnectionsPerAddress, trustedProxies };
}

function listenerOf(settings: NodeSettings, log: Log, supervision?: Supervision): Listener {
  const connections = connectionsAllowed();
  if (connections < FEW_CONNECTIONS)
    log.warn(
      { connections },
      'few files may be open, so few connections: raise the limit (ulimit -n, LimitNOFILE=)',
    );
  return new TlsListener({
    inherited: supervision?.tcp,
    alive: () => supervision?.alive(),
    host: settings.listenHost,
    port: settings.tcpPort,
    log: log.child({ part: 'listener' }),
    limits: { connections },
  });
}

/** Fewer are not enough for a gateway that many use. */
const FEW_CONNECTIONS = 4096;
