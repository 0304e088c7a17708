import { after, before } from 'node:test';
import { nodesContract } from './nodes.contract.ts';
import { MemoryNodes } from './nodes.memory.ts';
import { RedisNodes } from './nodes.redis.ts';
import { RedisServer } from './redis-server.fake.ts';
import { Redis } from './redis.ts';

let server: RedisServer;
const opened: Redis[] = [];

before(async () => {
  server = await RedisServer.start();
});
after(async () => {
  await Promise.all(opened.map((redis) => redis.close()));
  await server.stop();
});

nodesContract('in memory', (clock) => Promise.resolve(new MemoryNodes(clock)));

nodesContract('in Redis', async (clock) => {
  const redis = await Redis.open({ ...server.settings, cluster: `nodes-${opened.length}` }, { clock });
  opened.push(redis);
  return new RedisNodes(redis);
});
