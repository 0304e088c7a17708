import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { nodesContract } from './nodes.contract.ts';
import { MemoryNodes } from './nodes.memory.ts';
import { RedisNodes } from './nodes.redis.ts';
import { RedisServer } from './redis-server.fake.ts';
import { Redis } from './redis.ts';
import { TestClock } from './session.fake.ts';
import { RedisSessions } from './sessions.redis.ts';

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

test('two processes of one name: the one that was announced last stays, at once; where that is forgotten, the one that is heard', async () => {
  const clock = new TestClock();
  const settings = { ...server.settings, cluster: 'nodes-of-one-name' };
  const redis = await Redis.open(settings, { clock: clock.read, windowMicros: 0n });
  opened.push(redis);
  const [nodes, sessions] = [new RedisNodes(redis), new RedisSessions({ redis })];
  const beat = (incarnation: string) =>
    nodes.heartbeat(
      { name: 'n1', incarnation, number: 1, address: '', version: '', tunnels: 0, unready: false },
      clock.now,
    );
  await sessions.announce({ name: 'n1', incarnation: 'first' });
  await beat('first');
  await sessions.announce({ name: 'n1', incarnation: 'second' });
  await assert.rejects(beat('first'), { name: 'NodeReplaced' });
  await beat('second');
  clock.pass(3600);
  await assert.rejects(beat('first'), { name: 'NodeReplaced' }, 'it woke late');
  await beat('second');
  // A primary that never heard of the third one.
  await assert.rejects(beat('third'), { name: 'NodeReplaced' });
  clock.pass(4);
  await beat('third');
  await assert.rejects(beat('second'), { name: 'NodeReplaced' });
});
