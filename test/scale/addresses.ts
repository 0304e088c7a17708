/**
 * `npm run bench -- addresses`: processes that claim and release addresses of small pools in one Redis, and are killed with
 * SIGKILL and started again, as is Redis. An observer reads the stream of facts, as the outbox does, and knows of each
 * address who has it. At the end all sessions are ended and all addresses given once more. Progress on stderr.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import {
  decodeEntry,
  hashToken,
  newToken,
  Redis,
  RedisEventStream,
  RedisSessions,
  StoreUnavailable,
} from '@sallyport/cluster';
import { RedisServer, sampleClaim, sampleLogin } from '@sallyport/cluster/testing';
import { Random } from '../model/simulation.ts';
import { AddressHistory, type Answer } from './history.ts';
import { pause } from './probe.ts';

export interface AddressesOptions {
  /** Claims and releases together. */
  operations: number;
  nodes: number;
  /** Of nodes; of Redis. */
  kills: number;
  redisKills: number;
  pools: { ipv4: string; ipv6: string };
  /** Of all choices; when what happens is the machine's affair. */
  seed: number;
  /** No new operations after this, ms. */
  limitMillis: number;
  say: (line: string) => void;
}

export interface AddressesReport {
  claims: number;
  releases: number;
  compared: number;
  kills: number;
  redisKills: number;
  /** How often everything stood still and table, pools and history were compared. */
  audits: number;
  /** Most sessions with an address at once. */
  most: number;
  /** Addresses of the smaller pool, and how many of them were given at the end to as many sessions. */
  size: number;
  givenAgain: number;
  seconds: number;
  problems: string[];
}

export async function proveAddresses(options: AddressesOptions): Promise<AddressesReport> {
  const server = await RedisServer.start();
  const run = new Run(options, server, await Redis.open(server.settings, { deadlineMillis: 10_000 }));
  try {
    return await run.report();
  } finally {
    await run.close();
    await server.stop();
  }
}

class Run {
  readonly #options: AddressesOptions;
  readonly #server: RedisServer;
  readonly #redis: Redis;
  readonly #stream: RedisEventStream;
  readonly #sessions: RedisSessions;
  readonly #random: Random;
  readonly #history = new AddressHistory();
  readonly #nodes: (ChildProcess | undefined)[];
  readonly #idle: boolean[];
  readonly #problems: string[] = [];
  #lastEntry = '';
  #most = 0;
  #audits = 0;
  #closed = false;

  constructor(options: AddressesOptions, server: RedisServer, redis: Redis) {
    this.#options = options;
    this.#random = new Random(options.seed);
    this.#server = server;
    this.#redis = redis;
    this.#stream = new RedisEventStream(redis);
    this.#sessions = new RedisSessions({ redis });
    this.#nodes = new Array<ChildProcess | undefined>(options.nodes).fill(undefined);
    this.#idle = new Array<boolean>(options.nodes).fill(false);
  }

  async report(): Promise<AddressesReport> {
    const { kills, redisKills, say } = this.#options;
    const begun = performance.now();
    for (let i = 0; i < this.#nodes.length; i++) this.#start(i);
    const done = await this.#work(begun);
    say('everything ends');
    await this.#stop();
    await this.#audit('at the end');
    await this.#endAll();
    const { claims, releases, compared } = this.#history;
    const given = await this.#giveAll();
    await this.#audit('with all addresses given');
    const { size } = await this.#poolUse();
    return {
      ...{ claims, releases, compared, audits: this.#audits, most: this.#most, size },
      kills: Math.min(kills, done.kills),
      redisKills: Math.min(redisKills, done.redisKills),
      givenAgain: given,
      seconds: (performance.now() - begun) / 1000,
      problems: [...this.#history.problems, ...this.#problems],
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const child of this.#nodes) child?.kill('SIGKILL');
    await this.#sessions.close();
    await this.#redis.close();
  }

  /** Reads facts, hands out tokens, sweeps, kills: until enough is done. */
  async #work(begun: number): Promise<{ kills: number; redisKills: number }> {
    const { operations, kills, redisKills, limitMillis, say } = this.#options;
    const done = { kills: 0, redisKills: 0 };
    let told = begun;
    let swept = begun;
    for (;;) {
      const read = await this.#read();
      const count = this.#history.claims + this.#history.releases;
      const now = performance.now();
      const isEnough = count >= operations && done.kills >= kills && done.redisKills >= redisKills;
      if (isEnough || now - begun > limitMillis || this.#problems.length > 0) return done;
      this.#handOut();
      if (now - swept > 1000) {
        swept = now;
        await this.#calmly(() => this.#sessions.sweep());
      }
      if (now - told > 10_000) {
        told = now;
        say(`${count} claims and releases, ${done.kills} nodes and ${done.redisKills} times Redis killed`);
      }
      const share = Math.max(count / operations, (now - begun) / limitMillis);
      if (done.kills < kills && share >= (done.kills + 1) / (kills + 1)) {
        done.kills++;
        await this.#killNode();
      }
      if (done.redisKills < redisKills && share >= (done.redisKills + 1) / (redisKills + 2)) {
        done.redisKills++;
        await this.#killRedis();
        await this.#stop();
        await this.#audit(`after Redis was killed ${done.redisKills} times`);
        this.#tellAll('go');
      }
      if (read < READ) await pause(20);
    }
  }

  #start(index: number): void {
    const { pools } = this.#options;
    const args = {
      port: this.#server.port,
      name: `n${index + 1}`,
      number: index + 1,
      seed: this.#random.below(SEEDS),
      target: Math.ceil((sizeOf(pools.ipv4) * CROWDING) / this.#nodes.length),
      ...pools,
    };
    const child = fork(
      new URL('./node.js', import.meta.url),
      Object.entries(args).flatMap(([name, value]) => [`--${name}`, String(value)]),
    );
    this.#nodes[index] = child;
    this.#idle[index] = false;
    child.on('message', (message: { answers: Answer[]; idle: boolean }) => {
      for (const answer of message.answers) this.#history.answered(answer);
      this.#idle[index] = message.idle;
    });
    child.on('error', () => undefined);
    child.on('exit', (code) => {
      if (!this.#closed && code !== null) this.#problems.push(`node ${index + 1} has failed (see above)`);
    });
  }

  async #killNode(): Promise<void> {
    const index = this.#random.below(this.#nodes.length);
    await gone(this.#nodes[index]);
    this.#start(index);
  }

  async #killRedis(): Promise<void> {
    await this.#server.kill();
    await this.#server.launch();
  }

  #tellAll(what: 'go' | 'pause' | string[]): void {
    for (const child of this.#nodes) if (child?.connected === true) child.send(what, () => undefined);
  }

  #handOut(): void {
    const tokens = [...this.#history.live.values()];
    if (tokens.length === 0) return;
    for (const child of this.#nodes) {
      const some = Array.from({ length: TOKENS }, () => this.#random.pick(tokens) ?? '');
      if (child?.connected === true) child.send(some, () => undefined);
    }
  }

  /** Until no node has a call under way, and all facts were read. */
  async #stop(): Promise<void> {
    this.#idle.fill(false);
    this.#tellAll('pause');
    const until = performance.now() + STOP_MILLIS;
    while (!this.#idle.every(Boolean) || (await this.#read()) > 0) {
      if (performance.now() > until) throw new Error('the nodes do not come to rest');
      this.#tellAll('pause');
      await pause(50);
    }
    await this.#readAll();
  }

  async #readAll(): Promise<void> {
    while ((await this.#read()) > 0);
  }

  /** @returns how many facts were new. */
  async #read(): Promise<number> {
    const fresh = await this.#calmly(async () => {
      if (!(await this.#stream.takeLease(OBSERVER, 60_000))) throw new Error('another one reads the stream');
      const { entries, reign } = await this.#stream.read(READ);
      const last = entries.at(-1)?.id;
      const news = entries.filter(({ id }) => isAfter(id, this.#lastEntry));
      for (const entry of news) {
        const fact = decodeEntry(entry);
        if ('epoch' in fact) this.#history.take(fact);
        this.#lastEntry = entry.id;
      }
      if (last !== undefined) await this.#stream.trim(OBSERVER, reign, last);
      return news.length;
    });
    this.#most = Math.max(this.#most, this.#history.owners.size / 2);
    return fresh ?? 0;
  }

  /** Undefined while Redis is away. */
  async #calmly<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof StoreUnavailable) return undefined;
      throw error;
    }
  }

  /** While all stand still: the table, the pools and the history say the same. */
  async #audit(when: string): Promise<void> {
    this.#audits++;
    const sessions = await this.#sessions.list();
    const inTable = new Map<string, string>();
    for (const { id, addresses } of sessions) {
      for (const address of [addresses.ipv4, addresses.ipv6].filter(Boolean)) {
        const other = inTable.get(address);
        if (other !== undefined) this.#problems.push(`${when}: ${address} is that of ${other} and of ${id}`);
        inTable.set(address, id);
      }
    }
    const { owners, unproven } = this.#history;
    for (const [address, id] of inTable)
      if (owners.get(address) !== id)
        this.#problems.push(`${when}: ${address} is that of ${id}, by the facts of ${owners.get(address)}`);
    const { used } = await this.#poolUse();
    if (owners.size !== inTable.size || used !== inTable.size)
      this.#problems.push(
        `${when}: the sessions have ${inTable.size} addresses, by the facts ${owners.size}, by the pools ${used}`,
      );
    if (unproven > 0) this.#problems.push(`${when}: ${unproven} claims were answered and have no fact`);
  }

  async #poolUse(): Promise<{ used: number; size: number }> {
    const pools = await this.#sessions.pools();
    return {
      used: pools.reduce((sum, pool) => sum + pool.used, 0),
      size: Math.min(...pools.map((pool) => Number(pool.size))),
    };
  }

  async #endAll(): Promise<void> {
    for (const { id } of await this.#sessions.list()) await this.#sessions.end(id, 'terminated');
    await this.#readAll();
    const left = this.#history.owners.size;
    if (left > 0) this.#problems.push(`${left} addresses have an owner after all sessions have ended`);
  }

  /** @returns sessions that got an address before the pool was empty: as many as it has, if none is lost. */
  async #giveAll(): Promise<number> {
    const { pools } = this.#options;
    const grant = { ipv4Pools: [pools.ipv4], ipv6Pools: [pools.ipv6], ipv6SubnetPrefix: 64 };
    const seen = new Set<string>();
    for (let i = 0; ; i++) {
      const session = await this.#sessions.create(sampleLogin(hashToken(newToken()), `again${i}`, grant));
      const claim = await this.#sessions.claim(sampleClaim(session.tokenHash, `again${i}`));
      if (!claim.ok) {
        if (claim.reason !== 'pool-empty') this.#problems.push(`the last claim: ${claim.reason}`);
        break;
      }
      seen.add(claim.addresses.ipv4);
    }
    await this.#readAll();
    return seen.size;
  }
}

async function gone(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const exit = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await exit;
}

function isAfter(id: string, last: string): boolean {
  const [millis = 0, sequence = 0] = id.split('-').map(Number);
  const [lastMillis = 0, lastSequence = 0] = last.split('-').map(Number);
  return millis > lastMillis || (millis === lastMillis && sequence > lastSequence);
}

/** About as many addresses as the pool has. */
function sizeOf(cidr: string): number {
  return 2 ** (32 - Number(cidr.split('/')[1]));
}

async function main(argv: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...argv], options: OPTIONS });
  const report = await proveAddresses({
    operations: Number(values.operations),
    nodes: Number(values.nodes),
    kills: Number(values.kills),
    redisKills: Number(values['redis-kills']),
    pools: { ipv4: '10.77.0.0/21', ipv6: 'fd00:77::/53' },
    seed: values.seed === '' ? randomInt(SEEDS) : Number(values.seed),
    limitMillis: Number(values.minutes) * 60_000,
    say: (line) => void process.stderr.write(`${line}\n`),
  });
  if (values.out !== '') appendFileSync(values.out, `${JSON.stringify(report)}\n`);
  const { problems, ...figures } = report;
  const rows = Object.entries(figures).map(([name, value]) => `| ${name} | ${Math.round(value)} |`);
  process.stdout.write(`${['| figure | |', '| --- | --- |', ...rows].join('\n')}\n`);
  for (const problem of problems) process.stdout.write(`PROBLEM: ${problem}\n`);
  return problems.length === 0 && report.givenAgain === report.size ? 0 : 1;
}

const OPTIONS = {
  out: { type: 'string', default: '' },
  operations: { type: 'string', default: '1000000' },
  nodes: { type: 'string', default: '4' },
  kills: { type: 'string', default: '40' },
  'redis-kills': { type: 'string', default: '5' },
  minutes: { type: 'string', default: '60' },
  /** '' = a new one. */
  seed: { type: 'string', default: '' },
} as const;

const OBSERVER = 'observer';
const SEEDS = 2 ** 31;
/** Facts of one look. */
const READ = 500;
/** That a node is told of at once. */
const TOKENS = 16;
/** Tunnels that the nodes want, for each address that there is. */
const CROWDING = 1.1;
/** Nodes wait for Redis, and after its death for each other. */
const STOP_MILLIS = 120_000;

if (process.argv[1] === import.meta.filename) process.exitCode = await main(process.argv.slice(2));
