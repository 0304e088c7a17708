import type { Micros, NodeIdentity } from './session.ts';

/** What a node says of itself with each heartbeat. */
export interface NodeAnnouncement extends NodeIdentity {
  number: number;
  /** gRPC, `HOST:PORT`. */
  address: string;
  version: string;
  startedAt: Micros;
  tunnels: number;
}

/** A node as the others know it. */
export interface NodeRecord extends NodeAnnouncement {
  /** An operator wants no new clients there: the flag outlives the node's process. */
  draining: boolean;
  /** Last heartbeat, by the store's clock. */
  beatAt: Micros;
}

/** The tunnel nodes of a cluster: records with a heartbeat. Rejects with `StoreUnavailable`. */
export interface Nodes {
  /** About once a second. @returns the node's own record. */
  beat(node: NodeAnnouncement): Promise<NodeRecord>;
  /** Those heard of within the last minutes, by name. */
  list(): Promise<NodeRecord[]>;
  /** @returns false: there is no such node. */
  drain(name: string, drain: boolean): Promise<boolean>;
}

/** The form of one process. */
export class MemoryNodes implements Nodes {
  readonly #now: () => Micros;
  readonly #records = new Map<string, NodeRecord>();

  /** @param now µs. */
  constructor(now: () => Micros) {
    this.#now = now;
  }

  beat(node: NodeAnnouncement): Promise<NodeRecord> {
    const draining = this.#records.get(node.name)?.draining ?? false;
    const record = { ...node, draining, beatAt: this.#now() };
    this.#records.set(node.name, record);
    return Promise.resolve(record);
  }

  list(): Promise<NodeRecord[]> {
    const oldest = this.#now() - NODE_FORGOTTEN_MICROS;
    const live = [...this.#records.values()].filter(({ beatAt }) => beatAt >= oldest);
    return Promise.resolve(live.sort((a, b) => (a.name < b.name ? -1 : 1)));
  }

  drain(name: string, drain: boolean): Promise<boolean> {
    const record = this.#records.get(name);
    if (!record) return Promise.resolve(false);
    this.#records.set(name, { ...record, draining: drain });
    return Promise.resolve(true);
  }
}

/** A node that was silent for so long is shown no more. */
export const NODE_FORGOTTEN_MICROS = 600_000_000n;
/** One that was silent for so long is dead: nobody waits for what it might say. */
export const NODE_DEAD_MICROS = 5_000_000n;
