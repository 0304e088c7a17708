/*
 * The only file on ioredis. One call of a script, in order:
 *   1. wait for a connection, at most until the deadline
 *   2. EVALSHA; a server that lost its scripts gets the source
 *   3. a server of another reign refuses: the reign begins, then again (CLUSTER.md C1). The script itself looks at the
 *      server's replication id, so no connection can be older than what it talks to
 *   4. a server that cannot now (loading, demoted, failing over) is asked again until the deadline
 *   5. no answer by the deadline: nobody knows whether it was done. Every script may be repeated
 *   6. what must not get lost is confirmed by a replica, where there is one, on a connection of its own: WAIT stops the
 *      connection that it runs on
 */
import { readFileSync } from 'node:fs';
import { randomInt } from 'node:crypto';
import type { ConnectionOptions } from 'node:tls';
import { Cluster, Redis as Client, type RedisOptions } from 'ioredis';
import type { Clock } from './clock.ts';
import { Confirmed } from './confirmed.ts';
import { ATTEMPT_MILLIS, TimedOut, withDeadline } from './deadline.ts';
import type { RedisSettings } from './redis-settings.ts';
import { CLUSTER_NAME } from './redis-settings.ts';
import { checkServer, DEFAULT_PORT, portMisfit } from './redis-checks.ts';
import { loadScript, type Script } from './scripts.ts';
import { NewerVersion } from './session.ts';
import { StoreUnavailable } from './sessions.ts';

export interface RedisOptionsOfOurs {
  /** Longest time that a call may take, ms. */
  deadlineMillis?: number;
  /** Longest wait for the first connection, ms. */
  openMillis?: number;
  /** Told once when the connection goes and once when it is back. */
  onState?: (up: boolean, detail: string) => void;
  /** µs without a sign of life after which parked sessions do not age; 0n = off. */
  awayMicros?: bigint;
  /** µs that nodes have in a new reign to assert what they hold; 0n = no such wait. */
  windowMicros?: bigint;
  /** µs that sessions which no node holds may take in a new reign to come back from Kafka; 0n = there is no Kafka. */
  restoreMicros?: bigint;
  /** Entries of the event stream; beyond it Redis drops the oldest. 0 = no limit. */
  eventsLimit?: number;
  /** In place of Redis TIME: for tests and the model. */
  clock?: Clock;
  /** Name of the reign, in place of one made of the server's replication id: for the model. */
  reign?: () => string;
  /** Seed of a script's random draws, below 2^31. */
  seed?: () => number;
}

export interface RunOptions {
  /** Resolve only when a replica has it, where there is one. */
  confirm?: boolean;
}

/** What cannot be mended by waiting: a setting, a password, a certificate. One sentence, fit for the operator. */
export class RedisProblem extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'RedisProblem';
  }
}

/** What the forms of a store need of it: the model puts a faulty network in between. */
export type Scripts = Pick<
  Redis,
  'prefix' | 'run' | 'confirm' | 'prove' | 'call' | 'onReign' | 'reign' | 'closed'
>;

export class Redis {
  /** What all keys begin with: `{NAME}:`. */
  readonly prefix: string;
  readonly #main: Connection;
  readonly #confirmed: Confirmed<Connection>;
  readonly #options: RedisOptionsOfOurs;
  readonly #deadlineMillis: number;
  readonly #reignListeners = new Set<(reign: string) => void>();
  #reign = '';
  #replicas = 0;
  #closed = false;

  private constructor(settings: RedisSettings, options: RedisOptionsOfOurs) {
    this.prefix = `{${settings.cluster}}:`;
    this.#options = options;
    this.#deadlineMillis = options.deadlineMillis ?? DEADLINE_MILLIS;
    this.#main = new Connection(settings, this.prefix, options.onState);
    this.#confirmed = new Confirmed(
      () => new Connection(settings, this.prefix, undefined),
      (connection, reign) => this.#evaluate(connection, CONFIRM, JSON.stringify({ reign })),
    );
  }

  /**
   * Connects and looks at what the server promises.
   * @throws RedisProblem: what to mend. StoreUnavailable: nobody answers; trying again later may help.
   */
  static async open(settings: RedisSettings, options: RedisOptionsOfOurs = {}): Promise<Redis> {
    if (!CLUSTER_NAME.test(settings.cluster)) {
      throw new RedisProblem(
        `redis: "${settings.cluster}" cannot name a cluster: letters, digits, dots and dashes can`,
      );
    }
    const redis = new Redis(settings, options);
    try {
      await redis.#main.open(options.openMillis ?? OPEN_MILLIS);
      await redis.#provePassword(settings);
      const problems = await checkServer(
        (command, ...args) => redis.call(command, ...args),
        settings.promises,
        settings.eventsMaxBytes,
      );
      if (problems.length > 0) throw new RedisProblem(`redis: ${problems.join('; ')}`);
    } catch (error) {
      await redis.close();
      throw error;
    }
    return redis;
  }

  /**
   * Runs a script as one step.
   * @param args what it takes; bigint as text.
   * @returns its reply: texts and whole numbers, after the number of replicas.
   * @throws StoreUnavailable (done or not: repeat it), NewerVersion, Error (a fault of ours)
   */
  async run(script: Script, args: object, { confirm = false }: RunOptions = {}): Promise<Reply> {
    const until = performance.now() + this.#deadlineMillis;
    const text = JSON.stringify(args, (_key, value: unknown) =>
      typeof value === 'bigint' ? `${value}` : value,
    );
    const [head, ...reply] = await this.#until(until, () => this.#evaluate(this.#main, script, text));
    const { replicas, reign } = this.#read(head);
    if (confirm && replicas > 0) await this.#confirmed.confirm(reign, until);
    return reply;
  }

  /**
   * Waits until a replica has all that was written before, where there is a replica.
   * @throws StoreUnavailable when none says so in time.
   */
  async confirm(): Promise<void> {
    if (this.#replicas > 0)
      await this.#confirmed.confirm(this.#reign, performance.now() + this.#deadlineMillis);
  }

  /**
   * Does the server that answered last still speak for the cluster? A primary that was replaced and does not know it yet is
   * refused the write, or no replica confirms it.
   * @throws StoreUnavailable if it cannot prove it.
   */
  async prove(): Promise<void> {
    await this.run(CONFIRM, { reign: this.#reign }, { confirm: true });
  }

  /** A command of Redis by its name, for what needs no script. Keys must begin with `prefix`. */
  async call(command: string, ...args: (string | number | Buffer)[]): Promise<unknown> {
    const until = performance.now() + this.#deadlineMillis;
    return this.#until(until, () => this.#main.call(this.prefix, command, args));
  }

  /** Another reign began, or the first one: called with its name. @returns how to stop. */
  onReign(listener: (reign: string) => void): () => void {
    this.#reignListeners.add(listener);
    return () => this.#reignListeners.delete(listener);
  }

  /** The reign that the last answer came from; '' = none yet. */
  get reign(): string {
    return this.#reign;
  }

  get connected(): boolean {
    return this.#main.ready;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([this.#main.close(), this.#confirmed.close()]);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** The first text of a reply: `REPLICAS REIGN`. */
  #read(head: string | number | undefined): { replicas: number; reign: string } {
    const [replicas, reign = ''] = String(head).split(' ');
    this.#replicas = Number(replicas);
    if (reign !== this.#reign) {
      this.#reign = reign;
      for (const listener of this.#reignListeners) listener(reign);
    }
    return { replicas: this.#replicas, reign };
  }

  /** A server without a password takes any: then everybody who reaches it has our sessions. @throws RedisProblem */
  async #provePassword(settings: RedisSettings): Promise<void> {
    const password = secretOf(settings.passwordFile);
    if (password === undefined || settings.username !== '') return;
    try {
      await this.call('AUTH', password);
    } catch (error) {
      const problem = problemOf(error);
      if (problem === undefined) throw error;
      throw new RedisProblem(`redis: ${nameOf(settings)} ${problem}`);
    }
  }

  async #evaluate(connection: Connection, script: Script, args: string): Promise<Reply> {
    try {
      return replyOf(await this.#send(connection, script, args), script);
    } catch (error) {
      if (codeOf(error) !== 'REIGN') throw error;
      await this.#send(connection, BEGIN_REIGN, '{}');
      return replyOf(await this.#send(connection, script, args), script);
    }
  }

  async #send(connection: Connection, script: Script, args: string): Promise<unknown> {
    const { clock, reign, seed, awayMicros, windowMicros, restoreMicros, eventsLimit } = this.#options;
    const header = JSON.stringify({
      clock: clock === undefined ? '' : clock().toString(),
      reign: reign === undefined ? '' : reign(),
      seed: seed === undefined ? randomInt(SEED_LIMIT) : seed(),
      away: (awayMicros ?? AWAY_MICROS).toString(),
      window: (windowMicros ?? WINDOW_MICROS).toString(),
      restore: (restoreMicros ?? 0n).toString(),
      events: String(eventsLimit ?? EVENTS_LIMIT),
    });
    const key = `${this.prefix}meta`;
    try {
      return await connection.call(key, 'EVALSHA', [script.sha, 1, key, header, args]);
    } catch (error) {
      if (codeOf(error) !== 'NOSCRIPT') throw error;
      return connection.call(key, 'EVAL', [script.source, 1, key, header, args]);
    }
  }

  /** Tries until it is done, or the time is over, or trying again cannot help. */
  async #until<T>(until: number, attempt: () => Promise<T>): Promise<T> {
    for (let round = 0; ; round++) {
      if (this.#closed) throw new StoreUnavailable('the connection to Redis is closed');
      try {
        return await withDeadline(attempt(), until - performance.now());
      } catch (error) {
        if (error instanceof TimedOut) this.#main.renew();
        const fault = faultOf(error);
        if (!(fault instanceof StoreUnavailable)) throw fault;
        // An attempt that is cut short takes the connection away from all others.
        const isLate = (millis: number) => performance.now() + millis + ATTEMPT_MILLIS > until;
        const pause = Math.min(RETRY_MILLIS * 2 ** round, RETRY_MAX_MILLIS);
        if (!canRepeat(error) || isLate(pause)) throw fault;
        await sleep(pause);
        if (isLate(0)) throw fault;
      }
    }
  }
}

/** One connection to the server that has our slot, made anew by itself. */
class Connection {
  readonly #client: Client | Cluster;
  readonly #settings: RedisSettings;
  readonly #prefix: string;
  #lastError: unknown;
  #up = false;
  #closed = false;
  #again: NodeJS.Timeout | undefined;
  #slot = -1;

  constructor(settings: RedisSettings, prefix: string, onState: RedisOptionsOfOurs['onState']) {
    this.#settings = settings;
    this.#prefix = prefix;
    this.#client = makeClient(settings);
    this.#client.on('error', (error: unknown) => (this.#lastError = error));
    this.#client.on('ready', () => {
      this.#lastError = undefined;
      if (!this.#up) onState?.(true, '');
      this.#up = true;
    });
    this.#client.on('close', () => {
      if (this.#up) onState?.(false, messageOf(this.#lastError));
      this.#up = false;
    });
    // ioredis gives up for good when it is told of a failover while it asks the sentinels where to connect to.
    this.#client.on('end', () => {
      if (!this.#closed) this.#again = setTimeout(() => void this.#connect(), RETRY_MAX_MILLIS);
    });
  }

  get ready(): boolean {
    return this.#up;
  }

  async open(millis: number): Promise<void> {
    const until = performance.now() + millis;
    const probeAt = performance.now() + PROBE_MILLIS;
    let probed: Promise<string | undefined> | undefined;
    if (this.#client.status === 'wait') void this.#connect();
    while (!this.#up) {
      if (performance.now() >= probeAt)
        probed ??= portMisfit(this.#settings, tlsOf(this.#settings) !== undefined);
      const problem = problemOf(this.#lastError) ?? (await probed);
      if (this.#up) return;
      if (problem !== undefined) throw new RedisProblem(`redis: ${nameOf(this.#settings)} ${problem}`);
      if (performance.now() >= until) {
        const why = messageOf(this.#lastError);
        throw new StoreUnavailable(`redis: ${nameOf(this.#settings)} cannot be reached${why && `: ${why}`}`);
      }
      await sleep(OPEN_POLL_MILLIS);
    }
  }

  /** @param key that says which server of a Redis Cluster is meant. */
  async call(key: string, command: string, args: readonly (string | number | Buffer)[]): Promise<unknown> {
    if (this.#client instanceof Client) return this.#client.call(command, ...args);
    const node = await this.#nodeOf(this.#client, key);
    if (node === undefined) return this.#client.call(command, ...args);
    try {
      return await node.call(command, ...args);
    } catch (error) {
      // The slot moved: let the cluster find out, and take the next call by itself.
      if (codeOf(error) === 'MOVED' || codeOf(error) === 'ASK')
        this.#client.refreshSlotsCache(() => undefined);
      throw error;
    }
  }

  /** What was asked got no answer: the connection may lead nowhere. */
  renew(): void {
    // One that still connects has a time limit of its own.
    if (this.#client instanceof Client) {
      if (this.#client.status === 'ready' || this.#client.status === 'connect') this.#client.disconnect(true);
    } else for (const node of this.#client.nodes('all')) node.disconnect(true);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#again);
    this.#client.disconnect();
    await Promise.resolve();
  }

  async #connect(): Promise<void> {
    try {
      await this.#client.connect();
    } catch (error) {
      this.#lastError ??= error;
    }
  }

  async #nodeOf(cluster: Cluster, key: string): Promise<Client | undefined> {
    if (this.#slot < 0) this.#slot = Number(await cluster.call('CLUSTER', 'KEYSLOT', key || this.#prefix));
    const name = cluster.slots[this.#slot]?.[0];
    return cluster.nodes('master').find(({ options }) => `${options.host}:${options.port}` === name);
  }
}

/** A whole call, with its repetitions. */
export const DEADLINE_MILLIS = 3000;
/** First connection of a process. */
export const OPEN_MILLIS = 10_000;
export const AWAY_MICROS = 10_000_000n;
/** CLUSTER.md C1: the longest wait for nodes to assert. */
export const WINDOW_MICROS = 10_000_000n;
/** The longest wait for sessions that no node holds to come back from Kafka. */
export const RESTORE_MICROS = 30_000_000n;
/** The last bound of the event stream, in entries: the outbox trims long before. */
export const EVENTS_LIMIT = 1_000_000;

const OPEN_POLL_MILLIS = 20;
/** A first connection that takes longer may meet a port that speaks something else. */
const PROBE_MILLIS = 1000;
const RETRY_MILLIS = 20;
const RETRY_MAX_MILLIS = 250;
const CONNECT_MILLIS = 2000;
const RECONNECT_MAX_MILLIS = 500;
const SEED_LIMIT = 2 ** 31;

const BEGIN_REIGN = loadScript('begin-reign');
const CONFIRM = loadScript('confirm');

function makeClient(settings: RedisSettings): Client | Cluster {
  const common: RedisOptions = {
    ...login(settings),
    lazyConnect: true,
    protocol: 2,
    connectTimeout: CONNECT_MILLIS,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    retryStrategy: backOff,
    reconnectOnError: (error) => codeOf(error) === 'READONLY',
    disableClientInfo: true,
    tls: tlsOf(settings),
  };
  if (settings.clusterNodes.length > 0) {
    return new Cluster(settings.clusterNodes.map(hostAndPort), {
      lazyConnect: true,
      enableOfflineQueue: false,
      clusterRetryStrategy: backOff,
      slotsRefreshInterval: SLOTS_MILLIS,
      redisOptions: common,
    });
  }
  if (settings.sentinels.length > 0) {
    return new Client({
      ...common,
      sentinels: settings.sentinels.map(hostAndPort),
      name: settings.sentinelName,
      sentinelPassword: secretOf(settings.sentinelPasswordFile),
      sentinelRetryStrategy: backOff,
      sentinelCommandTimeout: CONNECT_MILLIS,
      enableTLSForSentinelMode: settings.tls !== undefined,
      sentinelTLS: tlsOf(settings),
      failoverDetector: true,
    });
  }
  const url = urlOf(settings);
  const port = url.port === '' ? DEFAULT_PORT : Number(url.port);
  return new Client({
    ...common,
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port,
    db: Number(url.pathname.slice(1) || 0),
  });
}

const SLOTS_MILLIS = 2000;

function urlOf(settings: RedisSettings): URL {
  let url: URL;
  try {
    url = new URL(settings.url);
  } catch {
    throw new RedisProblem('redis: url must look like redis://HOST:PORT or rediss://HOST:PORT');
  }
  if ((url.protocol !== 'redis:' && url.protocol !== 'rediss:') || !/^\/?\d*$/.test(url.pathname)) {
    throw new RedisProblem('redis: url must look like redis://HOST:PORT or rediss://HOST:PORT');
  }
  if (url.password !== '')
    throw new RedisProblem('redis: the password belongs into password-file, not into url');
  return url;
}

function login(settings: RedisSettings): { username?: string; password?: string } {
  const password = secretOf(settings.passwordFile);
  // Without a name ioredis goes on with a server that knows no password, and says so on stderr by itself.
  return { username: settings.username || (password && 'default'), password };
}

function secretOf(file: string): string | undefined {
  if (file === '') return undefined;
  try {
    return readFileSync(file, 'utf8').replace(/\r?\n$/, '');
  } catch (error) {
    throw new RedisProblem(`redis: ${file} cannot be read: ${messageOf(error)}`);
  }
}

function tlsOf(settings: RedisSettings): ConnectionOptions | undefined {
  const { tls } = settings;
  if (tls === undefined) return settings.url.startsWith('rediss:') ? {} : undefined;
  return {
    ca: pem(tls.caFile),
    cert: pem(tls.certFile),
    key: pem(tls.keyFile),
    ...(tls.serverName === '' ? {} : { servername: tls.serverName }),
  };
}

function pem(file: string): Buffer | undefined {
  if (file === '') return undefined;
  try {
    return readFileSync(file);
  } catch (error) {
    throw new RedisProblem(`redis: ${file} cannot be read: ${messageOf(error)}`);
  }
}

function hostAndPort(text: string): { host: string; port: number } {
  const match = /^\[?([^\]]+)\]?:(\d{1,5})$/.exec(text);
  if (!match) throw new RedisProblem(`redis: "${text}" must look like HOST:PORT`);
  return { host: match[1] ?? '', port: Number(match[2]) };
}

/** For messages: never with a secret. */
function nameOf(settings: RedisSettings): string {
  if (settings.clusterNodes.length > 0) return settings.clusterNodes.join(', ');
  if (settings.sentinels.length > 0) return settings.sentinels.join(', ');
  return new URL(settings.url).host;
}

/** What waiting does not mend; undefined = it may. */
function problemOf(error: unknown): string | undefined {
  const message = messageOf(error);
  if (/WRONGPASS|invalid password|invalid username-password/i.test(message)) return 'refuses the password';
  if (/NOAUTH|Authentication required/i.test(message)) return 'asks for a password: set password-file';
  if (/without any password configured/i.test(message)) return 'has no password, but password-file is set';
  if (/NOPERM/i.test(message)) return 'forbids this user a command that is needed (INFO)';
  if (
    TLS_CODES.test(codeProperty(error)) ||
    /certificate|wrong version number|packet length too long/i.test(message)
  ) {
    return `fails the TLS handshake: ${firstLine(message)}`;
  }
  return undefined;
}

const TLS_CODES = /^(ERR_TLS|ERR_SSL|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|CERT_|HOSTNAME_MISMATCH|EPROTO)/;

function codeProperty(error: unknown): string {
  if (typeof error !== 'object' || error === null || !('code' in error)) return '';
  return typeof error.code === 'string' ? error.code : '';
}

/** The first word of an error of Redis. */
function codeOf(error: unknown): string {
  return /^(?:ERR )?([A-Z]+)/.exec(messageOf(error))?.[1] ?? '';
}

function messageOf(error: unknown): string {
  if (error instanceof Error) return error.message;
  return typeof error === 'string' ? error : '';
}

function firstLine(text: string): string {
  return text.split('\n')[0] ?? '';
}

/** The server cannot now, or the connection is gone: it may be asked again. */
const PASSING = new Set([
  ...[
    'READONLY',
    'LOADING',
    'MASTERDOWN',
    'CLUSTERDOWN',
    'TRYAGAIN',
    'MOVED',
    'ASK',
    'NOREPLICAS',
    'BUSY',
    'UNKILLABLE',
  ],
  'REIGN',
]);
/** It cannot, and asking again at once does not help. */
const LASTING = new Set(['OOM', 'MISCONF', 'NOAUTH', 'WRONGPASS', 'NOPERM', 'WAITING', 'FORGOTTEN']);

function canRepeat(error: unknown): boolean {
  return !(error instanceof TimedOut) && !LASTING.has(codeOf(error));
}

/** As callers know them. An error that we do not know is one of the connection. */
function faultOf(error: unknown): Error {
  if (error instanceof StoreUnavailable || error instanceof RedisProblem) return error;
  if (error instanceof TimedOut)
    return new StoreUnavailable('Redis did not answer in time', { cause: error });
  const code = codeOf(error);
  const message = messageOf(error);
  const newer = /^NEWER (.*?) of version (\d+)/.exec(message);
  if (newer) return new NewerVersion(`Redis: ${newer[1]}`, Number(newer[2]));
  if (code === 'FAULT') return new Error(message.replace(/^FAULT /, ''));
  if (code === 'WAITING') return new StoreUnavailable(message.replace(/^WAITING /, ''));
  if (PASSING.has(code) || LASTING.has(code)) {
    return new StoreUnavailable(`Redis cannot do it now: ${firstLine(message)}`, { cause: error });
  }
  if (message.startsWith('ERR ') || code === 'WRONGTYPE' || code === 'CROSSSLOT') {
    return new Error(`Redis refuses a command: ${firstLine(message)}`, { cause: error });
  }
  return new StoreUnavailable('Redis cannot be reached', { cause: error });
}

/** Texts and whole numbers. */
export type Reply = (string | number)[];

function replyOf(value: unknown, script: Script): Reply {
  if (!Array.isArray(value)) throw new Error(`script ${script.name} gave no list`);
  return value.map((item: unknown) => {
    if (typeof item !== 'string' && typeof item !== 'number')
      throw new Error(`script ${script.name} gave no text`);
    return item;
  });
}

function backOff(times: number): number {
  return Math.min(RECONNECT_MAX_MILLIS, 25 * 2 ** Math.min(times, 10));
}

function sleep(millis: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, millis));
}
