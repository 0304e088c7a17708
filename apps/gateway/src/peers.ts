/** The other nodes of the cluster, as this one knows them, also while the store is away. */
import { connect } from 'node:net';
import type { ListedNode, NodeIdentity, NodeRecord, Nodes, PeerNode } from '@sallyport/cluster';

export interface PeersParts {
  nodes: Pick<Nodes, 'list'>;
  /** Name of this node. */
  own: string;
  client: (address: string) => Promise<Pick<PeerNode, 'storeSilence' | 'release'>>;
  /** Whether the machine at an address says that nobody listens there. Default: a TCP connection. */
  refuses?: (address: string) => Promise<boolean>;
  /** Monotonic, ms. */
  monotonic: () => number;
}

/**
 * What a peer says when this node cannot reach the store:
 *
 *   answered   it reached the store so long ago; Infinity = never
 *   gone       its process is dead: its machine answers that nobody listens
 *   silent     nothing: it is frozen, without power, or behind a cut
 */
export type PeerSays = { kind: 'answered'; silentMs: number } | { kind: 'gone' } | { kind: 'silent' };

export class Peers {
  readonly #parts: PeersParts;
  #alive: ListedNode[] = [];
  #lookedAt = -Infinity;

  constructor(parts: PeersParts) {
    this.#parts = parts;
  }

  /** Those that lived at the last look, this one included. */
  get alive(): readonly ListedNode[] {
    return this.#alive;
  }

  /** Reads the table of nodes when it is time. Called after each heartbeat. @throws StoreUnavailable */
  async look(): Promise<void> {
    const { nodes, monotonic } = this.#parts;
    const begun = monotonic();
    if (begun - this.#lookedAt < this.#alive.length * LOOK_MS_PER_NODE) return;
    this.#alive = (await nodes.list()).filter(({ alive }) => alive);
    this.#lookedAt = begun;
  }

  /** Where a process answers; undefined = it is dead as far as this node knows, it was started again, or it is this one. */
  addressOf({ name, incarnation }: NodeIdentity): string | undefined {
    return this.#others.find((record) => record.name === name && record.incarnation === incarnation)?.address;
  }

  /** Asks some of those that lived when the store last answered, each time others. */
  ask(): Promise<PeerSays[]> {
    return Promise.all(drawn(this.#others, ASKED_AT_ONCE).map(({ address }) => this.#askOne(address)));
  }

  get #others(): NodeRecord[] {
    return this.#alive.filter(({ name, address }) => name !== this.#parts.own && address !== '');
  }

  async #askOne(address: string): Promise<PeerSays> {
    const { client, refuses = refusesTcp } = this.#parts;
    try {
      const silentMs = await (await client(address)).storeSilence();
      return { kind: 'answered', silentMs: silentMs ?? Infinity };
    } catch {
      return { kind: (await refuses(address)) ? 'gone' : 'silent' };
    }
  }
}

function refusesTcp(address: string): Promise<boolean> {
  const { hostname, port } = new URL(`tcp://${address}`);
  const socket = connect({ host: hostname.replace(/^\[(.*)\]$/, '$1'), port: Number(port) });
  return new Promise<boolean>((resolve) => {
    socket.setTimeout(PROBE_MS, () => resolve(false));
    socket.once('connect', () => resolve(false));
    socket.once('error', (error) => resolve('code' in error && error.code === 'ECONNREFUSED'));
  }).finally(() => socket.destroy());
}

function drawn<T>(all: readonly T[], count: number): T[] {
  const rest = [...all];
  const taken: T[] = [];
  while (taken.length < count && rest.length > 0)
    taken.push(...rest.splice(Math.floor(Math.random() * rest.length), 1));
  return taken;
}

/** Between two looks, for each node: all of them together read the table 50 times a second at most. */
const LOOK_MS_PER_NODE = 20;
export const ASKED_AT_ONCE = 5;
const PROBE_MS = 1000;
