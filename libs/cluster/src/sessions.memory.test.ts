import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { systemClock } from './clock.ts';
import { MemoryEventLog } from './events.memory.ts';
import type { Fact } from './events.ts';
import { Journal } from './journal.ts';
import { sampleClaim, sampleLogin, TestClock } from './session.fake.ts';
import { sessionsContract } from './sessions.contract.ts';
import { CONNECTS_KEPT, MemorySessions, TOMBSTONES_LIMIT, WAITING_PER_USER } from './sessions.memory.ts';
import { hashToken, newToken } from './tokens.ts';

const folders: string[] = [];
after(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true }))));

sessionsContract('in memory', (clock) => MemorySessions.open({ clock }));

sessionsContract('in memory, with a journal', async (clock) => {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-journal-'));
  folders.push(folder);
  return MemorySessions.open({ clock, journal: await Journal.open(folder) });
});

describe('bounds of the memory form', () => {
  const login = (sessions: MemorySessions, user: string) =>
    sessions.create(sampleLogin(hashToken(newToken()), user, { cookieTimeoutSeconds: 0 }));

  it('ends the session without a tunnel that waits longest when one user has too many', async () => {
    const clock = new TestClock();
    const sessions = await MemorySessions.open({ clock: clock.read });
    const connected = await login(sessions, 'bob');
    assert.ok((await sessions.claim(sampleClaim(connected.tokenHash, 'c'))).ok);
    const waiting = [];
    for (let i = 0; i < WAITING_PER_USER; i++) {
      waiting.push(await login(sessions, 'bob'));
      if (i === 0) clock.pass(1);
    }
    assert.equal((await sessions.list()).length, WAITING_PER_USER + 1);
    await login(sessions, 'alice');
    assert.equal((await sessions.get(waiting[0]?.id ?? ''))?.state, 'authed');
    await login(sessions, 'bob');
    assert.equal((await sessions.get(waiting[0]?.id ?? ''))?.endReason, 'replaced');
    assert.equal((await sessions.list()).length, WAITING_PER_USER + 2);
    await sessions.close();
  });

  it('forgets the oldest tombstones when there are too many', async () => {
    const sessions = await MemorySessions.open();
    const ended = [];
    for (let i = 0; i <= TOMBSTONES_LIMIT; i++) {
      const session = await login(sessions, `u${i}`);
      await sessions.end(session.id, 'logout');
      ended.push(session.id);
    }
    await sessions.sweep();
    assert.equal(await sessions.get(ended[0] ?? ''), undefined);
    assert.equal((await sessions.get(ended[1] ?? ''))?.state, 'closed');
    await sessions.close();
  });

  it('remembers enough connections of a session to know a late repetition, and no more', async () => {
    const sessions = await MemorySessions.open();
    const session = await login(sessions, 'bob');
    const claim = (number: number) => sessions.claim(sampleClaim(session.tokenHash, `c${number}`));
    for (let i = 0; i <= CONNECTS_KEPT; i++) assert.ok((await claim(i)).ok);
    assert.deepEqual(await claim(1), { ok: false, reason: 'superseded' });
    assert.ok((await claim(0)).ok, 'forgotten: a claim like any other');
    await sessions.close();
  });

  it('refuses the same token twice as a fault', async () => {
    const sessions = await MemorySessions.open();
    await sessions.create(sampleLogin('f00d'));
    await assert.rejects(sessions.create(sampleLogin('f00d')), /exists already/);
    assert.equal((await sessions.list()).length, 1);
    await sessions.close();
  });

  it('appends each transition to the event log, in order, with n counting up', async () => {
    const events = new MemoryEventLog();
    const heard: Fact[] = [];
    events.follow((fact) => heard.push(fact));
    const sessions = await MemorySessions.open({ events });
    const session = await login(sessions, 'bob');
    const claim = await sessions.claim(sampleClaim(session.tokenHash, 'c1'));
    assert.ok(claim.ok);
    const usage = { rxBytes: 1n, txBytes: 1n, activeAt: 0n };
    await sessions.checkpoint(session.id, claim.lease, usage);
    await sessions.park(session.id, claim.lease, 'dpd-timeout', usage);
    await sessions.claim(sampleClaim(session.tokenHash, 'c2', { node: { name: 'n2', incarnation: 'i' } }));
    await sessions.end(session.id, 'logout');
    await new Promise((go) => setImmediate(go));
    const facts = heard.map((fact) => {
      if (!('n' in fact)) throw new Error('not of a session');
      const detail =
        fact.type === 'claimed' ? [fact.resumed, fact.moved] : 'reason' in fact ? [fact.reason] : [];
      return [fact.n, fact.type, ...detail];
    });
    assert.deepEqual(facts, [
      [1, 'started'],
      [2, 'claimed', false, false],
      [3, 'stats'],
      [4, 'parked', 'dpd-timeout'],
      [5, 'claimed', true, true],
      [6, 'ended', 'logout'],
    ]);
    await sessions.close();
  });

  it("has a clock that goes on evenly, however the machine's is set", async (t) => {
    const clock = systemClock();
    const first = clock();
    assert.ok(first > 1_700_000_000_000_000n);
    const hour = 3_600_000;
    for (const step of [hour, -hour]) {
      const set = t.mock.method(Date, 'now', () => Number(first / 1000n) + step);
      const before = clock();
      await new Promise((go) => setTimeout(go, 5));
      const passed = clock() - before;
      assert.ok(passed > 0n && passed < 60_000_000n, `${passed} us`);
      assert.ok(systemClock()() - before < 60_000_000n, 'a second one agrees');
      set.mock.restore();
    }
  });
});
