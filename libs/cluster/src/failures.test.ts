import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Clock } from './clock.ts';
import { MemoryCounters } from './counters.memory.ts';
import { RedisCounters } from './counters.redis.ts';
import type { Counters } from './counters.ts';
import { FAILURE_SPAN_SECONDS, LoginFailures } from './failures.ts';
import { RedisServer } from './redis-server.fake.ts';
import { Redis } from './redis.ts';
import { TestClock } from './session.fake.ts';

let server: RedisServer;
const opened: Redis[] = [];
before(async () => {
  server = await RedisServer.start();
});
after(async () => {
  await Promise.all(opened.map((redis) => redis.close()));
  await server.stop();
});

/** Each replica has its own connection. */
const FORMS: Record<string, (clock: Clock, replicas: number) => Promise<Counters[]>> = {
  memory: async (clock, replicas) => {
    const counters = new MemoryCounters(clock);
    return Array.from({ length: replicas }, () => counters);
  },
  Redis: async (clock, replicas) => {
    const cluster = `failures-${opened.length}`;
    const open = () => Redis.open({ ...server.settings, cluster }, { clock });
    const all = await Promise.all(Array.from({ length: replicas }, open));
    opened.push(...all);
    return all.map((redis) => new RedisCounters(redis));
  },
};

for (const [name, open] of Object.entries(FORMS)) {
  describe(`failed logins in ${name}`, () => {
    it('40 over 4 replicas count as 40 on one, for the user and for the address, until the span is over', async () => {
      const clock = new TestClock();
      const replicas = (await open(clock.read, 4)).map((counters) => new LoginFailures(counters));
      const seen = await Promise.all(
        Array.from({ length: 10 }, () => replicas).flatMap((all) =>
          all.map((failures) => failures.add('alice', '192.0.2.1')),
        ),
      );
      assert.deepEqual(seen.map((count) => count.user).sort(byNumber), upTo(40));
      assert.deepEqual(seen.map((count) => count.address).sort(byNumber), upTo(40));
      for (const failures of replicas)
        assert.deepEqual(await failures.read('alice', '192.0.2.1'), { user: 40, address: 40 });
      clock.pass(FAILURE_SPAN_SECONDS);
      assert.deepEqual(await replicas[0]?.read('alice', '192.0.2.1'), { user: 0, address: 0 });
    });

    it('counts nobody unknown, and an IPv6 address by its /64', async () => {
      const [counters] = await open(new TestClock().read, 1);
      assert.ok(counters);
      const failures = new LoginFailures(counters);
      assert.deepEqual(await failures.add('', '2001:db8::1'), { user: 0, address: 1 });
      assert.deepEqual(await failures.add('bob', '2001:db8::2:3'), { user: 1, address: 2 });
      assert.deepEqual(await failures.add('bob', ''), { user: 2, address: 0 });
      assert.deepEqual(await failures.read('', '2001:db8:0:1::1'), { user: 0, address: 0 });
    });
  });
}

function byNumber(a = 0, b = 0): number {
  return a - b;
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, at) => at + 1);
}
