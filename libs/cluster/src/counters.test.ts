import assert from 'node:assert/strict';
import { after, before, it } from 'node:test';
import { countersContract } from './counters.contract.ts';
import { MemoryCounters } from './counters.memory.ts';
import { RedisCounters } from './counters.redis.ts';
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

countersContract('in memory', (clock) => Promise.resolve(new MemoryCounters(clock)));

countersContract('in Redis', async (clock) => {
  const redis = await Redis.open({ ...server.settings, cluster: `counters-${opened.length}` }, { clock });
  opened.push(redis);
  return new RedisCounters(redis);
});

it('in memory, counts are bounded: what is over goes first, then the oldest', async () => {
  const clock = new TestClock();
  const counters = new MemoryCounters(clock.read, 3);
  await counters.add('k', 'short', 1);
  await counters.add('k', 'a', 60);
  await counters.add('k', 'b', 60);
  clock.pass(2);
  await counters.add('k', 'c', 60);
  assert.equal(await counters.read('k', 'a'), 1);
  await counters.add('k', 'd', 60);
  assert.equal(counters.size, 3);
  assert.deepEqual([await counters.read('k', 'a'), await counters.read('k', 'd')], [0, 1]);
});
