/**
 * The whole gateway in one process on the embedded store. A start, in order:
 *
 *  1. settings    one YAML file, all errors at once
 *  2. store       the journal is replayed: sessions of the former process are parked and wait for their clients
 *  3. host        may we run here? TUN device, return path, forwarding
 *  4. node        the port opens: a CONNECT with a good cookie is served from now on
 *  5. watching    health and metrics
 *  6. services    NestJS with auth, portal, downloader and the admin socket; requests that came early go on now
 *
 * A stop goes back the same way, but for the services: they answer until the node has stopped accepting and what it was
 * asked is answered. It sends no DISCONNECT: clients come back by themselves when the gateway is there again.
 */
import { StartError, type Log, type Supervision } from '@sallyport/chassis';
import {
  Journal,
  MemoryEventLog,
  MemoryNodes,
  MemorySessions,
  type Clock,
  type NodeIdentity,
  type Settings,
  type Upstream,
} from '@sallyport/cluster';
import type { UpstreamName } from '@sallyport/tunnel-node';
import { stateFolder, type StateFolder } from './first-run.ts';
import { logFacts } from './fact-log.ts';
import type { GatewayLifecycle } from './lifecycle.ts';
import { HomeSlice } from './home-slice.ts';
import { NodeLife } from './node-life.ts';
import { calm, openHost, openServing } from './serving.ts';
import {
  deferred,
  limitsOf,
  nodeEvent,
  openProcess,
  sentence,
  starting,
  type Closer,
  type Running,
} from './wiring.ts';

export interface GatewayOptions {
  /** The YAML file. */
  config: string;
  /** Folder for journal, socket and what has to be put back after a crash. */
  stateDir: string;
  /** Brings the port, if a supervisor or systemd holds it. */
  supervision: Supervision;
}

/** A gateway that serves CONNECT, and the rest when it is `ready`. */
export interface Gateway extends Running {
  lifecycle: GatewayLifecycle;
}

/** @throws StartError with one sentence that says what to do. */
export function startGateway(options: GatewayOptions): Promise<Gateway> {
  return starting((closers, close) => start(options, closers, close));
}

async function start(
  options: GatewayOptions,
  closers: Closer[],
  close: () => Promise<void>,
): Promise<Gateway> {
  // 1. settings
  const state = stateFolder(options.stateDir);
  const parts = await openProcess(options.config, closers);
  const { settings, log, metrics, now, node } = parts;
  if (settings().redis) throw new StartError(NOT_A_GATEWAY);

  // 2. store
  const events = new MemoryEventLog();
  logFacts(events, log);
  const sessions = await openSessions(settings(), state, { node, now, events, log }, closers);

  // 3. to 5.
  const services = deferred<Record<UpstreamName, Upstream>>();
  let closeServices: Closer = () => undefined;
  closers.push(() => closeServices());
  let life: NodeLife | undefined;
  const host = await openHost(settings(), state, log, closers);
  const { tunnels, listener, lifecycle, returnPath } = await openServing({
    ...{
      ...parts,
      state,
      host,
      sessions,
      events,
      supervision: options.supervision,
      upstreams: services.promise,
    },
    notReady: () => life?.notReady() ?? [],
  });
  const nodes = new MemoryNodes(now);
  const home = new HomeSlice({ nodes, node, settings, returnPath, log });
  closers.push(() => home.close());
  const announcement = { ...node, number: settings().node.number, address: '' };
  const own = (life = new NodeLife({ nodes, tunnels, lifecycle, announcement, home, log, now }));
  closers.push(() => own.close());
  await own.handleTick();
  await home.handleTick();

  // 6. services
  const ready = calm(listener).then(async () => {
    const { openServices } = await import('./services.ts');
    const opened = await sentence(
      openServices({
        ...{
          settings,
          socket: state.socket,
          sessions,
          node: tunnels,
          nodes,
          events,
          metrics,
          log,
          lifecycle,
          now,
        },
        guarded: (portal) => own.guarded(portal),
      }),
    );
    closeServices = () => opened.close();
    services.resolve(opened.upstreams);
    lifecycle.state = 'online';
    events.append([nodeEvent(parts, 'node.ready')]);
    log.info({ host: settings().listenHost || '*', port: settings().tcpPort }, 'the gateway is ready');
  });
  ready.catch((error: unknown) => services.reject(error));
  const stop = async () => {
    lifecycle.state = 'stopping';
    events.append([nodeEvent(parts, 'node.stopping')]);
    await ready.catch(() => undefined);
    await close();
  };
  return { settings, log, lifecycle, ready, close: stop };
}

async function openSessions(
  settings: Settings,
  state: StateFolder,
  { node, now, events, log }: { node: NodeIdentity; now: Clock; events: MemoryEventLog; log: Log },
  closers: Closer[],
): Promise<MemorySessions> {
  const journal = await sentence(
    Journal.open(state.journal, { onProblem: (problem) => log.error({ problem }, 'journal') }),
  );
  closers.push(() => journal.close());
  const sessions = await sentence(
    MemorySessions.open({ journal, events, clock: now, limits: limitsOf(settings) }),
  );
  closers.push(() => sessions.close());
  await sessions.announce(node);
  log.info({ sessions: await sessions.counts(), tornLines: journal.dropped }, 'the session table is there');
  return sessions;
}

const NOT_A_GATEWAY =
  'This configuration is one of a cluster (it has redis), and the gateway is one process on its own journal: start the roles auth, portal, downloader and tunnel-node, or take redis out.';
