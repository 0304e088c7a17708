import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { Log } from '@sallyport/chassis';
import { QUIET } from './peers.fake.ts';
import { causeOf, ReplicaLost, Replicas, type Replica } from './replicas.ts';

test('a call is given up when two checks that began after it got no answer, not for older ones', async (t) => {
  const { replicas, replica, clock } = await opened(t);
  const check = async (answer: 'serves' | 'silent') => {
    replica.answer = answer;
    clock.now += 1;
    replicas.checkAll();
    await turn();
  };
  await check('silent');
  await check('silent');
  clock.now += 1;
  // It has just come back, and a check that began before is the last thing heard of it.
  const call = replicas.call({ repeatable: true, deadlineMs: 60_000 }, (_replica, signal) => given(signal));
  const ended = assert.rejects(call, /given up/);
  await check('silent');
  assert.equal(replica.givenUp, false, 'one check says nothing');
  await check('silent');
  await ended;
});

test('a check that is answered in between starts the count anew', async (t) => {
  const { replicas, replica, clock } = await opened(t);
  const call = replicas.call({ repeatable: true, deadlineMs: 60_000 }, (_replica, signal) => given(signal));
  for (const answer of ['silent', 'serves', 'silent'] as const) {
    replica.answer = answer;
    clock.now += 1;
    replicas.checkAll();
    await turn();
  }
  assert.equal(replica.givenUp, false);
  replica.done();
  assert.equal(await call, 'done');
});

test('one that refuses new connections finishes the calls that it has', async (t) => {
  const { replicas, replica } = await opened(t);
  const call = replicas.call({ repeatable: true, deadlineMs: 60_000 }, (_replica, signal) => given(signal));
  const refused = async () => Promise.reject(new ReplicaLost('nobody answers', { unsent: true }));
  await assert.rejects(replicas.call({ repeatable: true, deadlineMs: 60_000 }, refused), /nobody answers/);
  assert.deepEqual(replicas.states, [{ address: 'a:1', health: 'bad' }]);
  replica.done();
  assert.equal(await call, 'done');
});

test('a change to bad is told once with its cause, the change to good once', async (t) => {
  const told: string[] = [];
  const warn = (fields: object) => void told.push('problem' in fields ? String(fields.problem) : '');
  const info = (_fields: object, message: string) => void told.push(message);
  const { replicas, replica } = await opened(t, { ...QUIET, warn, info });
  for (const answer of ['silent', 'silent', 'silent', 'serves', 'serves'] as const) {
    replica.answer = answer;
    replicas.checkAll();
    await turn();
  }
  assert.deepEqual(told, ['no answer: ECONNREFUSED', 'a replica can be used again']);
  assert.equal(causeOf('it takes no new calls'), 'it takes no new calls');
});

let waiting: { resolve: (text: string) => void; signal: AbortSignal } | undefined;

/** Work that ends when the replica says so, or when it is given up. */
function given(signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    waiting = { resolve, signal };
    signal.addEventListener('abort', () => reject(new ReplicaLost('given up', { unsent: false })));
  });
}

async function opened(t: TestContext, log?: Log) {
  const clock = { now: 0 };
  const replica: Replica & { answer: 'serves' | 'silent'; readonly givenUp: boolean; done(): void } = {
    address: 'a:1',
    answer: 'serves',
    check: async () =>
      replica.answer === 'serves'
        ? true
        : Promise.reject(new Error('no answer', { cause: new Error('ECONNREFUSED') })),
    close: () => undefined,
    get givenUp() {
      return waiting?.signal.aborted ?? false;
    },
    done: () => waiting?.resolve('done'),
  };
  // The clock moves with the checks alone and little, so it never seems that our own process was busy.
  const replicas = new Replicas([replica], {
    service: 'auth',
    log,
    checkEveryMs: 3_600_000,
    now: () => clock.now,
  });
  t.after(() => replicas.close());
  // The first check.
  await turn();
  return { replicas, replica, clock };
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
