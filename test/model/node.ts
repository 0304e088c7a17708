/*
 * A tunnel node of the real parts: session table, tunnels, heartbeat, assertion. What stands in is below and beside them: the
 * network to the store (link.ts), the clients' streams, the process that dies, freezes and starts again.
 */
import { createLog, Metrics } from '@sallyport/chassis';
import {
  RedisNodes,
  RedisSessions,
  StoreUnavailable,
  type NodeIdentity,
  type Release,
  type Session,
} from '@sallyport/cluster';
import { MemoryDevice, NO_RETURN_PATH, PortableEngine } from '@sallyport/engine';
import { asserting, Isolation, NodeLife, Peers, Releases } from '@sallyport/gateway';
import { NodeMetrics, Tunnels } from '@sallyport/tunnel-node';
import { Link, type LinkParts } from './link.ts';
import { MILLIS, SECONDS, type Actor } from './simulation.ts';
import type { ModelStream } from './stream.ts';

export interface NodeParts extends Omit<LinkParts, 'actor'> {
  say: (text: string) => void;
  /** Another node, by its address, as this one reaches it. */
  peer: (from: Actor, address: string) => ModelPeer;
}

export interface ModelPeer {
  storeSilence: () => Promise<number | undefined>;
  release: (releases: readonly Release[]) => Promise<void>;
  refuses: () => Promise<boolean>;
}

/** A name; the process behind it comes and goes. */
export class ModelNode {
  readonly name: string;
  readonly #parts: NodeParts;
  #process: Process | undefined;
  #starts = 0;

  constructor(name: string, parts: NodeParts) {
    this.name = name;
    this.#parts = parts;
  }

  get process(): Process | undefined {
    return this.#process;
  }

  /** Alive and not frozen: it forwards packets. */
  get runs(): boolean {
    return this.#process !== undefined && this.#process.actor.frozenUntil <= this.#parts.sim.now;
  }

  async start(): Promise<void> {
    if (this.#process !== undefined) return;
    const actor = { name: this.name, alive: true, frozenUntil: 0 };
    const identity = { name: this.name, incarnation: `i${++this.#starts}` };
    const { sim } = this.#parts;
    const process = (this.#process = new Process(this, actor, identity, this.#parts));
    await sim.act(actor, () => void process.begin());
  }

  crash(): void {
    const process = this.#process;
    if (process === undefined) return;
    this.#process = undefined;
    process.actor.alive = false;
    for (const stream of process.streams) stream.breakOff();
  }

  freeze(micros: number): void {
    const { sim } = this.#parts;
    if (this.#process !== undefined) this.#process.actor.frozenUntil = sim.now + micros;
  }

  /** A planned stop: it parks what it has, then it is gone. */
  async stop(): Promise<void> {
    const process = this.#process;
    if (process?.tunnels === undefined || !this.runs) return;
    const { sim } = this.#parts;
    await sim.act(process.actor, () => void process.end().then(() => this.crash()));
  }
}

export class Process {
  readonly actor: Actor;
  readonly identity: NodeIdentity;
  readonly streams = new Set<ModelStream>();
  readonly link: Link;
  readonly sessions: RedisSessions;
  /** undefined = it does not serve yet. */
  tunnels: Tunnels | undefined;
  life: NodeLife | undefined;
  readonly #node: ModelNode;
  readonly #parts: NodeParts;
  #closers: (() => void)[] = [];

  constructor(node: ModelNode, actor: Actor, identity: NodeIdentity, parts: NodeParts) {
    this.#node = node;
    this.actor = actor;
    this.identity = identity;
    this.#parts = parts;
    this.link = new Link({ ...parts, actor });
    this.sessions = new RedisSessions({ redis: this.link });
  }

  /** In the order of the role tunnel-node. */
  async begin(): Promise<void> {
    const { sim, say, peer } = this.#parts;
    for (;;) {
      try {
        await this.sessions.announce(this.identity);
        break;
      } catch (error) {
        if (!(error instanceof StoreUnavailable)) throw error;
        await new Promise((resolve) => setTimeout(resolve, START_AGAIN_MILLIS));
      }
    }
    const { sessions, identity: node } = this;
    const monotonic = () => sim.now / MILLIS;
    const client = (address: string) => Promise.resolve(peer(this.actor, address));
    const refuses = (address: string) => peer(this.actor, address).refuses();
    const nodes = new RedisNodes(this.link);
    const peers = new Peers({ nodes, own: node.name, client, refuses, monotonic });
    const releases = new Releases({ peers, client, log });
    const tunnels = new Tunnels({
      ...{ node, sessions, log, metrics, strap: 'off', gatewayName: 'model', returnPath: NO_RETURN_PATH },
      engine: new PortableEngine(new MemoryDevice()),
      checkpointSeconds: 5,
      onTaken: (from, release) => releases.add(from, release),
      now: monotonic,
      clock: () => BigInt(sim.now),
    });
    this.tunnels = tunnels;
    this.#closers.push(asserting({ assertions: sessions, tunnels, node, log }));
    const limitSeconds = () => ISOLATION_LIMIT / SECONDS;
    const isolation = new Isolation({ peers, tunnels, limitSeconds, log, monotonic });
    const life = new NodeLife({
      ...{ nodes, tunnels, peers, isolation, log, monotonic, now: () => BigInt(sim.now) },
      lifecycle: { status: () => STATUS },
      announcement: { ...node, number: 1, address: `${node.name}:1` },
    });
    this.life = life;
    this.#closers.push(() => void life.close());
    void life.handleTick();
    say(`${this.#node.name} serves as ${node.incarnation}`);
  }

  async end(): Promise<void> {
    for (const close of this.#closers) close();
    await this.tunnels?.close();
  }

  /** Sessions whose packets come here. */
  holdings(): Session[] {
    return this.tunnels?.holdings().filter(({ state }) => state === 'up') ?? [];
  }
}

export const ISOLATION_LIMIT = 10 * SECONDS;
const START_AGAIN_MILLIS = 500;
const STATUS = { version: '0', node: '', revision: '', startedAt: 0n, state: 'online' as const };
const log = createLog({ name: 'model', level: 'silent' });
const metrics = new NodeMetrics(new Metrics());
