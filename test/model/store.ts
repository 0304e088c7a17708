/*
 * The primaries of the store. Each is a database of a real redis-server, with the real scripts; a script cannot tell it from
 * a server of its own, because the model gives it the time and the replication id.
 *
 *   replica     a copy of the keyspace, at times brought up to date, always when a WAIT asks for it
 *   failover    the replica's copy under a new id: what it lacked is lost
 *   empty       no keys under a new id
 *   split       the copy serves as a second primary for some, while the others still write to the old one, which can
 *               confirm nothing and is thrown away at the end
 */
import {
  defaultRedisSettings,
  Redis,
  RESTORE_MICROS,
  StoreUnavailable,
  type Script,
} from '@sallyport/cluster';
import type { RedisServer } from '@sallyport/cluster/testing';
import { dumpOf, DUMP, type Dump } from './dump.ts';
import type { Actor, Simulation } from './simulation.ts';

export type Reply = (string | number)[];

/** One script as it ran. */
export interface Execution {
  /** Who asked. */
  actor: string;
  primary: Primary;
  script: string;
  args: Record<string, unknown>;
  before: Dump;
  after: Dump;
  /** undefined = it stopped with an error. */
  reply: Reply | undefined;
}

export class Primary {
  readonly name: string;
  readonly database: number;
  readonly replicaDatabase: number;
  reign = '';
  /** Of the last script. */
  seenReign = '';
  /** Of its clock against the world's, µs. */
  skew = 0;
  /** `none`: nobody asks for confirmation; `unreachable`: nobody gives it. */
  replica: 'attached' | 'none' | 'unreachable' = 'none';
  /** Changes so far, and those that the replica has. */
  changes = 0;
  replicated = -1;
  dump: Dump = dumpOf('{"records":{},"taken":"","held":"","users":0,"until":"0"}');

  constructor(name: string, index: number) {
    this.name = name;
    this.database = 2 * index;
    this.replicaDatabase = 2 * index + 1;
  }
}

export class Store {
  /** Told of everything that changed something. */
  onExecution: (execution: Execution) => void = () => undefined;
  readonly #sim: Simulation;
  readonly #primaries: readonly [Primary, Primary] = [new Primary('A', 0), new Primary('B', 1)];
  readonly #redis = new Map<Primary, Redis>();
  readonly #mutate: (script: Script) => Script;
  #present = this.#primaries[0];
  #old: Primary | undefined;
  /** Who still talks to the old primary. */
  #left = new Set<string>();
  #reigns = 0;
  #scripts = 0;

  private constructor(sim: Simulation, mutate: (script: Script) => Script) {
    this.#sim = sim;
    this.#mutate = mutate;
  }

  /** @param server is emptied. */
  static async open(
    server: RedisServer,
    sim: Simulation,
    mutate: (script: Script) => Script = (script) => script,
  ): Promise<Store> {
    const store = new Store(sim, mutate);
    for (const primary of store.#primaries) {
      const url = `${server.settings.url}/${primary.database}`;
      const settings = defaultRedisSettings({ url, cluster: CLUSTER, promises: ['persistence'] });
      const redis = await Redis.open(settings, {
        clock: () => BigInt(sim.now + primary.skew + ++store.#scripts),
        reign: () => primary.reign,
        seed: () => sim.random.below(2 ** 31),
        restoreMicros: RESTORE_MICROS,
      });
      store.#redis.set(primary, redis);
    }
    await store.#call(store.#present, 'FLUSHALL');
    store.#crown(store.#present);
    await store.replicate(store.#present);
    store.#present.replica = 'attached';
    return store;
  }

  /** The one whose word counts. */
  get present(): Primary {
    return this.#present;
  }

  get isSplit(): boolean {
    return this.#old !== undefined;
  }

  primaryOf(actor: Actor): Primary {
    return this.#old !== undefined && this.#left.has(actor.name) ? this.#old : this.#present;
  }

  /** Runs one script now. @throws as the real `Redis.run` */
  async execute(actor: string, primary: Primary, script: Script, args: object): Promise<Reply> {
    const before = primary.dump;
    let reply: Reply | undefined;
    try {
      return (reply = await this.#of(primary).run(this.#mutate(script), args));
    } finally {
      const isQuiet =
        primary.seenReign === primary.reign &&
        (LEAVE_RECORDS.has(script.name) || (script.name === 'sweep' && reply?.[0] === 0));
      primary.seenReign = primary.reign;
      if (!isQuiet) primary.changes += 1;
      if (!isQuiet) {
        await this.#look(primary);
        const plain: Record<string, unknown> = Object.fromEntries(Object.entries(args));
        this.onExecution({
          actor,
          primary,
          script: script.name,
          args: plain,
          before,
          after: primary.dump,
          reply,
        });
      }
    }
  }

  /** A plain command. */
  command(primary: Primary, command: string, args: (string | number | Buffer)[]): Promise<unknown> {
    return this.#of(primary).call(command, ...args);
  }

  /** WAIT. @param reign in which it was written. */
  async confirm(primary: Primary, reign: string): Promise<void> {
    if (primary.reign !== reign) throw new StoreUnavailable('FORGOTTEN the server was replaced since');
    if (primary.replica === 'unreachable')
      throw new StoreUnavailable('no replica of Redis has confirmed the change');
    if (primary.replica === 'attached') await this.replicate(primary);
  }

  /** The same after a write of its own. */
  prove(primary: Primary, reign: string): Promise<void> {
    return this.confirm(primary, reign);
  }

  /** The replica catches up. */
  async replicate(primary: Primary): Promise<void> {
    if (primary.replicated === primary.changes) return;
    await this.#copy(primary.database, primary.replicaDatabase);
    primary.replicated = primary.changes;
  }

  attachReplica(primary: Primary): Promise<void> {
    primary.replica = 'attached';
    return this.replicate(primary);
  }

  /** @returns false = there is no replica to promote. */
  async failOver(): Promise<boolean> {
    const primary = this.#present;
    if (primary.replica !== 'attached' || this.isSplit) return false;
    await this.#copy(primary.replicaDatabase, primary.database);
    primary.replica = 'none';
    this.#crown(primary);
    await this.#look(primary);
    return true;
  }

  async empty(): Promise<boolean> {
    if (this.isSplit) return false;
    await this.#call(this.#present, 'FLUSHDB');
    this.#crown(this.#present);
    await this.replicate(this.#present);
    await this.#look(this.#present);
    return true;
  }

  /** @param left names of actors that stay with the old primary. */
  async split(left: readonly string[]): Promise<boolean> {
    const old = this.#present;
    if (old.replica !== 'attached' || this.isSplit) return false;
    const promoted = old === this.#primaries[0] ? this.#primaries[1] : this.#primaries[0];
    await this.#copy(old.replicaDatabase, promoted.database);
    old.replica = 'unreachable';
    promoted.replica = 'none';
    this.#old = old;
    this.#present = promoted;
    this.#left = new Set(left);
    this.#crown(promoted);
    await this.#look(promoted);
    return true;
  }

  /** The old primary goes, with what only it has. */
  async join(): Promise<void> {
    const old = this.#old;
    if (old === undefined) return;
    this.#old = undefined;
    await this.#call(old, 'FLUSHDB');
    await this.#look(old);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#redis.values()].map((redis) => redis.close()));
  }

  #crown(primary: Primary): void {
    primary.changes += 1;
    primary.reign = `r${++this.#reigns}`;
    primary.skew = this.#sim.random.between(-MAX_SKEW, MAX_SKEW);
  }

  async #look(primary: Primary): Promise<void> {
    primary.dump = dumpOf(String(await this.#call(primary, 'EVAL', DUMP, 0, PREFIX)));
  }

  async #copy(from: number, to: number): Promise<void> {
    await this.#call(this.#primaries[0], 'EVAL', COPY, 0, from, to);
  }

  #call(primary: Primary, command: string, ...args: (string | number)[]): Promise<unknown> {
    return this.#of(primary).call(command, ...args);
  }

  #of(primary: Primary): Redis {
    const redis = this.#redis.get(primary);
    if (redis === undefined) throw new Error('no connection');
    return redis;
  }
}

const CLUSTER = 'model';
export const PREFIX = `{${CLUSTER}}:`;
/** Scripts that change no session. */
const LEAVE_RECORDS = new Set(['find', 'list', 'counts', 'pools', 'nodes', 'mail', 'heartbeat', 'events']);
/** A promoted server's clock may be behind, µs. */
const MAX_SKEW = 40_000;
const COPY = `
redis.call('SELECT', ARGV[2])
redis.call('FLUSHDB')
redis.call('SELECT', ARGV[1])
for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('COPY', key, key, 'DB', ARGV[2]) end
return 1`;
