import type { Micros, NodeIdentity } from './session.ts';

/** What the cluster knows of one node: announced once, renewed by each heartbeat. */
export interface NodeRecord extends NodeIdentity {
  /** 1 to 65535: the first two bytes of its DTLS ids. */
  number: number;
  /** `HOST:PORT` of its gRPC server; '' = none. */
  address: string;
  version: string;
  tunnels: number;
  /** It wants no new clients: full, isolated, stopping. */
  unready: boolean;
  /** What it says of its slice of the pools (apps/gateway/src/home-slice.ts); absent or '' = it has none. */
  home?: string;
  /** An operator wants it empty. */
  drain: boolean;
  /** Last heartbeat, by the store's clock. */
  beatAt: Micros;
  /** The node's clock minus the store's, µs. */
  clockOffset: Micros;
}

/** As the table lists it. */
export interface ListedNode extends NodeRecord {
  /** Heard of in the last `NODE_DEAD_MICROS`, by the store's clock: that of the reader may be off. */
  alive: boolean;
}

/** What a node tells about itself. */
export type NodeReport = Omit<NodeRecord, 'drain' | 'beatAt' | 'clockOffset'>;

/**
 * The nodes of a cluster: a record each, with a heartbeat. Forms: `nodes.memory.ts`, `nodes.redis.ts`; both pass
 * `nodes.contract.ts`. All methods reject with `StoreUnavailable` when the store does not answer.
 */
export interface Nodes {
  /**
   * About once a second.
   * @param clock the node's own, µs.
   * @returns its record: whether an operator wants it drained is news.
   * @throws NodeReplaced: another process goes by this name.
   */
  heartbeat(report: NodeReport, clock: Micros): Promise<NodeRecord>;
  /** All nodes that were heard of in the last day, by name. */
  list(): Promise<ListedNode[]>;
  /** Sets or clears the drain flag, which outlives the node's process. @returns false = no such node. */
  drain(name: string, wanted: boolean): Promise<boolean>;
  /** Forgets a node, if it is still this incarnation: it stops on purpose. */
  leave(node: NodeIdentity): Promise<void>;
}

/**
 * Two processes of one node: a pod that was deleted by force and lives, a configuration that was copied. Their sessions are
 * those of the one that was announced last.
 */
export class NodeReplaced extends Error {
  constructor(name: string) {
    super(
      `Another process has announced itself as ${name}, so this one ends: give each node a node.name of its own, and see that one process of it runs.`,
    );
    this.name = 'NodeReplaced';
  }
}

/** For the forms of the table. @param now by the store's clock. */
export function listed(node: NodeRecord, now: Micros): ListedNode {
  return { ...node, alive: now - node.beatAt < NODE_DEAD_MICROS };
}

/** A node that has missed this much is dead: no call to it is waited for. */
export const NODE_DEAD_MICROS = 3_000_000n;
/**
 * What a node that is silent for so long held is parked, so that its users' sessions count no more as connected and end in
 * time. More than isolation takes to close its tunnels (docs/decisions/0006-isolation.md). Not of the form in memory: there the
 * sessions and the node are one process.
 */
export const SILENT_MICROS = 60_000_000n;
/** A node that was not heard of for so long is forgotten, with its drain flag. */
export const NODE_FORGOTTEN_MICROS = 86_400_000_000n;
