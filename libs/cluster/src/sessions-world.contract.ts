import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach } from 'node:test';
import type { Grant, Reason } from '@sallyport/protocol';
import type { Clock } from './clock.ts';
import { sampleClaim, sampleLogin, TestClock } from './session.fake.ts';
import type { Lease, NodeIdentity, Session } from './session.ts';
import type { Claimed, ClaimRequest, Notice, Sessions, Usage } from './sessions.ts';
import { hashToken, newToken } from './tokens.ts';

export type ContractWorld = ReturnType<typeof contractWorld>;

/** What the suites of the session table share: before each test of the suite around it a new table and a new clock. */
export function contractWorld(open: (clock: Clock) => Promise<Sessions>) {
  let clock: TestClock;
  let sessions: Sessions;

  beforeEach(async () => {
    clock = new TestClock();
    sessions = await open(clock.read);
  });

  afterEach(() => sessions.close());

  const login = async (user = 'alice', grant: Partial<Grant> = {}): Promise<Session> =>
    sessions.create(sampleLogin(hashToken(newToken()), user, grant));
  const connect = (session: Session, changes: Partial<ClaimRequest> = {}) =>
    sessions.claim(sampleClaim(session.tokenHash, randomUUID(), changes));
  const up = async (session: Session, changes: Partial<ClaimRequest> = {}): Promise<Claimed> => {
    const claimed = await connect(session, changes);
    assert.ok(claimed.ok, claimed.ok ? '' : `claim refused: ${claimed.reason}`);
    return claimed;
  };
  const refused = async (session: Session, reason: Reason, changes: Partial<ClaimRequest> = {}) =>
    assert.deepEqual(await connect(session, changes), { ok: false, reason });
  const get = async (session: Session): Promise<Session> => {
    const found = await sessions.get(session.id);
    assert.ok(found);
    return found;
  };
  const listen = (node: NodeIdentity): Notice[] => {
    const heard: Notice[] = [];
    sessions.notices(node, (notices) => heard.push(...notices));
    return heard;
  };
  const until = async (reached: () => boolean): Promise<void> => {
    for (let turn = 0; turn < 6000 && !reached(); turn++) await new Promise((go) => setTimeout(go, 10));
  };
  const delivered = async (heard: Notice[], count: number): Promise<void> => {
    await until(() => heard.length >= count);
    assert.equal(heard.length, count);
  };

  /** Nothing of a lost lease changes the record. */
  async function ignores(session: Session, lease: Lease): Promise<void> {
    const before = await get(session);
    assert.equal(await sessions.park(session.id, lease, 'connection-lost', used(9n, 9n)), false);
    assert.equal(await sessions.checkpoint(session.id, lease, used(9n, 9n)), false);
    assert.equal(await sessions.endByNode(session.id, lease, 'user-disconnect', used(9n, 9n)), false);
    assert.deepEqual(await get(session), before);
  }

  function used(rxBytes: bigint, txBytes: bigint): Usage {
    return { rxBytes, txBytes, activeAt: 0n };
  }

  return {
    get sessions() {
      return sessions;
    },
    get clock() {
      return clock;
    },
    ...{ login, connect, up, refused, get, listen, until, delivered, ignores, used },
  };
}

export const here: NodeIdentity = { name: 'n1', incarnation: 'i1' };
export const hereAgain: NodeIdentity = { name: 'n1', incarnation: 'i2' };
export const elsewhere: NodeIdentity = { name: 'n2', incarnation: 'i1' };

/** Numbers from 0 to below `limit`, the same in each run (mulberry32). */
export function seeded(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return limit === 0 ? 0 : ((t ^ (t >>> 14)) >>> 0) % limit;
  };
}
