import {
  listed,
  NODE_FORGOTTEN_MICROS,
  NodeReplaced,
  type ListedNode,
  type NodeRecord,
  type NodeReport,
  type Nodes,
} from './nodes.ts';
import type { Scripts } from './redis.ts';
import { loadScript } from './scripts.ts';
import type { Micros, NodeIdentity } from './session.ts';

/** The nodes of a cluster, in Redis. Their heartbeats are also its signs of life (CLUSTER.md C12, C13). */
export class RedisNodes implements Nodes {
  readonly #redis: Scripts;

  constructor(redis: Scripts) {
    this.#redis = redis;
  }

  async heartbeat(report: NodeReport, clock: Micros): Promise<NodeRecord> {
    const [text] = await this.#redis.run(SCRIPTS.heartbeat, { node: { ...report, drain: false }, clock });
    if (text === '') throw new NodeReplaced(report.name);
    return decodeNode(String(text));
  }

  async list(): Promise<ListedNode[]> {
    const [now, ...nodes] = await this.#redis.run(SCRIPTS.nodes, { forget: NODE_FORGOTTEN_MICROS });
    const time = BigInt(String(now));
    return nodes
      .flatMap((text) => readNode(String(text)))
      .map((node) => listed(node, time))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  async drain(name: string, wanted: boolean): Promise<boolean> {
    const [done] = await this.#redis.run(SCRIPTS.drain, { name, wanted }, { confirm: true });
    return done === 1;
  }

  async leave({ name, incarnation }: NodeIdentity): Promise<void> {
    await this.#redis.run(SCRIPTS.leave, { name, incarnation });
  }
}

const SCRIPTS = {
  heartbeat: loadScript('heartbeat'),
  nodes: loadScript('nodes'),
  drain: loadScript('drain-node'),
  leave: loadScript('leave'),
};

/** The script has left out what is no node, but Lua takes more for JSON than it is. */
function readNode(text: string): NodeRecord[] {
  try {
    return [decodeNode(text)];
  } catch {
    return [];
  }
}

function decodeNode(text: string): NodeRecord {
  const value: unknown = JSON.parse(text);
  const get = (name: string): unknown =>
    typeof value === 'object' && value !== null && Object.hasOwn(value, name)
      ? Reflect.get(value, name)
      : undefined;
  const textOf = (name: string) => {
    const member = get(name);
    return typeof member === 'string' ? member : '';
  };
  return {
    name: textOf('name'),
    incarnation: textOf('incarnation'),
    number: Number(get('number')),
    address: textOf('address'),
    version: textOf('version'),
    tunnels: Number(get('tunnels')),
    unready: get('unready') === true,
    ...(textOf('home') !== '' && { home: textOf('home') }),
    drain: get('drain') === true,
    beatAt: BigInt(textOf('beat')),
    clockOffset: BigInt(textOf('offset')),
  };
}
