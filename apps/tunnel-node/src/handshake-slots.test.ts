import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HandshakeSlots, SLOT_LIMITS, type Candidate, type SlotLimits } from './handshake-slots.ts';
import { TestClock } from './testing/clock.ts';

describe('HandshakeSlots', () => {
  it('keeps slots and places in the queue for others, however many come from one address', () => {
    const slots = open();
    slots.flood('bad', SLOT_LIMITS.handshakesPerAddress + SLOT_LIMITS.waitingPerAddress);
    assert.equal(slots.handshaking('bad'), SLOT_LIMITS.handshakesPerAddress);
    assert.equal(slots.add('bad'), false, 'one more than may wait');
    assert.equal(slots.add('good'), true);
    assert.equal(slots.handshaking('good'), 1);
  });

  it('serves others in time while one address sends a hundred hellos a second and nothing more', () => {
    const slots = open({ handshakes: 100, handshakesPerAddress: 100 });
    for (let second = 0; second < 20; second += 1) {
      slots.flood('bad', 100);
      slots.add('good');
      slots.pass(SLOT_LIMITS.yieldSeconds);
      assert.ok(slots.handshaking('good') >= 1, `in second ${second}`);
      slots.finish('good');
    }
  });

  it('lets a handshake that has had its time yield to one that waits, and not without one', () => {
    const slots = open({ handshakes: 2 });
    slots.flood('slow', 2);
    slots.pass(SLOT_LIMITS.handshakeSeconds - 1);
    assert.equal(slots.handshaking('slow'), 2);
    slots.add('other');
    slots.pass(1);
    assert.deepEqual([slots.handshaking('other'), slots.dropped], [1, ['slow timeout', 'slow timeout']]);
  });

  it('takes the slot for one over its share from its own address', () => {
    const slots = open({ handshakes: 4, handshakesPerAddress: 2 });
    slots.flood('calm', 1);
    slots.flood('crowd', 3);
    slots.pass(SLOT_LIMITS.yieldSeconds);
    assert.deepEqual(slots.dropped, ['crowd timeout']);
    assert.deepEqual([slots.handshaking('calm'), slots.handshaking('crowd')], [1, 2]);
  });

  it('ends those who wait too long', () => {
    const slots = open({ handshakes: 1, yieldSeconds: 100, handshakeSeconds: 100 });
    slots.flood('a', 2);
    slots.pass(SLOT_LIMITS.waitingSeconds);
    assert.deepEqual(slots.dropped, ['a limit']);
  });
});

function open(limits: Partial<SlotLimits> = {}) {
  const clock = new TestClock();
  const busy = new Set<Candidate>();
  const dropped: string[] = [];
  const owner = {
    start: (candidate: Candidate) => void busy.add(candidate),
    drop(candidate: Candidate, cause: string) {
      busy.delete(candidate);
      dropped.push(`${candidate.group} ${cause}`);
    },
  };
  const slots = new HandshakeSlots<Candidate>({ ...SLOT_LIMITS, ...limits }, owner, clock.now);
  const add = (group: string) => slots.add({ group, since: 0 });
  const of = (group: string) => [...busy].filter((candidate) => candidate.group === group);
  return {
    add,
    dropped,
    flood(group: string, count: number) {
      for (let n = 0; n < count; n += 1) add(group);
    },
    handshaking: (group: string) => of(group).length,
    finish(group: string) {
      for (const candidate of of(group)) {
        busy.delete(candidate);
        slots.leave(candidate);
      }
    },
    pass: (seconds: number) => clock.pass(seconds, slots),
  };
}
