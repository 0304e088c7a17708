import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLog } from '@sallyport/chassis';
import type { Release } from '@sallyport/cluster';
import { MAX_WAITING_RELEASES, RELEASES_PER_CALL, Releases } from './releases.ts';

test('what is taken in one turn goes in one call, what comes meanwhile in the next', async () => {
  const { releases, calls, answer } = opened();
  releases.add(N1, release(1));
  releases.add(N1, release(2));
  await settled();
  assert.deepEqual(calls, [['n1', [1n, 2n]]]);
  releases.add(N1, release(3));
  releases.add(N1, release(4));
  await settled();
  assert.equal(calls.length, 1, 'one call at a time');
  answer();
  await settled();
  assert.deepEqual(calls.slice(1), [['n1', [3n, 4n]]]);
});

test('a process that is dead, or that is this one, is not called', async () => {
  const { releases, calls } = opened();
  releases.add({ name: 'n1', incarnation: 'older' }, release(1));
  await settled();
  assert.deepEqual(calls, []);
});

test('a call that fails is nothing: the next claim calls again', async () => {
  const { releases, calls, fail, answer } = opened();
  releases.add(N1, release(1));
  await settled();
  fail();
  await settled();
  releases.add(N1, release(2));
  await settled();
  answer();
  assert.deepEqual(calls, [
    ['n1', [1n]],
    ['n1', [2n]],
  ]);
});

test('a node that is slow holds up no other, and what waits for it is bounded', async () => {
  const { releases, calls, answer } = opened();
  releases.add(N1, release(0));
  await settled();
  for (let at = 1; at <= MAX_WAITING_RELEASES + 5; at++) releases.add(N1, release(at));
  releases.add({ name: 'n2', incarnation: 'i' }, release(7));
  await settled();
  assert.deepEqual(calls.at(-1), ['n2', [7n]]);
  for (let turn = 0; turn < MAX_WAITING_RELEASES / RELEASES_PER_CALL + 2; turn++) {
    answer();
    await settled();
  }
  const sent = calls.filter(([address]) => address === 'n1').flatMap(([, epochs]) => epochs);
  assert.equal(sent.length, MAX_WAITING_RELEASES + 1);
  assert.ok(calls.every(([, epochs]) => epochs.length <= RELEASES_PER_CALL));
});

function opened() {
  const calls: [string, bigint[]][] = [];
  const open: { resolve: () => void; reject: (error: Error) => void }[] = [];
  const releases = new Releases({
    peers: { addressOf: ({ name, incarnation }) => (incarnation === 'i' ? name : undefined) },
    client: async (address) => ({
      release: (batch) => {
        calls.push([address, batch.map(({ upToEpoch }) => upToEpoch)]);
        return new Promise((resolve, reject) => open.push({ resolve, reject }));
      },
    }),
    log: createLog({ name: 'test', level: 'silent' }),
  });
  return {
    ...{ releases, calls },
    answer: () => open.splice(0).forEach(({ resolve }) => resolve()),
    fail: () => open.splice(0).forEach(({ reject }) => reject(new Error('cut'))),
  };
}

function release(epoch: number): Release {
  return { sessionId: `s${epoch}`, upToEpoch: BigInt(epoch) };
}

async function settled(): Promise<void> {
  await new Promise(setImmediate);
}

const N1 = { name: 'n1', incarnation: 'i' };
