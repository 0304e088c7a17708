import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { createLog } from '@sallyport/chassis';
import {
  MemoryNodes,
  ServiceUnavailable,
  StoreUnavailable,
  type InsideRequest,
  type Nodes,
} from '@sallyport/cluster';
import type { Reason } from '@sallyport/protocol';
import { CONFIRMED_MS, Isolation, RETURN_MS, SUSPICIOUS_MS } from './isolation.ts';
import { NodeLife } from './node-life.ts';
import { Peers, type PeerSays } from './peers.ts';

/*
 * Several nodes over one table of nodes. Their clock is moved by hand, and each of them reads it from another zero: what
 * they say to each other must hold no time of day.
 */

const clock = { ms: 0 };
let table: MemoryNodes;
let cluster: TestNode[];

beforeEach(() => {
  clock.ms = 0;
  cluster = [];
  table = new MemoryNodes(() => BigInt(clock.ms) * 1000n);
});

test('a node that alone cannot reach the store takes nobody, closes its tunnels after the limit, and comes back by itself', async () => {
  const [n1, n2, n3] = await started(3);
  n1.seesStore = false;
  await pass((SUSPICIOUS_MS + CONFIRMED_MS) / 1000 - 1);
  assert.deepEqual(readiness(), [true, true, true]);
  await pass(3);
  assert.deepEqual(readiness(), [false, true, true]);
  assert.match(n1.life.notReady()[0] ?? '', /^isolated: the session store answers other nodes/);
  assert.deepEqual([n1.tunnels.announcing, n1.tunnels.refusing], [false, 'isolated']);
  await assert.rejects(
    n1.life.guarded(async () => assert.fail('a login went on'))(REQUEST),
    (error) => error instanceof ServiceUnavailable && error.reason === 'isolated',
  );
  await pass(LIMIT_SECONDS - 3);
  assert.deepEqual([n1.tunnels.size, n1.tunnels.left], [5, undefined]);
  await pass(3);
  assert.deepEqual([n1.tunnels.size, n1.tunnels.left], [0, 'isolated']);
  assert.deepEqual([n2.tunnels.size, n3.tunnels.size], [5, 5]);

  n1.seesStore = true;
  await pass(RETURN_MS / 1000 - 1);
  assert.deepEqual(readiness(), [false, true, true], 'its mailbox is read first');
  assert.equal(n1.tunnels.announcing, false);
  await pass(3);
  assert.deepEqual(readiness(), [true, true, true]);
  assert.deepEqual([n1.tunnels.announcing, n1.tunnels.refusing], [true, undefined]);
});

test('a short silence of the store towards one node changes nothing', async () => {
  const [n1] = await started(2);
  n1.seesStore = false;
  await pass((SUSPICIOUS_MS + CONFIRMED_MS) / 1000 - 1);
  n1.seesStore = true;
  await pass(60);
  assert.deepEqual([readiness(), n1.tunnels.changes], [[true, true], 0]);
});

test('a store that is away for all leaves every node ready with its tunnels, also when it comes back to one after the other', async () => {
  const nodes = await started(3);
  const [n1, n2, n3] = nodes;
  for (const node of nodes) node.seesStore = false;
  await pass(300);
  assert.deepEqual(readiness(), [true, true, true]);
  assert.deepEqual(n1.life.notes(), ['the session store cannot be reached']);
  n2.seesStore = true;
  await pass(2);
  n3.seesStore = true;
  n1.seesStore = true;
  await pass(60);
  assert.deepEqual(
    nodes.map(({ life, tunnels }) => [life.notReady(), tunnels.size, tunnels.changes]),
    [0, 0, 0].map(() => [[], 5, 0]),
  );
});

test('an isolated node is one of the cluster again when the store is away for the others too', async () => {
  const [n1, n2] = await started(2);
  n1.seesStore = false;
  await pass(10);
  assert.deepEqual(readiness(), [false, true]);
  n2.seesStore = false;
  await pass(7);
  assert.deepEqual(readiness(), [true, true]);
  await pass(60);
  assert.deepEqual([n1.tunnels.size, n1.tunnels.announcing], [5, true]);
});

test('a node by itself goes on without the store, and so does the last one, whose peers are dead', async () => {
  const [alone] = await started(1);
  alone.seesStore = false;
  await pass(120);
  assert.deepEqual([readiness(), alone.tunnels.size], [[true], 5]);

  cluster = [];
  table = new MemoryNodes(() => BigInt(clock.ms) * 1000n);
  const [last, dead] = await started(2);
  // Its heartbeats end before those of the store do: nobody is asked.
  dead.state = 'dead';
  await pass(5);
  dead.state = 'cut';
  last.seesStore = false;
  await pass(120);
  assert.deepEqual([readiness()[0], last.tunnels.size, dead.asked], [true, 5, 0]);
});

test('a node whose peers crash while the store is away goes on: their machines say so', async () => {
  const [n1, n2] = await started(2);
  n1.seesStore = n2.seesStore = false;
  await pass(30);
  n2.state = 'dead';
  await pass(120);
  assert.deepEqual([readiness()[0], n1.tunnels.size], [true, 5]);
  assert.ok(n2.asked > 0);
});

test('a node that reaches neither the store nor a peer that lived cannot tell, and is isolated after the limit', async () => {
  const [n1, n2] = await started(2);
  n1.seesStore = false;
  n1.seesPeers = false;
  await pass(LIMIT_SECONDS - 1);
  assert.deepEqual(readiness(), [true, true]);
  await pass(2);
  assert.deepEqual(readiness(), [false, true]);
  assert.match(n1.life.notReady()[0] ?? '', /neither the session store nor another node/);
  await pass(LIMIT_SECONDS);
  assert.deepEqual([n1.tunnels.size, n2.tunnels.size], [0, 5]);
  n1.seesStore = n1.seesPeers = true;
  await pass(RETURN_MS / 1000 + 2);
  assert.deepEqual(readiness(), [true, true]);
});

test('what peers say late, when the store answers again, isolates nobody', async () => {
  const asked: ((says: PeerSays[]) => void)[] = [];
  const tunnels = new TestTunnels();
  const isolation = new Isolation({
    peers: { ask: () => new Promise((resolve) => asked.push(resolve)) },
    ...{ tunnels, log: silent, monotonic: () => clock.ms, limitSeconds: () => LIMIT_SECONDS },
  });
  clock.ms = 100_000;
  const late = isolation.handleTick({ answeredAt: 90_000, silentSince: 91_000 });
  clock.ms += CONFIRMED_MS;
  await isolation.handleTick({ answeredAt: clock.ms, silentSince: undefined });
  asked.forEach((resolve) => resolve([{ kind: 'answered', silentMs: 100 }]));
  await late;
  assert.deepEqual([asked.length, isolation.reason, tunnels.changes], [1, undefined, 0]);
});

test('who drains and is isolated says both, and drains on when the store is back', async () => {
  const [n1] = await started(2);
  await n1.life.drain(true);
  n1.seesStore = false;
  await pass(10);
  assert.equal(n1.life.notReady().length, 2);
  n1.seesStore = true;
  await pass(10);
  assert.deepEqual(n1.life.notReady(), ['draining']);
});

/** What stands below a node: enough of Tunnels. */
class TestTunnels {
  size = 5;
  lastId = 5;
  refusing: Reason | undefined;
  left: Reason | undefined;
  /** How often announcing changed. */
  changes = 0;
  #announcing = true;
  get announcing(): boolean {
    return this.#announcing;
  }
  set announcing(wanted: boolean) {
    if (wanted !== this.#announcing) this.changes += 1;
    this.#announcing = wanted;
  }
  abandon(reason: Reason): number {
    const { size } = this;
    Object.assign(this, { size: 0, left: reason });
    return size;
  }
  moveAway = async () => 0;
  tunnels = async () => [];
  disconnect = async () => 0;
  release = () => undefined;
}

class TestNode {
  readonly name: string;
  readonly tunnels = new TestTunnels();
  readonly life: NodeLife;
  seesStore = true;
  seesPeers = true;
  /** `dead`: its machine refuses connections; `cut`: nothing answers there. */
  state: 'up' | 'dead' | 'cut' = 'up';
  /** How often a peer asked it anything. */
  asked = 0;

  constructor(number: number) {
    this.name = `n${number}`;
    const monotonic = () => clock.ms + number * 1_000_000;
    const nodes = this.#nodes();
    const peers = new Peers({
      ...{ nodes, own: this.name, monotonic },
      client: async (address) => this.#reach(address),
      refuses: async (address) => this.seesPeers && nodeAt(address).state === 'dead',
    });
    const isolation = new Isolation({
      ...{ peers, monotonic, log: silent, tunnels: this.tunnels },
      limitSeconds: () => LIMIT_SECONDS,
    });
    this.life = new NodeLife({
      ...{ nodes, peers, isolation, monotonic, log: silent, tunnels: this.tunnels },
      lifecycle: {
        status: () => ({ state: 'online', version: '1', node: this.name, revision: 'r', startedAt: 0n }),
      },
      announcement: { name: this.name, incarnation: 'i', number, address: this.name },
      now: () => BigInt(clock.ms) * 1000n,
    });
    // Its own clock stands still.
    void this.life.close();
  }

  #reach(address: string): NodeLife {
    const peer = nodeAt(address);
    peer.asked += 1;
    if (!this.seesPeers || !peer.seesPeers || peer.state !== 'up') throw new Error('nobody answers');
    return peer.life;
  }

  #nodes(): Nodes {
    const reached = () => {
      if (!this.seesStore) throw new StoreUnavailable('away');
      return table;
    };
    return {
      heartbeat: async (report, now) => reached().heartbeat(report, now),
      list: async () => reached().list(),
      drain: async (name, wanted) => reached().drain(name, wanted),
      leave: async (node) => reached().leave(node),
    };
  }
}

function nodeAt(address: string): TestNode {
  return cluster.find(({ name }) => name === address) ?? assert.fail(address);
}

function readiness(): boolean[] {
  return cluster.map(({ life }) => life.notReady().length === 0);
}

async function started(count: 1): Promise<[TestNode]>;
async function started(count: 2): Promise<[TestNode, TestNode]>;
async function started(count: 3): Promise<[TestNode, TestNode, TestNode]>;
async function started(count: number): Promise<TestNode[]> {
  cluster = Array.from({ length: count }, (_, index) => new TestNode(index + 1));
  await pass(2);
  return cluster;
}

async function pass(seconds: number): Promise<void> {
  for (let i = 0; i < seconds; i++) {
    clock.ms += 1000;
    for (const node of cluster) if (node.state === 'up') await node.life.handleTick();
  }
}

const silent = createLog({ name: 'test', level: 'silent' });
const LIMIT_SECONDS = 10;
const REQUEST: InsideRequest = {
  method: 'POST',
  target: '/',
  headers: {},
  body: new Uint8Array(),
  facts: { clientAddress: '', serverName: '', servedLeafSha1: '', tlsVersion: '' },
};
