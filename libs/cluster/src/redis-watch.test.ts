import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Metrics } from '@sallyport/chassis';
import { recordingLog } from './outbox.fake.ts';
import { RedisServer } from './redis-server.fake.ts';
import { RedisWatch } from './redis-watch.ts';
import { Redis } from './redis.ts';

let server: RedisServer;
let redis: Redis;

before(async () => {
  server = await RedisServer.start();
  redis = await Redis.open(server.settings);
});
after(async () => {
  await redis.close();
  await server.stop();
});

test('a setting of Redis that is changed while it runs is warned of once, and is a number for alerts until it is good again', async () => {
  const [said, metrics] = [[] as string[], new Metrics()];
  const watch = new RedisWatch({
    call: (command, ...args) => redis.call(command, ...args),
    ...{ settings: server.settings, log: recordingLog(said), metrics },
  });
  const seen = async () => {
    await watch.look();
    return /^sallyport_redis_problems (\d+)$/m.exec(await metrics.text())?.[1];
  };
  assert.equal(await seen(), '0');
  await redis.call('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru');
  assert.deepEqual([await seen(), await seen()], ['1', '1']);
  assert.equal(said.length, 1, String(said));
  await redis.call('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
  assert.equal(await seen(), '0');
  watch.close();
});
