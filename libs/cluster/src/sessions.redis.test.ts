import { after, before } from 'node:test';
import { RedisServer } from './redis-server.fake.ts';
import { Redis } from './redis.ts';
import { sessionsContract } from './sessions.contract.ts';
import { RedisSessions } from './sessions.redis.ts';

let server: RedisServer;
const opened: Redis[] = [];
let tables = 0;

before(async () => {
  server = await RedisServer.start();
});
after(async () => {
  await Promise.all(opened.map((redis) => redis.close()));
  await server.stop();
});

sessionsContract('in Redis', async (clock) => {
  const settings = { ...server.settings, cluster: `contract-${tables++}` };
  const redis = await Redis.open(settings, { clock, awayMicros: 0n, windowMicros: 0n });
  opened.push(redis);
  return new RedisSessions({ redis, pollMillis: 20 });
});
