import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLog } from '@sallyport/chassis';
import {
  MemoryNodes,
  parseSettings,
  StoreUnavailable,
  type ListedNode,
  type Settings,
} from '@sallyport/cluster';
import { HomeSlice } from './home-slice.ts';

test('nodes that agree announce their slices, each its own', async (t) => {
  const world = new World();
  const [one, two] = [world.node(t, 'n1', 1, 2), world.node(t, 'n2', 2, 2)];
  await world.turn();
  assert.deepEqual([one.home, two.home], [['10.0.0.0/25'], ['10.0.0.128/25']]);
  assert.match(one.slice.said, /^has slices 2 /);
});

test('an isolated node announces no slice until it is one of the cluster again', async (t) => {
  const world = new World();
  const [one] = [world.node(t, 'n1', 1, 2), world.node(t, 'n2', 2, 2)];
  await world.turn();
  one.isAway = one.isIsolated = true;
  await world.turn();
  assert.deepEqual(one.home, []);
  one.isAway = one.isIsolated = false;
  await world.turn();
  assert.deepEqual(one.home, ['10.0.0.0/25']);
});

test('of two nodes with the same number at most one announces: who was there first', async (t) => {
  const world = new World();
  const first = world.node(t, 'n1', 1, 2);
  await world.turn();
  const second = world.node(t, 'n9', 1, 2);
  await world.turn();
  await world.turn();
  assert.deepEqual([first.home, second.home], [['10.0.0.0/25'], []]);
  await world.nodes.leave(first.identity);
  world.remove(first);
  await world.turn();
  assert.deepEqual(second.home, ['10.0.0.0/25'], 'the first has left');
});

test('the table is read before a slice is announced; for all else what is known of the others will do', async (t) => {
  const world = new World();
  const [node, rival] = [world.node(t, 'n1', 1, 2), world.node(t, 'n2', 1, 2)];
  for (const each of [node, rival]) await each.beat();
  const both = await world.nodes.list();
  const alone = both.filter(({ name }) => name === 'n1');
  let known = both;
  node.known = () => known;
  const ticks = async () => {
    for (let n = 0; n < 5; n++) await node.slice.handleTick();
    return node.lists;
  };
  assert.deepEqual([await ticks(), node.home], [0, []], 'one contradicts');
  known = alone;
  assert.deepEqual([await ticks(), node.home], [5, []], 'it was not known yet');
  await world.nodes.leave(rival.identity);
  assert.deepEqual([await ticks(), node.home], [6, ['10.0.0.0/25']], 'and not again while it has it');
  known = both.map((each) =>
    each.name === 'n2' ? { ...each, home: rival.slice.said.replace('wants', 'has') } : each,
  );
  assert.deepEqual([await ticks(), node.home], [6, []]);
});

test('two that come at once with the same number announce nothing', async (t) => {
  const world = new World();
  const both = [world.node(t, 'n1', 1, 2), world.node(t, 'n2', 1, 2)];
  await world.turn();
  await world.turn();
  assert.deepEqual(
    both.map(({ home }) => home),
    [[], []],
  );
});

test('two that both have slices which contradict each other, because they could not hear each other, give them up', async (t) => {
  const world = new World();
  const [one, two] = [world.node(t, 'n1', 1, 2), world.node(t, 'n2', 2, 3)];
  two.isAway = true;
  await world.turn();
  one.isAway = true;
  two.isAway = false;
  world.now += 60_000_000n;
  await world.turn();
  assert.deepEqual([one.home.length, two.home.length], [1, 3]);
  one.isAway = false;
  await world.turn();
  assert.deepEqual([one.home, two.home], [[], []]);
});

test('slices change node after node: the new ones are announced when the last of the old is gone', async (t) => {
  const world = new World();
  const old = [world.node(t, 'n1', 1, 2), world.node(t, 'n2', 2, 2)];
  await world.turn();
  world.remove(old[0]);
  const one = world.node(t, 'n1', 1, 3);
  await world.turn();
  assert.deepEqual([one.home, old[1]?.home], [[], ['10.0.0.128/25']]);
  world.remove(old[1]);
  const two = world.node(t, 'n2', 2, 3);
  await world.turn();
  assert.deepEqual(one.home, ['10.0.0.0/26', '10.0.0.64/28']);
  assert.deepEqual(two.home, ['10.0.0.80/28', '10.0.0.96/27', '10.0.0.128/27']);
});

test('a node that died in silence contradicts nobody after some seconds', async (t) => {
  const world = new World();
  const old = world.node(t, 'n1', 1, 2);
  await world.turn();
  world.remove(old);
  const next = world.node(t, 'n5', 1, 2);
  await world.turn();
  assert.deepEqual(next.home, []);
  world.now += 4_000_000n;
  await world.turn();
  assert.deepEqual(next.home, ['10.0.0.0/25']);
});

test('pools that a reload changes are announced anew', async (t) => {
  const world = new World();
  const node = world.node(t, 'n1', 1, 2);
  await world.turn();
  node.pools = ['10.0.0.0/24', '10.7.0.0/16'];
  await world.turn();
  await world.turn();
  assert.deepEqual(node.home, ['10.0.0.0/25', '10.7.0.0/17']);
});

test('without slices, above their number and with another return path there is nothing to say', async (t) => {
  const world = new World();
  const all = [world.node(t, 'n1', 1, 0), world.node(t, 'n3', 3, 2), world.node(t, 'n2', 2, 2, 'none')];
  await world.turn();
  assert.deepEqual(all.map(({ slice, home }) => [slice.said, home]), [['', []], ['', []], ['', []]]); // prettier-ignore
});

class World {
  now = 1_800_000_000_000_000n;
  readonly nodes = new MemoryNodes(() => this.now);
  readonly #all = new Set<Node>();

  node(
    t: { after: (end: () => void) => void },
    name: string,
    number: number,
    slices: number,
    returnPath: Settings['returnPath'] = 'routed',
  ): Node {
    const node = new Node(this, { name, number, slices, returnPath });
    t.after(() => node.slice.close());
    this.#all.add(node);
    return node;
  }

  remove(node: Node | undefined): void {
    if (node) this.#all.delete(node);
  }

  /** A second: all tell, then all look. */
  async turn(): Promise<void> {
    for (const node of this.#all) await node.beat();
    for (const node of this.#all) await node.slice.handleTick();
    for (const node of this.#all) await node.beat();
  }
}

interface Facts {
  name: string;
  number: number;
  slices: number;
  returnPath: Settings['returnPath'];
}

let incarnations = 0;

class Node {
  readonly identity;
  readonly slice: HomeSlice;
  home: readonly string[] = [];
  pools = ['10.0.0.0/24'];
  /** The store is away for it. */
  isAway = false;
  isIsolated = false;
  /** How often it has read the table. */
  lists = 0;
  known: (() => readonly ListedNode[]) | undefined;
  readonly #world: World;
  readonly #number: number;

  constructor(world: World, facts: Facts) {
    this.#world = world;
    this.#number = facts.number;
    this.identity = { name: facts.name, incarnation: `i${(incarnations += 1)}` };
    this.slice = new HomeSlice({
      nodes: {
        list: async () => {
          this.lists += 1;
          if (this.isAway) throw new StoreUnavailable('it is away');
          return world.nodes.list();
        },
      },
      known: () => this.known?.(),
      node: this.identity,
      settings: () => settingsOf(this.pools, facts),
      returnPath: { settle: (home) => void (this.home = home) },
      log: createLog({ name: 'test', level: 'silent' }),
      isolated: () => this.isIsolated,
    });
  }

  async beat(): Promise<void> {
    if (this.isAway) return;
    const number = this.#number;
    await this.#world.nodes.heartbeat(
      {
        ...this.identity,
        number,
        address: '',
        version: '',
        tunnels: 0,
        unready: false,
        home: this.slice.said,
      },
      this.#world.now,
    );
  }
}

function settingsOf(pools: readonly string[], { number, slices, returnPath }: Facts): Settings {
  const slicesLine = returnPath === 'routed' ? `, slices: ${slices}` : '';
  const parsed = parseSettings(
    `server-cert: c\nserver-key: k\nipv4-network: [${pools.join(', ')}]\nreturn-path: ${returnPath}\n` +
      `node: { name: n, number: ${number}${slicesLine} }\n`,
    '/etc/sallyport.yaml',
  );
  return 'settings' in parsed ? parsed.settings : assert.fail(parsed.errors.join());
}
