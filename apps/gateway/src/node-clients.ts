import { nodeClient, type Closable, type PeerCertificates, type PeerNode } from '@sallyport/cluster';

/** Connections to the nodes of the cluster, by address: opened when they are first needed, closed when nobody needs them. */
export class NodeClients {
  readonly #certificates: PeerCertificates;
  readonly #now: () => number;
  readonly #entries = new Map<string, Entry>();

  /** @param now monotonic, ms. */
  constructor(certificates: PeerCertificates, now: () => number = () => performance.now()) {
    this.#certificates = certificates;
    this.#now = now;
  }

  /** For one call that begins now. Whether anybody answers there shows at the call. */
  at(address: string): Promise<PeerNode & Closable> {
    const now = this.#now();
    for (const [other, { usedAt, client }] of this.#entries) {
      if (other === address || now - usedAt < UNUSED_MS) continue;
      this.#entries.delete(other);
      void client.then((open) => open.close());
    }
    const entry = this.#entries.get(address) ?? {
      client: nodeClient({ addresses: [address], certificates: this.#certificates }),
      usedAt: now,
    };
    entry.usedAt = now;
    this.#entries.set(address, entry);
    return entry.client;
  }

  close(): void {
    for (const { client } of this.#entries.values()) void client.then((open) => open.close());
    this.#entries.clear();
  }
}

interface Entry {
  client: Promise<PeerNode & Closable>;
  /** ms, monotonic. */
  usedAt: number;
}

/** Longer than any call to a node may take. */
const UNUSED_MS = 60_000;
