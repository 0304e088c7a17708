import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createLog } from '@sallyport/chassis';
import {
  hashToken,
  MemorySessions,
  newToken,
  StoreUnavailable,
  type Assertions,
  type AssertionVerdict,
  type Notice,
  type Session,
} from '@sallyport/cluster';
import { DEFAULT_GRANT, forGrantFields } from '@sallyport/cluster';
import type { Origin } from '@sallyport/protocol';
import { asserting } from './asserting.ts';

const node = { name: 'n1', incarnation: 'first' };
const log = createLog({ name: 'test', level: 'silent' });

describe('asserting what a node holds', () => {
  it('says it at the start, again until it is heard, and in each new reign; what is denied is closed', async () => {
    const held = await oneUp();
    const { assertions, calls, begin } = store();
    const lost: Notice[] = [];
    const tunnels = {
      holdings: () => [held],
      lose: (notices: readonly Notice[]) => void lost.push(...notices),
    };
    calls.push(
      async () => Promise.reject(new StoreUnavailable('away')),
      async () => [{ sessionId: held.id, kept: true }],
    );
    const stop = asserting({ assertions, tunnels, node, log, retryMs: 1 });
    await until(() => calls.length === 0);
    assert.deepEqual(lost, []);

    calls.push(async () => [{ sessionId: held.id, kept: false, reason: 'superseded' }]);
    begin();
    await until(() => lost.length > 0);
    assert.deepEqual(lost, [
      { sessionId: held.id, upToEpoch: held.lease?.epoch ?? 0n, reason: 'superseded' },
    ]);
    stop();
    calls.push(async () => []);
    begin();
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(calls.length, 1, 'stopped');
  });

  it('asserts again when a reign begins while it asserts', async () => {
    const { assertions, calls, begin } = store();
    let done = 0;
    calls.push(
      async () => {
        begin();
        done++;
        return [];
      },
      async () => {
        done++;
        return [];
      },
    );
    const stop = asserting({ assertions, tunnels: { holdings: () => [], lose: () => {} }, node, log });
    await until(() => done === 2);
    stop();
  });
});

/** Answers one call after the other. */
function store() {
  const calls: (() => Promise<AssertionVerdict[]>)[] = [];
  const listeners = new Set<(reign: string) => void>();
  const assertions: Assertions = {
    onNewReign(deliver) {
      listeners.add(deliver);
      return () => listeners.delete(deliver);
    },
    assert: async (as) => {
      assert.deepEqual(as, node);
      return (calls.shift() ?? assert.fail('asserted too often'))();
    },
  };
  return { assertions, calls, begin: () => listeners.forEach((deliver) => deliver('another')) };
}

async function oneUp(): Promise<Session> {
  const sessions = await MemorySessions.open();
  const tokenHash = hashToken(newToken());
  const client = { address: '192.0.2.1', userAgent: '', platform: '', hostname: '' };
  await sessions.create({
    ...{ tokenHash, user: 'alice', profile: 'staff', client, strapKey: '' },
    grant: { ...DEFAULT_GRANT, ipv4Pools: ['10.90.0.0/24'] },
    origins: forGrantFields((): Origin => ({ scope: 'default', name: '' })),
  });
  const claimed = await sessions.claim({
    ...{ tokenHash, node, connectionId: 'c', wantIpv4: true, wantIpv6: false, client, strapKey: '' },
    ...{ mtuBytes: 1400, seenEpoch: 0n },
  });
  await sessions.close();
  return claimed.ok ? claimed.session : assert.fail(claimed.reason);
}

async function until(reached: () => boolean): Promise<void> {
  for (let turn = 0; turn < 12_000 && !reached(); turn++)
    await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(reached());
}
