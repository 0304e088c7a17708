/**
 * What serves clients: the same in the gateway and in a tunnel node. In order:
 *
 *   host       `openHost`: may we run here? TUN device, return path, forwarding
 *   edge       the port opens: a CONNECT with a good cookie is served from now on
 *   watching   health and metrics
 */
import { StartError, type Log, type Supervision } from '@sallyport/chassis';
import {
  certificateWarnings,
  poolsOf,
  type EventLog,
  type PeerRole,
  type Sessions,
  type Settings,
  type Upstream,
} from '@sallyport/cluster';
import {
  createEngine,
  preflight,
  prepareHost,
  recoverHost,
  type Engine,
  type Host,
  type ReturnPath,
} from '@sallyport/engine';
import {
  loadCertificates,
  openTunnelNode,
  type Listener,
  type Tunnels,
  type TunnelsOptions,
  type UpstreamName,
} from '@sallyport/tunnel-node';
import type { StateFolder } from './first-run.ts';
import { GatewayLifecycle } from './lifecycle.ts';
import { Watching } from './watching.ts';
import { limitsOf, sentence, type Closer, type ProcessParts } from './wiring.ts';

export interface ServingParts extends ProcessParts {
  state: StateFolder;
  host: OpenHost;
  sessions: Sessions;
  events: EventLog;
  /** Brings the port, if a supervisor or systemd holds it. */
  supervision: Supervision;
  /** Until they are there requests other than CONNECT wait. */
  upstreams: Promise<Record<UpstreamName, Upstream>>;
  /** Of a cluster; absent = all of them, and the session table is this process's own. */
  role?: PeerRole;
  /** Told of each session that this node took from another process's tunnel, or from one of its own. */
  onTaken?: TunnelsOptions['onTaken'];
  /** Why balancers should send no new clients here. */
  notReady?: () => string[];
  /** What operators should know and balancers must not act on. */
  notes?: () => string[];
}

export interface Serving {
  tunnels: Tunnels;
  listener: Listener;
  lifecycle: GatewayLifecycle;
  returnPath: ReturnPath;
}

export async function openServing(parts: ServingParts): Promise<Serving> {
  const { settings, log, metrics, now, node, version, closers, sessions, events } = parts;
  const { engine, host } = parts.host;
  const certificates = await sentence(loadCertificates(settings()));
  for (const problem of await certificateWarnings(settings(), Date.now()))
    log.warn({ problem }, 'clients may refuse a certificate');
  const tunnelNode = await sentence(
    openTunnelNode({
      ...{ settings: settings(), certificates, node, sessions, events, engine, metrics, log },
      returnPath: host.returnPath,
      ...{ supervision: parts.supervision, upstreams: parts.upstreams, onTaken: parts.onTaken },
    }),
  );
  closers.push(() => tunnelNode.close());
  const { tunnels, listener } = tunnelNode;

  const lifecycle = new GatewayLifecycle({
    role: parts.role,
    ...{ current: parts.current, node: node.name, version, log, events, now },
  });
  const { role, notReady, notes, supervision } = parts;
  const watching = await Watching.open({
    ...{ settings, certificates, version, metrics, log, sessions, tunnels, lifecycle },
    ...{ role, notReady, notes, supervision },
  });
  closers.push(() => watching.close());
  lifecycle.add(tunnelNode);
  lifecycle.add({
    prepare: async (next, fresh) => () => {
      sessions.configure(limitsOf(next));
      log.level = next.logLevel;
      watching.applied(next, fresh);
    },
  });
  return { tunnels, listener, lifecycle, returnPath: host.returnPath };
}

export interface OpenHost {
  engine: Engine;
  host: Host;
}

/** @throws StartError with one sentence for each thing that has to be mended. */
export async function openHost(
  settings: Settings,
  state: StateFolder,
  log: Log,
  closers: Closer[],
): Promise<OpenHost> {
  const pools = Object.values(poolsOf(settings)).flat();
  const { device, returnPath, natAddresses, clientToClient } = settings;
  const poolRoutes = returnPath !== 'routed';
  await recoverHost(state.path);
  const problems = await preflight({ device, pools });
  if (problems.length > 0) throw new StartError(problems.map((problem) => problem.text).join('\n'));
  const engine = await sentence(
    createEngine({
      ...{ engine: settings.engine, device, pools, poolRoutes, clientToClient },
      onLost: deviceLost,
      onRestored: () =>
        log.warn({ device }, 'the device was set down or lost its routes; it is as it was again'),
    }),
  );
  closers.push(() => engine.close());
  const host = await sentence(
    prepareHost({
      ...{ device: engine.device, returnPath, natAddresses, pools, stateDir: state.path },
      onProblem: (problem) =>
        log.error({ problem }, 'the routes of clients cannot be set; they are tried again'),
      onRestored: (count) => log.warn({ count }, 'routes of clients were taken away; they are set again'),
    }),
  );
  closers.push(() => host.close());
  for (const warning of host.warnings) log.warn({ warning }, 'the host may keep packets from passing');
  return { engine, host };
}

/** Nothing works without the device: the process ends as at any fault that nobody caught, and is started again. */
function deviceLost(): void {
  throw new Error('the TUN device was taken away');
}

/**
 * Loading keeps the event loop to itself for most of a second, so clients that come back at once are served before, and their
 * first packets too: a client that has its answer sets its routes before it sends any.
 */
export async function calm({ stats }: Pick<Listener, 'stats'>): Promise<void> {
  const deadline = performance.now() + CALM_LIMIT_MS;
  for (let accepted = -1; accepted !== stats.accepted || stats.handshaking > 0;) {
    if (performance.now() > deadline) return;
    accepted = stats.accepted;
    await new Promise((resolve) => setTimeout(resolve, CALM_MS));
  }
}

const CALM_MS = 300;
const CALM_LIMIT_MS = 3000;
