import type { Log } from '@sallyport/chassis';
import {
  StoreUnavailable,
  type NodeRecord,
  type Nodes,
  type NodeService,
  type PeerNode,
  type Sessions,
  type TunnelInfo,
} from '@sallyport/cluster';
import type { Reason } from '@sallyport/protocol';
import type { NodeClients } from './node-clients.ts';

export interface ClusterNodesParts {
  nodes: Nodes;
  sessions: Pick<Sessions, 'get'>;
  clients: Pick<NodeClients, 'at'>;
  /** This process's own node, which is asked without a detour; absent in auth. */
  own?: { name: string; node: PeerNode } | undefined;
  /** Nodes that lived when the store last answered; absent = those of the last question. */
  known?: () => readonly NodeRecord[];
  log: Log;
}

/** All nodes as one: what operators ask of any process is answered for the whole cluster. */
export class ClusterNodes implements NodeService {
  readonly #parts: ClusterNodesParts;
  #known: readonly NodeRecord[] = [];
  readonly silent = new Set<string>();

  constructor(parts: ClusterNodesParts) {
    this.#parts = parts;
  }

  /** A node that does not answer has no tunnels to show; the log says so. */
  async tunnels(): Promise<TunnelInfo[]> {
    const lists = await Promise.all(
      (await this.#alive()).map((record) =>
        this.#ask(record, (node) => node.tunnels()).then((tunnels) => tunnels ?? []),
      ),
    );
    return lists.flat();
  }

  async disconnect(sessionIds: string[], reason: Reason): Promise<number> {
    const byNode = new Map<string, string[]>();
    for (const id of sessionIds) {
      const session = await this.#parts.sessions.get(id);
      const name = session?.state === 'up' ? session.lease?.name : undefined;
      if (name !== undefined) byNode.set(name, [...(byNode.get(name) ?? []), id]);
    }
    const counts = (await this.#alive()).map(async (record) => {
      const ids = byNode.get(record.name);
      return ids ? ((await this.#ask(record, (node) => node.disconnect(ids, reason))) ?? 0) : 0;
    });
    return (await Promise.all(counts)).reduce((sum, count) => sum + count, 0);
  }

  /** They are asked without the store, so those that lived when it last answered will do. */
  async #alive(): Promise<readonly NodeRecord[]> {
    try {
      this.#known = (await this.#parts.nodes.list()).filter(({ alive }) => alive);
    } catch (error) {
      if (!(error instanceof StoreUnavailable)) throw error;
      if (this.#parts.known) this.#known = this.#parts.known();
      if (this.#known.length === 0) throw error;
    }
    return this.#known;
  }

  async #ask<T>(record: NodeRecord, work: (node: PeerNode) => Promise<T>): Promise<T | undefined> {
    const { own, log } = this.#parts;
    try {
      const answer = await work(
        own?.name === record.name ? own.node : await this.#parts.clients.at(record.address),
      );
      this.silent.delete(record.name);
      return answer;
    } catch (error) {
      this.silent.add(record.name);
      log.warn({ node: record.name, problem: String(error) }, 'a node did not answer');
      return undefined;
    }
  }
}
