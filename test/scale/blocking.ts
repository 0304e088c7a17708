/*
 * How long one script keeps a Redis with a large table from everybody else: each of those whose work grows with what is
 * there, with as much work as one call of it may get. Calls go one at a time, so that the server's thread does nothing
 * else between two looks at its processor time.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { loadScript, Redis, RedisEventStream, RedisNodes, RedisSessions } from '@sallyport/cluster';
import { sampleClaim, sampleLogin } from '@sallyport/cluster/testing';
import { median, pause } from './probe.ts';
import { POOLS, type Table } from './table.ts';
import { nodeOf, tokenHashOf } from './traffic.ts';

export interface LongestScript {
  script: string;
  /** What the work was. */
  what: string;
  calls: number;
  longestMillis: number;
  medianMillis: number;
}

/** Uses the table up: at the end its sessions have outlived their time. */
export async function longestScripts(table: Table, say: (line: string) => void): Promise<LongestScript[]> {
  const watch = new Watch(table.server.pid);
  const open = async (clock?: () => bigint) => {
    const options = { windowMicros: 0n, awayMicros: 0n, deadlineMillis: 60_000, clock };
    return watch.over(await Redis.open(table.server.settings, options));
  };
  const redis = await open();
  const later = await open(() => BigInt(Date.now()) * 1000n + TWO_DAYS);
  const muchLater = await open(() => BigInt(Date.now()) * 1000n + 5n * TWO_DAYS);
  const sessions = new RedisSessions({ redis, pollMillis: 10 });
  const works: Record<string, () => Promise<unknown>> = {
    'looks at counts, pools, nodes': async () => {
      for (let i = 0; i < 20; i++) {
        await sessions.counts();
        await sessions.pools();
        await new RedisNodes(redis).list();
      }
    },
    'finds sessions by the beginning of their ids': () => sessions.findByPrefix('00'),
    'lists sessions of one user with 4,000 of them': async () => {
      await crowd(sessions, 4000);
      await sessions.findByPrefix('0000');
    },
    'ends all of one user': () => sessions.endOfUser(CROWD, 'terminated'),
    'starts again as a node that had tunnels': () =>
      sessions.announce({ name: nodeOf(0).name, incarnation: randomUUID() }),
    'asserts what a node holds': async () => {
      const held = (await sessions.findByPrefix('01')).filter((session) => session.state === 'up');
      await sessions.assert(nodeOf(1), held);
      // One that Redis has forgotten is written again.
      for (const { id } of held) await redis.call('DEL', `${redis.prefix}s:${id}`);
      await sessions.assert(nodeOf(1), held);
    },
    'reads the mail of a node that lost its tunnels': async () => {
      for (let i = 0; i < 1000; i++) {
        const request = sampleClaim(tokenHashOf(table.seed, 1 + 20 * i), `c${i}`, { node: nodeOf(2) });
        await sessions.claim(request);
      }
      const stop = sessions.notices(nodeOf(1), () => undefined);
      await pause(1000);
      stop();
    },
    'reads the stream': async () => {
      for (let i = 0; i < 20; i++) await new RedisEventStream(redis).read(500);
    },
    'gives up facts at the cap of the stream': () => new RedisEventStream(redis).dropOldest(10_000),
    'forgets old logins': () => oldLogins(redis, 3000),
    'sweeps what has outlived its time': async () => {
      const sweeper = new RedisSessions({ redis: later });
      for (let i = 0; i < SWEEPS; i++) await sweeper.sweep();
    },
    'sweeps tombstones': async () => {
      const sweeper = new RedisSessions({ redis: muchLater });
      for (let i = 0; i < SWEEPS; i++) await sweeper.sweep();
    },
  };
  try {
    for (const [what, work] of Object.entries(works)) {
      say(what);
      await watch.during(what, work);
    }
    return watch.longest();
  } finally {
    await sessions.close();
    for (const each of [redis, later, muchLater]) await each.close();
  }
}

/** Reads the processor time of the server's thread before and after each script of a connection. */
class Watch {
  readonly #pid: number;
  readonly #seen = new Map<string, { script: string; what: string; millis: number[] }>();
  #what = '';

  constructor(pid: number) {
    this.#pid = pid;
  }

  over(redis: Redis): Redis {
    const run = redis.run.bind(redis);
    redis.run = async (script, args, options) => {
      const before = this.#millis();
      const reply = await run(script, args, options);
      const used = this.#millis() - before;
      const key = `${this.#what} ${script.name}`;
      const entry = this.#seen.get(key) ?? { script: script.name, what: this.#what, millis: [] };
      entry.millis.push(used);
      this.#seen.set(key, entry);
      return reply;
    };
    return redis;
  }

  async during(what: string, work: () => Promise<unknown>): Promise<void> {
    this.#what = what;
    await work();
  }

  /** The longest first. */
  longest(): LongestScript[] {
    return [...this.#seen.values()]
      .map(({ script, what, millis }) => ({
        script,
        what,
        calls: millis.length,
        longestMillis: Math.max(...millis),
        medianMillis: median(millis),
      }))
      .sort((a, b) => b.longestMillis - a.longestMillis);
  }

  #millis(): number {
    const [nanos = ''] = readFileSync(`/proc/${this.#pid}/task/${this.#pid}/schedstat`, 'utf8').split(' ');
    return Number(nanos) / 1e6;
  }
}

async function crowd(sessions: RedisSessions, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const token = tokenHashOf(CROWD, i);
    const grant = { ipv4Pools: [POOLS.ipv4], ipv6Pools: [POOLS.ipv6] };
    await sessions.create(sampleLogin(token, CROWD, grant));
    const claim = await sessions.claim(sampleClaim(token, `c${i}`));
    if (!claim.ok) throw new Error(`a claim is refused: ${claim.reason}`);
  }
}

/** Logins of many clients that were never finished; the next one pays for forgetting them. */
async function oldLogins(redis: Redis, count: number): Promise<void> {
  const script = loadScript('logins');
  const add = (i: number, now: number) => {
    const text = JSON.stringify({ id: `login${i}`, revision: 1, filler: 'x'.repeat(600) });
    const place = `192.0.${i >> 8}.${i & 255}`;
    const login = { id: `login${i}`, address: place, expiresAt: now + 240_000, granted: false, text };
    return redis.run(script, { verb: 'add', now, ...login, maxPerAddress: 64, restMillis: 1000, max: 1e6 });
  };
  const now = Date.now();
  for (let i = 0; i < count; i++) await add(i, now);
  for (let i = 0; i < 4; i++) await add(count + i, now + 300_000);
}

const CROWD = 'everybody';
const SWEEPS = 3;
/** µs. The sessions of a table live for one. */
const TWO_DAYS = 2n * 86_400_000_000n;
