/* The whole cluster of one run, and every way in which it can be hurt. */
import type { Script } from '@sallyport/cluster';
import type { RedisServer } from '@sallyport/cluster/testing';
import { Auth, Facts } from './auth.ts';
import { Checker } from './checker.ts';
import { fieldsOf } from './dump.ts';
import { Client } from './client.ts';
import type { NodeLife } from '@sallyport/gateway';
import { ModelNode, type ModelPeer } from './node.ts';
import { MILLIS, SECONDS, Simulation, START, type Actor } from './simulation.ts';
import { Store, type Execution } from './store.ts';

export interface WorldOptions {
  seed: number;
  server: RedisServer;
  mutate?: (script: Script) => Script;
}

export class World {
  readonly sim: Simulation;
  readonly store: Store;
  readonly checker: Checker;
  readonly nodes: ModelNode[];
  readonly auths: Auth[];
  readonly facts: Facts;
  readonly clients: Client[] = [];
  /** What happened, newest last. */
  readonly trace: string[] = [];
  /** Faults of each kind in a thousand requests. */
  roughness = 0;
  readonly #seed: number;
  /** Until when an actor does not reach the store, µs. */
  readonly #cutFromStore = new Map<string, number>();
  /** Until when a node does not reach any other. */
  readonly #cutFromPeers = new Map<string, number>();
  readonly #troubledAt = new Map<string, number>();
  #storeTroubledAt = 0;
  #lostAllAt = 0;
  #logins = 0;

  private constructor(options: WorldOptions, sim: Simulation, store: Store) {
    this.#seed = options.seed;
    this.sim = sim;
    this.store = store;
    const parts = {
      ...{ sim, store },
      isCut: (actor: Actor) => this.#isCut(this.#cutFromStore, actor.name),
      roughness: () => this.roughness,
      say: (text: string) => this.say(text),
      peer: (from: Actor, address: string) => this.#peer(from, address),
    };
    this.nodes = NODES.map((name) => new ModelNode(name, parts));
    this.auths = AUTHS.map((name) => new Auth(name, parts));
    this.facts = new Facts(parts);
    this.checker = new Checker({
      now: () => sim.now,
      nodes: this.nodes,
      present: () => store.present,
      troubledAt: (node) => Math.max(this.#storeTroubledAt, this.#troubledAt.get(node) ?? 0),
      lostAllAt: () => this.#lostAllAt,
    });
    store.onExecution = (execution) => this.#handleExecution(execution);
  }

  static async open(options: WorldOptions): Promise<World> {
    const sim = new Simulation(options.seed);
    const store = await Store.open(options.server, sim, options.mutate);
    return new World(options, sim, store);
  }

  async begin(): Promise<void> {
    for (const node of this.nodes) await node.start();
    for (const auth of this.auths) await this.sim.act(auth.actor, () => auth.begin());
    await this.sim.act(this.facts.actor, () => this.facts.begin());
  }

  /** Lets time go by, with all that happens in it, until something is found. */
  async pass(micros: number): Promise<void> {
    const until = this.sim.now + micros;
    while (this.checker.violation === undefined && (await this.sim.next(until))) this.checker.handleStep();
  }

  say(text: string): void {
    this.trace.push(`${((this.sim.now - START) / SECONDS).toFixed(3)} ${text}`);
  }

  // Users and operators.

  async login(): Promise<void> {
    const auth = this.#anAuth();
    const label = `s${++this.#logins}`;
    const token = `token-${this.#seed}-${label}`;
    const user = `user${this.sim.random.below(USERS)}`;
    await this.sim.act(auth.actor, async () => {
      const { sim, nodes } = this;
      void auth.login(token, user).then((session) => {
        if (session === undefined) return this.say(`${label}: login refused`);
        this.checker.learn(session.id, label);
        const client = new Client(
          label,
          { token, user, sessionId: session.id },
          {
            ...{ sim, nodes, say: (text: string) => this.say(text) },
            onRefused: (refused, reason) => this.checker.handleRefused(refused, reason),
          },
        );
        this.clients.push(client);
        this.say(`${label}: ${user} has logged in`);
        sim.after(MILLIS, client.actor, () => client.connect());
      });
    });
  }

  /** Logout or terminate of any one. */
  async end(): Promise<void> {
    const auth = this.#anAuth();
    const client = this.sim.random.pick(this.clients);
    if (client === undefined) return;
    const reason = this.sim.random.pick(['logout', 'terminated'] as const) ?? 'terminated';
    this.say(`${auth.actor.name} ends ${client.label}: ${reason}`);
    await this.sim.act(auth.actor, () => {
      void auth.end(client.sessionId, reason).then((done) => {
        this.say(`${client.label}: ${done ? 'its end is confirmed' : 'there was nothing to end'}`);
        if (done) this.checker.confirmEnd(client.sessionId);
      });
    });
  }

  async endOfUser(): Promise<void> {
    const auth = this.#anAuth();
    const user = `user${this.sim.random.below(USERS)}`;
    const theirs = this.clients.filter((client) => client.user === user);
    this.say(`${auth.actor.name} locks ${user}`);
    await this.sim.act(auth.actor, () => {
      void auth.endOfUser(user, 'user-locked').then((count) => {
        this.say(`${user} is locked, sessions ended: ${count}`);
        const { records } = this.store.present.dump;
        for (const { sessionId } of theirs)
          if (records.get(sessionId)?.state === 'c') this.checker.confirmEnd(sessionId);
      });
    });
  }

  // Faults.

  async crash(node: ModelNode, restartAfter: number): Promise<void> {
    this.say(`${node.name} dies, starts again after ${(restartAfter / SECONDS).toFixed(1)} s`);
    node.crash();
    this.sim.after(restartAfter, undefined, () => void node.start());
    return Promise.resolve();
  }

  async stop(node: ModelNode, restartAfter: number): Promise<void> {
    this.say(`${node.name} stops as planned`);
    await node.stop();
    this.sim.after(restartAfter, undefined, () => void node.start());
  }

  freeze(node: ModelNode, micros: number): void {
    this.say(`${node.name} freezes for ${(micros / SECONDS).toFixed(1)} s`);
    node.freeze(micros);
    this.#trouble(node.name, micros);
    for (const client of this.clients) {
      if (![...(node.process?.streams ?? [])].some((stream) => client.has(stream))) continue;
      this.sim.after(this.sim.random.between(1, 10) * SECONDS, client.actor, () => {
        if (!node.runs) client.notice();
      });
    }
  }

  cutFromStore(name: string, micros: number): void {
    this.say(`${name} does not reach the store for ${(micros / SECONDS).toFixed(1)} s`);
    this.#cutFromStore.set(name, this.sim.now + micros);
  }

  cutFromPeers(name: string, micros: number): void {
    this.say(`${name} does not reach its peers for ${(micros / SECONDS).toFixed(1)} s`);
    this.#cutFromPeers.set(name, this.sim.now + micros);
    this.#trouble(name, micros);
  }

  async failOver(): Promise<void> {
    if (!(await this.store.failOver())) return;
    this.say(`failover: the last writes are lost, reign ${this.store.present.reign}`);
    this.#storeTrouble(0);
    this.#attachLater();
  }

  async empty(): Promise<void> {
    if (!(await this.store.empty())) return;
    this.say(`the primary comes back empty, reign ${this.store.present.reign}`);
    this.#lostAllAt = this.sim.now;
    this.#storeTrouble(0);
  }

  async split(micros: number): Promise<void> {
    const all = [...NODES, ...AUTHS];
    const left = all.filter(() => this.sim.random.permille(400));
    if (!(await this.store.split(left))) return;
    this.say(
      `two primaries for ${(micros / SECONDS).toFixed(1)} s; with the old one: ${left.join(' ') || 'nobody'}`,
    );
    this.#storeTrouble(micros);
    this.#attachLater();
    this.sim.after(micros, undefined, async () => {
      await this.store.join();
      this.say('the old primary is gone');
    });
  }

  replicate(): Promise<void> {
    const { present } = this.store;
    return present.replica === 'attached' ? this.store.replicate(present) : Promise.resolve();
  }

  /** Everything works again. */
  async heal(): Promise<void> {
    this.say('everything works again');
    this.roughness = 0;
    this.#cutFromStore.clear();
    this.#cutFromPeers.clear();
    await this.store.join();
    for (const node of this.nodes) await node.start();
  }

  async close(): Promise<void> {
    for (const node of this.nodes) node.crash();
    await this.store.close();
  }

  #attachLater(): void {
    const { present } = this.store;
    this.sim.after(this.sim.random.between(1, 8) * SECONDS, undefined, () =>
      this.store.present === present ? this.store.attachReplica(present) : undefined,
    );
  }

  #trouble(name: string, micros: number): void {
    this.#troubledAt.set(name, Math.max(this.#troubledAt.get(name) ?? 0, this.sim.now + micros));
  }

  #storeTrouble(micros: number): void {
    this.#storeTroubledAt = Math.max(this.#storeTroubledAt, this.sim.now + micros);
  }

  #isCut(cuts: ReadonlyMap<string, number>, name: string): boolean {
    return (cuts.get(name) ?? 0) > this.sim.now;
  }

  /** gRPC between two nodes: a call is lost, late, or comes twice. */
  #peer(from: Actor, address: string): ModelPeer {
    const { sim } = this;
    const name = address.split(':')[0] ?? '';
    const call = <T>(ask: (life: NodeLife) => Promise<T>) =>
      new Promise<T>((resolve, reject) => {
        sim.after(PEER_DEADLINE, from, () => reject(new Error('no answer')));
        const life = this.nodes.find((node) => node.name === name)?.process?.life;
        const actor = this.nodes.find((node) => node.name === name)?.process?.actor;
        const isCut = this.#isCut(this.#cutFromPeers, name) || this.#isCut(this.#cutFromPeers, from.name);
        if (life === undefined || isCut || sim.random.permille(this.roughness)) return;
        const answer = () =>
          void ask(life).then((value) => sim.after(MILLIS, from, () => resolve(value)), reject);
        const late = sim.random.permille(100) ? sim.random.below(5 * SECONDS) : 2 * MILLIS;
        sim.after(late, actor, answer);
        if (sim.random.permille(100)) sim.after(late + sim.random.below(5 * SECONDS), actor, answer);
      });
    return {
      storeSilence: () => call((life) => life.storeSilence()),
      release: (releases) => call((life) => life.release(releases)),
      refuses: async () => {
        const isCut = this.#isCut(this.#cutFromPeers, name) || this.#isCut(this.#cutFromPeers, from.name);
        await Promise.resolve();
        return !isCut && this.nodes.find((node) => node.name === name)?.process === undefined;
      },
    };
  }

  #anAuth(): Auth {
    const auth = this.sim.random.pick(this.auths);
    if (auth === undefined) throw new Error('no auth');
    return auth;
  }

  #handleExecution(execution: Execution): void {
    this.checker.handleExecution(execution);
    const { actor, script, args, primary, reply } = execution;
    if (QUIET.has(script)) return;
    const id = String(args['id'] ?? '');
    const asserted = Array.isArray(args['records'])
      ? args['records'].map((each: unknown) => this.checker.label(String(fieldsOf(each)['id'])))
      : [];
    const about = [...asserted, args['how'], id && this.checker.label(id), args['user'], args['reason']];
    const answer =
      reply === undefined
        ? 'stops'
        : reply.slice(0, script === 'assert' ? 20 : 2).map((part) => String(part).slice(0, 16));
    this.say(
      `  ${actor} on ${primary.name}: ${script} ${about.filter((part) => typeof part === 'string' && part).join(' ')} → ${String(answer)}`,
    );
  }
}

export const NODES = ['n1', 'n2', 'n3'];
export const AUTHS = ['auth1', 'auth2'];
const USERS = 4;
const PEER_DEADLINE = SECONDS;
/** Scripts that happen all the time and say little. */
const QUIET = new Set(['mail', 'heartbeat', 'sweep', 'events', 'nodes', 'asserted']);
