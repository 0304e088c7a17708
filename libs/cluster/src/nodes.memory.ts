import type { Clock } from './clock.ts';
import { systemClock } from './clock.ts';
import {
  listed,
  NODE_FORGOTTEN_MICROS,
  type ListedNode,
  type NodeRecord,
  type NodeReport,
  type Nodes,
} from './nodes.ts';
import type { Micros, NodeIdentity } from './session.ts';

/** The nodes of one process: usually one. */
export class MemoryNodes implements Nodes {
  readonly #clock: Clock;
  readonly #nodes = new Map<string, NodeRecord>();

  constructor(clock: Clock = systemClock()) {
    this.#clock = clock;
  }

  async heartbeat(report: NodeReport, clock: Micros): Promise<NodeRecord> {
    const beatAt = this.#clock();
    const drain = this.#nodes.get(report.name)?.drain ?? false;
    const record = { ...report, drain, beatAt, clockOffset: clock - beatAt };
    this.#nodes.set(report.name, record);
    return record;
  }

  async list(): Promise<ListedNode[]> {
    const now = this.#clock();
    for (const [name, node] of this.#nodes) {
      if (now - node.beatAt > NODE_FORGOTTEN_MICROS) this.#nodes.delete(name);
    }
    return [...this.#nodes.values()]
      .map((node) => listed(node, now))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  async drain(name: string, wanted: boolean): Promise<boolean> {
    const node = this.#nodes.get(name);
    if (node === undefined) return false;
    this.#nodes.set(name, { ...node, drain: wanted });
    return true;
  }

  async leave({ name, incarnation }: NodeIdentity): Promise<void> {
    if (this.#nodes.get(name)?.incarnation === incarnation) this.#nodes.delete(name);
  }
}
