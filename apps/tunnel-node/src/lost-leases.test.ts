import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DEADLINE_MILLIS } from '@sallyport/cluster';
import { LOST_SECONDS, LostLeases, MAX_LOST_LEASES } from './lost-leases.ts';

describe('LostLeases', () => {
  it('knows what was lost up to an epoch, and why', () => {
    const lost = new LostLeases();
    lost.add('s', 5n, 'superseded', 0);
    assert.equal(lost.reasonOf('s', 5n), 'superseded');
    assert.equal(lost.reasonOf('s', 6n), undefined);
    assert.equal(lost.reasonOf('other', 1n), undefined);
    lost.add('s', 9n, 'user-locked', 0);
    assert.equal(lost.reasonOf('s', 6n), 'user-locked');
  });

  it('remembers for much longer than a claim may take, with each of its calls at its deadline', () => {
    const callsOfClaim = 5;
    assert.ok(LOST_SECONDS * 1000 >= 5 * callsOfClaim * DEADLINE_MILLIS);
  });

  it('forgets what is old, also when one session is lost again and again', () => {
    const lost = new LostLeases();
    const period = (LOST_SECONDS / 2) * 1000;
    for (let turn = 0; turn < 20; turn += 1) {
      lost.add('busy', BigInt(turn), 'superseded', turn * period);
      lost.add(`once ${turn}`, 1n, 'terminated', turn * period);
      lost.handleTick(turn * period);
    }
    assert.equal(lost.reasonOf('once 0', 1n), undefined);
    assert.equal(lost.reasonOf('busy', 19n), 'superseded');
    assert.equal(lost.size, 3);
  });

  it('holds a bounded number and lets the oldest go', () => {
    const lost = new LostLeases();
    for (let n = 0; n <= MAX_LOST_LEASES; n += 1) lost.add(`${n}`, 1n, 'superseded', 0);
    assert.equal(lost.size, MAX_LOST_LEASES);
    assert.equal(lost.reasonOf('0', 1n), undefined);
    assert.equal(lost.reasonOf('1', 1n), 'superseded');
  });
});
