import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FACTS_KEPT, FOLLOWER_BACKLOG, MemoryEventLog } from './events.memory.ts';
import type { Fact } from './events.ts';

const fact = (number: number): Fact => ({
  v: 1,
  at: BigInt(number),
  type: 'admin.changed',
  verb: 'lock',
  subject: 'bob',
});
const facts = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => fact(from + i));
const turn = () => new Promise((go) => setImmediate(go));

describe('the event log in memory', () => {
  it('gives the last facts, oldest first', () => {
    const log = new MemoryEventLog(3);
    assert.deepEqual(log.recent(5), []);
    log.append(facts(1, 3));
    assert.deepEqual(log.recent(5), facts(1, 3));
    log.append(facts(3, 6));
    assert.deepEqual(log.recent(5), facts(3, 6));
    assert.deepEqual(log.recent(2), facts(4, 6));
    assert.deepEqual(log.recent(0), []);
  });

  it('keeps no counters, but delivers them', async () => {
    const log = new MemoryEventLog();
    const heard: Fact[] = [];
    log.follow((next) => heard.push(next));
    const usage = { activeAt: 1n, rxBytes: 1n, txBytes: 1n };
    const stats: Fact = { v: 1, type: 'stats', sessionId: 's', epoch: 1n, n: 3, at: 1n, ...usage };
    log.append([fact(1), stats]);
    await turn();
    assert.deepEqual(heard, [fact(1), stats]);
    assert.deepEqual(log.recent(9), [fact(1)]);
  });

  it('keeps a bounded number', () => {
    const log = new MemoryEventLog();
    log.append(facts(0, FACTS_KEPT + 10));
    assert.deepEqual(log.recent(FACTS_KEPT + 10), facts(10, FACTS_KEPT + 10));
  });

  it('delivers in order to each follower, not inside append, until it stops', async () => {
    const log = new MemoryEventLog();
    const heard: Fact[] = [];
    const stop = log.follow((next) => heard.push(next));
    log.append(facts(0, 2));
    assert.deepEqual(heard, []);
    await turn();
    assert.deepEqual(heard, facts(0, 2));
    log.append(facts(2, 3));
    stop();
    await turn();
    assert.deepEqual(heard, facts(0, 2));
  });

  it('loses the oldest facts for a follower that is behind, and counts them', async () => {
    const log = new MemoryEventLog();
    const heard: Fact[] = [];
    log.follow((next) => heard.push(next));
    log.append(facts(0, FOLLOWER_BACKLOG));
    log.append(facts(FOLLOWER_BACKLOG, FOLLOWER_BACKLOG + 5));
    await turn();
    assert.deepEqual(heard, facts(5, FOLLOWER_BACKLOG + 5));
    assert.equal(log.lost, 5);
  });

  it('drops a follower that throws, and only that one', async () => {
    const log = new MemoryEventLog();
    const heard: Fact[] = [];
    let calls = 0;
    log.follow(() => {
      calls++;
      throw new Error('broken');
    });
    log.follow((next) => heard.push(next));
    log.append(facts(0, 3));
    await turn();
    log.append(facts(3, 4));
    await turn();
    assert.equal(calls, 1);
    assert.deepEqual(heard, facts(0, 4));
  });
});
