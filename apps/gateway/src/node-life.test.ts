import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { createLog } from '@sallyport/chassis';
import { MemoryNodes, ServiceUnavailable, StoreUnavailable, type InsideRequest } from '@sallyport/cluster';
import type { Reason } from '@sallyport/protocol';
import { DRAIN_DEADLINE_SECONDS, LEAST_WAVE, NodeLife, WAVES } from './node-life.ts';

/* Its clock is moved by hand; handleTick is what its timer calls each second. */

const clock = { ms: 0 };
const tunnels = {
  ids: [] as number[],
  lastId: 0,
  refusing: undefined as Reason | undefined,
  get size() {
    return this.ids.length;
  },
  connect(count: number) {
    for (let i = 0; i < count; i++) this.ids.push((this.lastId += 1));
  },
  async moveAway(count: number, upTo: number) {
    const leaving = this.ids.filter((id) => id <= upTo).slice(0, count);
    this.ids = this.ids.filter((id) => !leaving.includes(id));
    return leaving.length;
  },
  tunnels: async () => [],
  disconnect: async () => 0,
  abandon: () => 0,
  release: () => undefined,
};
let nodes: MemoryNodes;
let life: NodeLife;

beforeEach(async () => {
  Object.assign(clock, { ms: 0 });
  Object.assign(tunnels, { ids: [], lastId: 0, refusing: undefined });
  nodes = new MemoryNodes(() => BigInt(clock.ms) * 1000n);
  life = started();
  await life.handleTick();
});

test('a close waits for the heartbeat under way, which would write the record of a node that has left', async () => {
  let answer = (): void => assert.fail('no heartbeat');
  const reached = new Promise<void>((resolve) => (answer = resolve));
  const beat = nodes.heartbeat.bind(nodes);
  nodes.heartbeat = async (...report) => (await reached, beat(...report));
  const ticked = life.handleTick();
  const left = life.close().then(() => nodes.leave({ name: 'n1', incarnation: 'i' }));
  answer();
  await Promise.all([left, ticked]);
  assert.deepEqual(await nodes.list(), []);
});

test('a drain by an operator anywhere is seen with the next heartbeat: 404, no logins, and back', async () => {
  const asked: unknown[] = [];
  const portal = life.guarded(async (request) => (asked.push(request), ANSWER));
  await portal(REQUEST);
  assert.deepEqual(life.notReady(), []);
  assert.equal(await nodes.drain('n1', true), true);
  await second();
  assert.deepEqual(life.notReady(), ['draining']);
  assert.equal((await life.status()).state, 'draining');
  await assert.rejects(
    portal(REQUEST),
    (error) => error instanceof ServiceUnavailable && error.reason === 'draining',
  );
  assert.equal(asked.length, 1);
  await nodes.drain('n1', false);
  await second();
  assert.deepEqual(life.notReady(), []);
  await portal(REQUEST);
  assert.equal(asked.length, 2);
});

test('tunnels move in waves after balancers have seen it; who comes back stays until the deadline', async () => {
  tunnels.connect(900);
  await life.drain(true);
  await second();
  await second();
  assert.equal(tunnels.size, 900);
  await second();
  assert.equal(tunnels.size, 900 - 900 / WAVES);
  for (let i = 0; i < WAVES; i++) await second();
  assert.equal(tunnels.size, 0);
  tunnels.connect(5);
  for (let i = 0; i < 60; i++) await second();
  assert.equal(tunnels.size, 5);
  assert.equal(tunnels.refusing, undefined);
  clock.ms = DRAIN_DEADLINE_SECONDS * 1000;
  await second();
  assert.deepEqual([tunnels.size, tunnels.refusing], [0, 'draining']);
  await life.drain(false);
  assert.equal(tunnels.refusing, undefined);
});

test('a few tunnels go in one wave', async () => {
  tunnels.connect(LEAST_WAVE);
  await life.drain(true);
  for (let i = 0; i < 3; i++) await second();
  assert.equal(tunnels.size, 0);
});

test('a process that is started again while its node drains goes on draining', async () => {
  await life.drain(true);
  const again = started();
  await again.handleTick();
  assert.deepEqual(again.notReady(), ['draining']);
});

test('a store that is away is told to people and not to balancers, and the drain goes on', async () => {
  tunnels.connect(1);
  await life.drain(true);
  nodes.heartbeat = () => Promise.reject(new StoreUnavailable('away'));
  for (let i = 0; i < 4; i++) await second();
  assert.deepEqual(life.notes(), ['the session store cannot be reached']);
  assert.deepEqual(life.notReady(), ['draining']);
  assert.equal(tunnels.size, 0);
});

function started(): NodeLife {
  const made = new NodeLife({
    ...{ nodes, tunnels },
    lifecycle: {
      status: () => ({ state: 'online', version: '1', node: 'n1', revision: 'r', startedAt: 0n }),
    },
    announcement: { name: 'n1', incarnation: 'i', number: 1, address: '' },
    log: createLog({ name: 'test', level: 'silent' }),
    now: () => BigInt(clock.ms) * 1000n,
    monotonic: () => clock.ms,
  });
  // Its own clock stands still.
  void made.close();
  return made;
}

async function second(): Promise<void> {
  clock.ms += 1000;
  await life.handleTick();
}

const ANSWER = { status: 200, headers: [], body: new Uint8Array() };
const REQUEST: InsideRequest = {
  method: 'POST',
  target: '/',
  headers: {},
  body: new Uint8Array(),
  facts: { clientAddress: '', serverName: '', servedLeafSha1: '', tlsVersion: '' },
};
