/** What every role of the program is made from: settings, log, metrics, and how it closes what it has opened. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createLog, Metrics, StartError, type Log } from '@sallyport/chassis';
import {
  fixedAddresses,
  homeOf,
  poolsOf,
  readSettings,
  systemClock,
  type Clock,
  type NodeIdentity,
  type Occurrence,
  type PeerRole,
  type SessionLimits,
  type Settings,
} from '@sallyport/cluster';

/** A role that serves, at least what it can at once. */
export interface Running {
  settings: () => Settings;
  log: Log;
  lifecycle: { reload(): Promise<unknown> };
  /** Resolves when all of it is loaded. */
  ready: Promise<void>;
  /** Resolves when it must end, with one sentence that says why. Absent = it never does by itself. */
  lost?: Promise<Error>;
  /** Planned stop. Idempotent. */
  close(): Promise<void>;
}

/** Of one process. */
export interface ProcessParts {
  /** Exchanged by a reload. */
  current: { settings: Settings };
  settings: () => Settings;
  log: Log;
  metrics: Metrics;
  /** µs. */
  now: Clock;
  node: NodeIdentity;
  version: string;
  closers: Closer[];
}

export type Closer = () => Promise<void> | void;

/**
 * Runs a start. What it has opened is closed when it fails, the last first.
 * @throws StartError with one sentence that says what to do.
 */
export async function starting<T>(
  start: (closers: Closer[], close: () => Promise<void>) => Promise<T>,
): Promise<T> {
  const closers: Closer[] = [];
  const close = closeInReverse(closers);
  try {
    return await start(closers, close);
  } catch (error) {
    await close();
    throw error;
  }
}

/** @throws StartError with all problems of the file, one a line. */
export async function openProcess(config: string, closers: Closer[], role?: PeerRole): Promise<ProcessParts> {
  const current = { settings: await settingsOf(config, role) };
  return {
    current,
    settings: () => current.settings,
    log: createLog({ name: 'sallyport', level: current.settings.logLevel }),
    metrics: new Metrics(),
    now: systemClock(),
    node: { name: current.settings.node.name, incarnation: randomBytes(8).toString('hex') },
    version: packageVersion(),
    closers,
  };
}

export function nodeEvent(
  { now, node }: Pick<ProcessParts, 'now' | 'node'>,
  type: 'node.ready' | 'node.stopping',
): Occurrence {
  return { v: 1, at: now(), type, node: node.name, incarnation: node.incarnation };
}

/** @throws StartError with all problems of the file, one a line. */
export async function settingsOf(file: string, role?: PeerRole): Promise<Settings> {
  const read = await readSettings(file, role);
  if ('errors' in read) throw new StartError(read.errors.join('\n'));
  return read.settings;
}

export function limitsOf(settings: Settings): SessionLimits {
  return {
    maxClients: settings.maxClients,
    connectsPerMinute: settings.connectsPerTokenPerMinute,
    reserved: fixedAddresses(settings),
    home: homeOfNode(settings),
  };
}

/** What this node announces as a whole, CIDRs; its sessions get addresses of there first. */
export function homeOfNode(settings: Settings): string[] {
  const { number, slices } = settings.node;
  return homeOf(Object.values(poolsOf(settings)).flat(), number, slices);
}

/** What these parts throw is one sentence for the operator already. */
export async function sentence<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof StartError) throw error;
    if (error instanceof Error) throw new StartError(error.message, { cause: error });
    throw error;
  }
}

/** Waits for both, also when one has failed: what the other has opened by then is known to its closers. @throws what they do */
export async function together<A, B>(one: Promise<A>, other: Promise<B>): Promise<[A, B]> {
  await Promise.allSettled([one, other]);
  return Promise.all([one, other]);
}

/** Runs the closers once, the last first; one that fails does not keep the others from running. */
function closeInReverse(closers: Closer[]): () => Promise<void> {
  let closing: Promise<void> | undefined;
  return () =>
    (closing ??= (async () => {
      for (let closer = closers.pop(); closer; closer = closers.pop()) {
        await Promise.resolve()
          .then(closer)
          .catch((error: unknown) => process.stderr.write(`while stopping: ${String(error)}\n`));
      }
    })());
}

export function deferred<T>(): {
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

export function packageVersion(): string {
  const found: unknown = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'));
  return typeof found === 'object' && found !== null && 'version' in found ? String(found.version) : '';
}
