import type { Log } from '@sallyport/chassis';
import {
  isAlive,
  nodeClient,
  type Closable,
  type NodeRecord,
  type Nodes,
  type NodeService,
  type PeerCertificates,
  type PeerNode,
  type Sessions,
  type TunnelInfo,
} from '@sallyport/cluster';
import type { Reason } from '@sallyport/protocol';

export interface ClusterNodesParts {
  nodes: Nodes;
  sessions: Pick<Sessions, 'get'>;
  certificates: PeerCertificates;
  /** This process's own node, which is asked without a detour; absent in auth. */
  own?: { name: string; node: PeerNode } | undefined;
  log: Log;
  /** µs. */
  now: () => bigint;
}

/** All nodes as one: what operators ask of any process is answered for the whole cluster. */
export class ClusterNodes implements NodeService {
  readonly #parts: ClusterNodesParts;
  /** By address. */
  readonly #clients = new Map<string, Promise<PeerNode & Closable>>();

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

  close(): void {
    for (const client of this.#clients.values()) void client.then((open) => open.close());
    this.#clients.clear();
  }

  async #alive(): Promise<NodeRecord[]> {
    const now = this.#parts.now();
    return (await this.#parts.nodes.list()).filter((record) => isAlive(record, now));
  }

  async #ask<T>(record: NodeRecord, work: (node: PeerNode) => Promise<T>): Promise<T | undefined> {
    const { own, log } = this.#parts;
    try {
      return await work(own?.name === record.name ? own.node : await this.#client(record.address));
    } catch (error) {
      log.warn({ node: record.name, problem: String(error) }, 'a node did not answer');
      return undefined;
    }
  }

  #client(address: string): Promise<PeerNode & Closable> {
    const known = this.#clients.get(address);
    if (known) return known;
    const opened = nodeClient({ addresses: [address], certificates: this.#parts.certificates });
    this.#clients.set(address, opened);
    return opened;
  }
}
