import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Redis } from '@sallyport/cluster';
import { RedisServer } from '@sallyport/cluster/testing';
import { handleReply } from './login.ts';
import { LIMITS, login, loginsContract } from './logins.contract.ts';
import { RedisLogins } from './logins.redis.ts';
import { LOGIN_REST_MS, MemoryLogins } from './logins.ts';

let server: RedisServer;
const opened: Redis[] = [];

before(async () => {
  server = await RedisServer.start();
});
after(async () => {
  await Promise.all(opened.map((redis) => redis.close()));
  await server.stop();
});

loginsContract('in memory', (now, max) => new MemoryLogins(now, max));
loginsContract('in Redis', async (now, max) => new RedisLogins(await connect(), now, max));

test('in memory, what is over does not stay', async () => {
  const clock = { now: 1_000_000 };
  const logins = new MemoryLogins(() => clock.now);
  await logins.add(login('a', clock.now), 0);
  clock.now += 240_000;
  await logins.add(login('b', clock.now), 0);
  assert.equal(logins.size, 1);
});

test('in memory, at the limit of an address the login that rests longest yields to a new one, in any state, not one in use', async () => {
  const { logins, clock } = started();
  const [a, b] = [login('a', clock.now), login('b', clock.now)];
  await logins.add(a, 2);
  await logins.add(b, 2);
  clock.now += LOGIN_REST_MS - 1;
  const wrong = handleReply(a, 1, LIMITS, clock.now);
  assert.ok(wrong.next === 'verify');
  await logins.replace(wrong.login, a.revision);
  assert.equal(await logins.add(login('c', clock.now), 2), false);
  clock.now += 1;
  assert.equal(await logins.add(login('c', clock.now), 2), true);
  assert.deepEqual([await logins.find(b.id), (await logins.find(a.id))?.tries], [undefined, 1]);
  assert.equal(await logins.add(login('d', clock.now), 2), false);
  clock.now += LOGIN_REST_MS - 1;
  assert.equal(await logins.add(login('d', clock.now), 2), true, 'wrong tries do not keep others out');
  assert.equal(await logins.find(a.id), undefined);
  assert.equal(logins.size, 2);
});

test('in Redis, one replica goes on with the login that another began, and a repeated change counts as done', async () => {
  const [first, second] = [await connect('shared'), await connect('shared')];
  const made = login('a', Date.now());
  await new RedisLogins(first).add(made, 0);
  assert.deepEqual(await new RedisLogins(second).find(made.id), made);
  const decision = handleReply(made, 1, LIMITS, Date.now());
  assert.ok(decision.next === 'verify');
  assert.equal(await new RedisLogins(second).replace(decision.login, made.revision), true);
  assert.equal(await new RedisLogins(second).replace(decision.login, made.revision), true);
  assert.equal(await new RedisLogins(first).add(made, 1), false);
});

async function connect(cluster = `logins-${opened.length}`): Promise<Redis> {
  const redis = await Redis.open({ ...server.settings, cluster });
  opened.push(redis);
  return redis;
}

function started() {
  const clock = { now: 1_000_000 };
  return { clock, logins: new MemoryLogins(() => clock.now) };
}
