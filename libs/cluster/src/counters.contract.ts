import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Clock } from './clock.ts';
import type { Counters } from './counters.ts';
import { TestClock } from './session.fake.ts';

/** The rules that every form of Counters keeps. */
export function countersContract(name: string, open: (clock: Clock) => Promise<Counters>): void {
  describe(`counters: ${name}`, () => {
    it('counts from the first one on, for its span', async () => {
      const clock = new TestClock();
      const counters = await open(clock.read);
      assert.equal(await counters.add('failed', '192.0.2.1', 60), 1);
      clock.pass(59);
      assert.equal(await counters.add('failed', '192.0.2.1', 60), 2);
      assert.equal(await counters.read('failed', '192.0.2.1'), 2);
      clock.pass(1);
      assert.equal(await counters.read('failed', '192.0.2.1'), 0);
      assert.equal(await counters.add('failed', '192.0.2.1', 60), 1);
    });

    it('keeps kinds and keys apart, and clears one', async () => {
      const counters = await open(new TestClock().read);
      await counters.add('failed', 'a', 60);
      await counters.add('failed', 'b', 60);
      await counters.add('code', 'a', 60);
      await counters.clear('failed', 'a');
      const counts = [counters.read('failed', 'a'), counters.read('failed', 'b'), counters.read('code', 'a')];
      assert.deepEqual(await Promise.all(counts), [0, 1, 1]);
    });

    it('gives each of many at once another number', async () => {
      const counters = await open(new TestClock().read);
      const counts = await Promise.all(Array.from({ length: 50 }, () => counters.add('code', '123456', 60)));
      assert.equal(new Set(counts).size, 50);
      assert.equal(Math.max(...counts), 50);
    });
  });
}
