import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test } from 'node:test';
import type { ListedNode } from '@sallyport/cluster';
import { ASKED_AT_ONCE, Peers } from './peers.ts';

test('a few of the living are asked, each time others, and never this node or one that is dead', async () => {
  const asked: string[] = [];
  const records = Array.from({ length: 12 }, (_, at) => record(`n${at}`, at !== 3));
  const peers = opened(records, async (address) => void asked.push(address));
  await peers.look();
  for (let round = 0; round < 40; round++) assert.equal((await peers.ask()).length, ASKED_AT_ONCE);
  assert.deepEqual(
    [...new Set(asked)].sort(),
    records.map(({ address }) => address).filter((address) => address !== 'n0:1' && address !== 'n3:1').sort(), // prettier-ignore
  );
});

test('a process has an address while it is the living one of its name', async () => {
  const peers = opened([record('n1'), record('n2', false), record('n0')]);
  await peers.look();
  const addressOf = (name: string, incarnation: string) => peers.addressOf({ name, incarnation });
  assert.equal(addressOf('n1', 'i'), 'n1:1');
  assert.equal(addressOf('n1', 'older'), undefined);
  assert.equal(addressOf('n2', 'i'), undefined, 'dead');
  assert.equal(addressOf('n0', 'i'), undefined, 'this node');
  assert.equal(addressOf('n9', 'i'), undefined);
});

test('the table is read less often the more nodes read it', async () => {
  let reads = 0;
  let now = 0;
  const records = Array.from({ length: 500 }, (_, at) => record(`n${at}`));
  const peers = new Peers({
    nodes: { list: async () => ((reads += 1), records) },
    ...{ own: 'n0', client: () => assert.fail('asked'), monotonic: () => now },
  });
  for (; now < 20_000; now += 1000) await peers.look();
  assert.equal(reads, 2);
});

test('a machine that says that nobody listens is told from one that says nothing', async () => {
  const server = createServer();
  const port = await new Promise<number>((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      const bound = server.address();
      resolve(typeof bound === 'object' ? (bound?.port ?? 0) : 0);
    });
  });
  const failing = () => Promise.reject(new Error('no answer'));
  const peers = opened([{ ...record('n1'), address: `127.0.0.1:${port}` }], failing);
  await peers.look();
  // It takes connections and says nothing, like a frozen process.
  assert.deepEqual(await peers.ask(), [{ kind: 'silent' }]);
  await new Promise((resolve) => server.close(resolve));
  assert.deepEqual(await peers.ask(), [{ kind: 'gone' }]);
});

test('a peer that has not reached the store yet has answered all the same', async () => {
  const peers = opened([record('n1')], async () => undefined);
  await peers.look();
  assert.deepEqual(await peers.ask(), [{ kind: 'answered', silentMs: Infinity }]);
});

function opened(
  records: ListedNode[],
  storeSilence?: (address: string) => Promise<number | undefined | void>,
) {
  return new Peers({
    nodes: { list: async () => records },
    own: 'n0',
    client: async (address) => ({
      storeSilence: async () => (await storeSilence?.(address)) ?? undefined,
      release: () => assert.fail('released'),
    }),
    monotonic: () => 0,
  });
}

function record(name: string, alive = true): ListedNode {
  return {
    ...{ name, incarnation: 'i', number: 1, address: `${name}:1`, version: '1', tunnels: 0 },
    ...{ unready: false, drain: false, beatAt: 0n, clockOffset: 0n, alive },
  };
}
