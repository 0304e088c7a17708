/**
 * The whole gateway in one process on the embedded store. A start, in order:
 *
 *  1. settings    one YAML file, all errors at once
 *  2. store       the journal is replayed: sessions of the former process are parked and wait for their clients
 *  3. host        may we run here? TUN device, return path, forwarding
 *  4. edge        the port opens: a CONNECT with a good cookie is served from now on
 *  5. watching    health and metrics
 *  6. services    NestJS with auth, portal, downloader and the admin socket; requests that came early go on now
 *
 * A stop goes back the same way. It sends no DISCONNECT: clients come back by themselves when the gateway is there again.
 */
import { randomBytes } from 'node:crypto';
import { Metrics, StartError, createLog, type Log } from '@sallyport/chassis';
import {
  FileJournal,
  MemoryEventLog,
  MemorySessions,
  poolsOf,
  readSettings,
  routeOf,
  type NodeIdentity,
  type Settings,
  type Upstream,
} from '@sallyport/cluster';
import { createEngine, preflight, prepareHost, recoverHost, type Engine, type Host } from '@sallyport/engine';
import {
  CertificateError,
  Edge,
  NodeMetrics,
  TlsListener,
  Tunnels,
  loadCertificates,
  observeNode,
  type UpstreamName,
} from '@sallyport/tunnel-node';
import { stateFolder, type StateFolder } from './first-run.ts';
import { GatewayLifecycle } from './lifecycle.ts';
import { Watching } from './watching.ts';

export interface GatewayOptions {
  /** The YAML file. */
  config: string;
  /** Folder for journal, socket and what has to be put back after a crash. */
  stateDir: string;
}

/** A gateway that serves. */
export interface Gateway {
  settings: () => Settings;
  log: Log;
  lifecycle: GatewayLifecycle;
  /** Resolves when all services are loaded. */
  ready: Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}

/** @throws StartError with one sentence that says what to do. */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const state = stateFolder(options.stateDir);
  const closers: (() => Promise<void>)[] = [];
  const close = closeInReverse(closers);
  try {
    return await start(options, state, closers, close);
  } catch (error) {
    await close();
    throw error;
  }
}

async function start(
  options: GatewayOptions,
  state: StateFolder,
  closers: (() => Promise<void>)[],
  close: () => Promise<void>,
): Promise<Gateway> {
  // 1. settings
  const current = { settings: await settingsOrExit(options.config) };
  const settings = (): Settings => current.settings;
  const log = createLog({ name: 'sallyport', level: settings().logLevel });
  const metrics = new Metrics();
  const node: NodeIdentity = { name: settings().node.name, incarnation: randomBytes(8).toString('hex') };

  // 2. store
  const events = new MemoryEventLog();
  const journal = await FileJournal.open(state.journal);
  const sessions = await MemorySessions.open({ journal, events, limits: limitsOf(settings()) });
  closers.push(() => sessions.close());
  const parked = await sessions.announce(node);
  log.info({ parked }, 'session table is there');

  // 3. host
  const { engine, host } = await openHost(settings(), state, closers);
  for (const warning of host.warnings) log.warn({}, warning);

  // 4. edge
  const nodeMetrics = new NodeMetrics(metrics);
  const tunnels = new Tunnels({
    node,
    gatewayName: node.name,
    sessions,
    engine,
    strap: settings().strap,
    metrics: nodeMetrics,
    log: log.child({ part: 'tunnels' }),
  });
  closers.push(() => tunnels.close());
  const services = deferred<Record<UpstreamName, Upstream>>();
  const edge = new Edge({
    route: routeOf,
    upstreams: services.promise,
    tunnels,
    metrics: nodeMetrics,
    log: log.child({ part: 'edge' }),
  });
  closers.push(() => edge.close());
  const listener = await openListener(settings(), log, edge);
  closers.push(() => listener.close());
  observeNode(metrics, { listener, engine, tunnels });

  // 5. watching
  const watching = await Watching.open({ settings, metrics, log, sessions, tunnels, listener });
  closers.push(() => watching.close());

  const lifecycle = new GatewayLifecycle({ current, options, log, events, sessions, tunnels, listener, watching, close, node });

  // 6. services
  const ready = import('./services.ts').then(async ({ openServices }) => {
    const opened = await openServices({ settings, state, sessions, events, metrics, log, tunnels, lifecycle });
    closers.push(() => opened.close());
    lifecycle.services = opened;
    services.resolve(opened.upstreams);
    watching.ready();
    events.append([{ v: 1, at: micros(), type: 'node.ready', node: node.name, incarnation: node.incarnation }]);
    log.info({ address: settings().listenHost || '*', port: settings().tcpPort }, 'gateway is ready');
  });
  ready.catch((error: unknown) => services.reject(error));
  return { settings, log, lifecycle, ready, close };
}

/** @throws StartError with all problems of the file, one a line. */
export async function settingsOrExit(file: string): Promise<Settings> {
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
  closers: (() => Promise<void>)[],
): Promise<{ engine: Engine; host: Host }> {
  const pools = Object.values(poolsOf(settings)).flat();
  const { device, returnPath } = settings;
  await recoverHost(state.path);
  const problems = await preflight({ device, pools, returnPath });
  if (problems.length > 0) throw new StartError(problems.map((problem) => problem.text).join('\n'));
  const engine = await sentence(createEngine({ engine: settings.engine, device, pools }));
  closers.push(() => engine.close());
  const host = await sentence(prepareHost({ device: engine.device, returnPath, pools, stateDir: state.path }));
  closers.push(() => host.close());
  return { engine, host };
}

async function openListener(settings: Settings, log: Log, edge: Edge): Promise<TlsListener> {
  const listener = new TlsListener({
    host: settings.listenHost,
    port: settings.tcpPort,
    connectionsPerAddress: settings.maxConnectionsPerAddress,
    log: log.child({ part: 'listener' }),
  });
  listener.configure(await sentence(loadCertificates(settings)));
  await sentence(listener.listen((stream) => edge.accept(stream)));
  return listener;
}

/** What these parts throw is one sentence for the operator already. */
async function sentence<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof CertificateError || error instanceof Error) throw new StartError(error.message, { cause: error });
    throw error;
  }
}

/** Runs the closers once, the last first; one that fails does not keep the others from running. */
function closeInReverse(closers: (() => Promise<void>)[]): () => Promise<void> {
  let closing: Promise<void> | undefined;
  return () =>
    (closing ??= (async () => {
      for (let closer = closers.pop(); closer; closer = closers.pop()) {
        await closer().catch((error: unknown) => process.stderr.write(`while stopping: ${String(error)}\n`));
      }
    })());
}

function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void; reject: (error: unknown) => void } {
  let resolve: (value: T) => void = () => undefined;
  let reject: (error: unknown) => void = () => undefined;
  const promise = new Promise<T>((take, refuse) => {
    resolve = take;
    reject = refuse;
  });
  return { promise, resolve, reject };
}

function micros(): bigint {
  return BigInt(Date.now()) * 1000n;
}
