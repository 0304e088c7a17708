import { fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createLog } from '@sallyport/chassis';
import { keepCapped, Redis, RedisEventStream, RedisSessions, type Session } from '@sallyport/cluster';
import { RedisServer } from '@sallyport/cluster/testing';
import { median, pause, serverMicros } from './probe.ts';
import { claimOf, loginOf, nodeOf, tokenHashOf, type Pools } from './traffic.ts';

/** What is measured, in the order of a session's life. */
export const STEPS = ['login', 'claim', 'resume', 'park', 'return', 'logout'] as const;
export type Step = (typeof STEPS)[number];

export interface Cost {
  /** Processor time of the server's thread per call, µs. */
  micros: number;
  /** From the call to its answer, µs, median. */
  latencyMicros: number;
}

export interface FillReport {
  sessions: number;
  seconds: number;
  /** Processor time of the server's thread for one login and one claim, µs. */
  serverMicros: number;
}

/** A Redis of its own, with a session table of a given size that the real code made. */
export class Table {
  readonly wanted: number;
  /** Sessions that there are, by their numbers. */
  size = 0;
  readonly server: RedisServer;
  readonly redis: Redis;
  readonly sessions: RedisSessions;
  /** Names the tokens of its sessions. */
  readonly seed = randomBytes(8).toString('hex');
  readonly #empty: number;
  #next: number;

  private constructor(size: number, server: RedisServer, redis: Redis, empty: number) {
    this.wanted = size;
    this.server = server;
    this.redis = redis;
    this.sessions = new RedisSessions({ redis, pollMillis: MANY_MILLIS });
    this.#empty = empty;
    this.#next = 2 * size;
  }

  /** An append-only file without waiting for the disk, and no rewrite of it, which would fork in the middle. */
  static async open(size: number): Promise<Table> {
    const server = await RedisServer.start('--auto-aof-rewrite-percentage', '0');
    const redis = await Redis.open(server.settings, { windowMicros: 0n, deadlineMillis: DEADLINE_MILLIS });
    return new Table(size, server, redis, await usedMemory(redis));
  }

  async close(): Promise<void> {
    await this.sessions.close();
    await this.redis.close();
    await this.server.stop();
  }

  /**
   * Makes the sessions; fewer, when the time is over before.
   * @param stopAt by performance.now()
   * @param say called about every ten seconds.
   */
  async fill(workers: number, stopAt: number, say: (line: string) => void): Promise<FillReport> {
    const capped = keepCapped(new RedisEventStream(this.redis), NO_LOG);
    const begun = performance.now();
    const before = await serverMicros(this.server.pid);
    const done = new Array<number>(workers).fill(0);
    const sum = () => done.reduce((total, count) => total + count, 0);
    const progress = setInterval(() => {
      const rate = sum() / ((performance.now() - begun) / 1000);
      say(`${this.wanted} sessions: ${sum()} made, ${rate.toFixed(0)} logins and claims per second`);
    }, PROGRESS_MILLIS);
    try {
      await Promise.all(done.map((_, i) => this.#fillPart(i, workers, stopAt, (n) => (done[i] = n))));
    } finally {
      clearInterval(progress);
      capped();
    }
    const seconds = (performance.now() - begun) / 1000;
    const used = (await serverMicros(this.server.pid)) - before;
    // Each process has made all of its numbers up to one: below that there is no gap.
    this.size = Math.min(...done) * workers;
    const { up } = await this.sessions.counts();
    if (up !== sum()) throw new Error(`${up} of ${sum()} sessions are up`);
    return { sessions: up, seconds, serverMicros: used / up };
  }

  #fillPart(part: number, parts: number, stopAt: number, tell: (done: number) => void): Promise<void> {
    const { port } = this.server;
    const args = { port, seed: this.seed, part, parts, to: this.wanted, nodes: NODES, ...POOLS };
    const child = fork(
      new URL('./fill.js', import.meta.url),
      Object.entries(args).flatMap(([name, value]) => [`--${name}`, String(value)]),
    );
    return new Promise((resolve, reject) => {
      const over = setTimeout(() => child.send('stop'), Math.max(0, stopAt - performance.now()));
      child.on('message', (message) => {
        if (typeof message === 'object' && 'done' in message) tell(Number(message.done));
      });
      child.on('error', reject);
      child.on('exit', (code) => {
        clearTimeout(over);
        if (code === 0) resolve();
        else reject(new Error('a process that fills the table has failed (see above)'));
      });
    });
  }

  /** Memory of one session, once the stream has been read and no CONNECT is of the last minute. */
  async bytesPerSession(say: (line: string) => void): Promise<number> {
    await this.redis.call('DEL', `${this.redis.prefix}events`);
    const expiring = async () =>
      Number(/db0:.*expires=(\d+)/.exec(String(await this.redis.call('INFO', 'keyspace')))?.[1]);
    say('waiting until the CONNECTs of the last minute are forgotten');
    while ((await expiring()) > 0) await pause(1000);
    return ((await usedMemory(this.redis)) - this.#empty) / (await this.sessions.counts()).up;
  }

  /** Each step `count` times, one call at a time, on new sessions and on random ones of the table; none is left over. */
  async measure(count: number): Promise<Record<Step, Cost>> {
    const fresh = Array.from({ length: count }, () => this.#next++);
    const old = Array.from({ length: count }, () => Math.floor(Math.random() * this.size));
    const token = (index: number) => tokenHashOf(this.seed, index);
    const held = new Map<number, Session>();
    const claim = async (index: number, node: number) => {
      const claimed = await this.sessions.claim(claimOf(token(index), index, nodeOf(node)));
      if (!claimed.ok) throw new Error(`a claim is refused: ${claimed.reason}`);
      held.set(index, claimed.session);
    };
    const park = async (index: number) => {
      const session = held.get(index);
      if (session?.lease === undefined) throw new Error('a session has no lease');
      await this.sessions.park(session.id, session.lease, 'connection-lost', USAGE);
    };
    const end = async (index: number) => this.sessions.end(held.get(index)?.id ?? '', 'terminated');
    const unique = [...new Set(old)];
    const elsewhere = (index: number) => (index + 1 + Math.floor(Math.random() * (NODES - 1))) % NODES;
    return {
      login: await this.#cost(fresh, (index) => this.sessions.create(loginOf(this.seed, index, POOLS))),
      claim: await this.#cost(fresh, (index) => claim(index, index % NODES)),
      resume: await this.#cost(unique, (index) => claim(index, elsewhere(index))),
      park: await this.#cost(unique, park),
      return: await this.#cost(unique, (index) => claim(index, index % NODES)),
      logout: await this.#cost(fresh, end),
    };
  }

  async #cost(indexes: readonly number[], call: (index: number) => Promise<unknown>): Promise<Cost> {
    const latencies: number[] = [];
    const before = await serverMicros(this.server.pid);
    for (const index of indexes) {
      const begun = performance.now();
      await call(index);
      latencies.push((performance.now() - begun) * 1000);
    }
    const used = (await serverMicros(this.server.pid)) - before;
    return { micros: used / indexes.length, latencyMicros: median(latencies) };
  }
}

async function usedMemory(redis: Redis): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(String(await redis.call('INFO', 'memory')))?.[1]);
}

/** Room for more sessions than there will be: 2^24 addresses, 2^24 networks. */
export const POOLS: Pools = { ipv4: '10.0.0.0/8', ipv6: 'fd00:5a11::/40' };
/** That the sessions of a table are spread over. */
export const NODES = 20;
const USAGE = { rxBytes: 1_000_000n, txBytes: 2_000_000n, activeAt: 1n };
const DEADLINE_MILLIS = 60_000;
const MANY_MILLIS = 3_600_000;
const PROGRESS_MILLIS = 10_000;
const NO_LOG = createLog({ name: 'scale', level: 'silent' });
