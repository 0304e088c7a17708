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
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Metrics, StartError, createLog, type Log, type Supervision } from '@sallyport/chassis';
import {
  Journal,
  MemoryEventLog,
  MemorySessions,
  poolsOf,
  readSettings,
  systemClock,
  type Clock,
  type NodeIdentity,
  type Occurrence,
  type Settings,
  type Upstream,
} from '@sallyport/cluster';
import { createEngine, preflight, prepareHost, recoverHost, type Engine, type Host } from '@sallyport/engine';
import { loadCertificates, openTunnelNode, type Listener, type UpstreamName } from '@sallyport/tunnel-node';
import { stateFolder, type StateFolder } from './first-run.ts';
import { GatewayLifecycle } from './lifecycle.ts';
import { Watching } from './watching.ts';

export interface GatewayOptions {
  /** The YAML file. */
  config: string;
  /** Folder for journal, socket and what has to be put back after a crash. */
  stateDir: string;
  /** Brings the port, if a supervisor or systemd holds it. */
  supervision: Supervision;
}

/** A gateway that serves CONNECT, and the rest when it is `ready`. */
export interface Gateway {
  settings: () => Settings;
  log: Log;
  lifecycle: Pick<GatewayLifecycle, 'reload'>;
  /** Resolves when all services are loaded. */
  ready: Promise<void>;
  /** Planned stop. Idempotent. */
  close(): Promise<void>;
}

/** @throws StartError with one sentence that says what to do. */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const closers: Closer[] = [];
  const close = closeInReverse(closers);
  try {
    return await start(options, closers, close);
  } catch (error) {
    await close();
    throw error;
  }
}

async function start(options: GatewayOptions, closers: Closer[], close: Closer): Promise<Gateway> {
  // 1. settings
  const state = stateFolder(options.stateDir);
  const current = { settings: await settingsOf(options.config) };
  const settings = (): Settings => current.settings;
  const log = createLog({ name: 'sallyport', level: settings().logLevel });
  const metrics = new Metrics();
  const now = systemClock();
  const node = { name: settings().node.name, incarnation: randomBytes(8).toString('hex') };
  const version = packageVersion();

  // 2. store
  const events = new MemoryEventLog();
  const sessions = await openSessions(settings(), state, { node, now, events, log }, closers);

  // 3. host
  const { engine, host } = await openHost(settings(), state, log, closers);
  for (const warning of host.warnings) log.warn({ warning }, 'the host may keep packets from passing');

  // 4. node
  const services = deferred<Record<UpstreamName, Upstream>>();
  let closeServices: Closer = async () => undefined;
  closers.push(() => closeServices());
  const certificates = await sentence(loadCertificates(settings()));
  const tunnelNode = await sentence(
    openTunnelNode({
      ...{ settings: settings(), certificates, node, sessions, engine, metrics, log },
      returnPath: host.returnPath,
      supervision: options.supervision,
      upstreams: services.promise,
    }),
  );
  closers.push(() => tunnelNode.close());
  const { tunnels } = tunnelNode;

  // 5. watching
  const lifecycle = new GatewayLifecycle({ current, node: node.name, version, log, events, now });
  const watching = await Watching.open({
    ...{ settings, certificates, version, metrics, log, sessions, tunnels, lifecycle },
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

  // 6. services
  const happened = (type: 'node.ready' | 'node.stopping'): Occurrence => ({
    ...{ v: 1, at: now(), type, node: node.name, incarnation: node.incarnation },
  });
  const ready = calm(tunnelNode.listener).then(async () => {
    const { openServices } = await import('./services.ts');
    const opened = await sentence(
      openServices({
        ...{ settings, socket: state.socket, sessions, node: tunnels, events, metrics, log, lifecycle, now },
      }),
    );
    closeServices = () => opened.close();
    services.resolve(opened.upstreams);
    lifecycle.state = 'online';
    events.append([happened('node.ready')]);
    log.info({ host: settings().listenHost || '*', port: settings().tcpPort }, 'the gateway is ready');
  });
  ready.catch((error: unknown) => services.reject(error));
  const stop: Closer = async () => {
    lifecycle.state = 'stopping';
    events.append([happened('node.stopping')]);
    await ready.catch(() => undefined);
    await close();
  };
  return { settings, log, lifecycle, ready, close: stop };
}

/** Loading keeps the event loop to itself for a while, so clients that come back at once are served before. */
async function calm({ stats }: Listener): Promise<void> {
  const deadline = performance.now() + CALM_LIMIT_MS;
  for (let accepted = -1; accepted !== stats.accepted || stats.handshaking > 0;) {
    if (performance.now() > deadline) return;
    accepted = stats.accepted;
    await new Promise((resolve) => setTimeout(resolve, CALM_MS));
  }
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
  const parked = await sessions.announce(node);
  log.info({ parked, tornLines: journal.dropped }, 'the session table is there');
  return sessions;
}

/** @throws StartError with all problems of the file, one a line. */
export async function settingsOf(file: string): Promise<Settings> {
  const read = await readSettings(file);
  if ('errors' in read) throw new StartError(read.errors.join('\n'));
  return read.settings;
}

export function limitsOf(settings: Settings): { maxClients: number; connectsPerMinute: number } {
  return { maxClients: settings.maxClients, connectsPerMinute: settings.connectsPerTokenPerMinute };
}

async function openHost(
  settings: Settings,
  state: StateFolder,
  log: Log,
  closers: Closer[],
): Promise<{ engine: Engine; host: Host }> {
  const pools = Object.values(poolsOf(settings)).flat();
  const { device, returnPath, natAddresses } = settings;
  const poolRoutes = returnPath !== 'routed';
  await recoverHost(state.path);
  const problems = await preflight({ device, pools });
  if (problems.length > 0) throw new StartError(problems.map((problem) => problem.text).join('\n'));
  const engine = await sentence(
    createEngine({ engine: settings.engine, device, pools, poolRoutes, onLost: deviceLost }),
  );
  closers.push(() => engine.close());
  const host = await sentence(
    prepareHost({
      ...{ device: engine.device, returnPath, natAddresses, pools, stateDir: state.path },
      onProblem: (problem) =>
        log.error({ problem }, 'the routes of clients cannot be set; they are tried again'),
    }),
  );
  closers.push(() => host.close());
  return { engine, host };
}

/** Nothing works without the device: the process ends as at any fault that nobody caught, and is started again. */
function deviceLost(): void {
  throw new Error('the TUN device was taken away');
}

/** What these parts throw is one sentence for the operator already. */
async function sentence<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof StartError) throw error;
    if (error instanceof Error) throw new StartError(error.message, { cause: error });
    throw error;
  }
}

/** Runs the closers once, the last first; one that fails does not keep the others from running. */
function closeInReverse(closers: Closer[]): Closer {
  let closing: Promise<void> | undefined;
  return () =>
    (closing ??= (async () => {
      for (let closer = closers.pop(); closer; closer = closers.pop()) {
        await closer().catch((error: unknown) => process.stderr.write(`while stopping: ${String(error)}\n`));
      }
    })());
}

function deferred<T>(): {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (error: unknown) => void;
} {
  let resolve: (value: T) => void = () => undefined;
  let reject: (error: unknown) => void = () => undefined;
  const promise = new Promise<T>((take, refuse) => {
    resolve = take;
    reject = refuse;
  });
  return { promise, resolve, reject };
}

function packageVersion(): string {
  const found: unknown = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'));
  return typeof found === 'object' && found !== null && 'version' in found ? String(found.version) : '';
}

type Closer = () => Promise<void>;

const CALM_MS = 50;
const CALM_LIMIT_MS = 1000;
