import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { createLog } from '@sallyport/chassis';
import { accountRecordsContract } from './account-records.contract.ts';
import { MemoryAccountRecords } from './account-records.memory.ts';
import { RedisAccountRecords } from './account-records.redis.ts';
import type { AccountRecord } from './account-records.ts';
import { RedisCounters } from './counters.redis.ts';
import { MemoryEventLog } from './events.memory.ts';
import { RedisEventLog } from './events.redis.ts';
import { LoginFailures } from './failures.ts';
import { RedisNodes } from './nodes.redis.ts';
import { RedisServer } from './redis-server.fake.ts';
import { Redis, type RedisOptionsOfOurs } from './redis.ts';
import { sampleClaim, sampleLogin } from './session.fake.ts';
import { NewerVersion } from './session.ts';
import { RedisSessions } from './sessions.redis.ts';
import { StoreUnavailable } from './sessions.ts';
import { hashToken, newToken } from './tokens.ts';

let server: RedisServer;
let clusters = 0;
const opened: Redis[] = [];

before(async () => {
  server = await RedisServer.start();
});
after(async () => {
  await Promise.all(opened.map((redis) => redis.close()));
  await server.stop();
});

accountRecordsContract('in memory', async (clock) => {
  const records = new MemoryAccountRecords({ clock });
  return async () => records;
});

accountRecordsContract('in Redis', async (clock) => {
  const cluster = `accounts-${clusters++}`;
  return async () => new RedisAccountRecords(await connect(cluster, { clock }));
});

it('a change is a fact that tells who was changed, and nothing of his password', async () => {
  const cluster = `accounts-${clusters++}`;
  const [redis, events] = [await connect(cluster), new MemoryEventLog()];
  const add = { verb: 'add', name: 'a"b', groups: [], hash: '$secret$' } as const;
  await new MemoryAccountRecords({ events }).change(add, false);
  await new RedisAccountRecords(redis).change(add, false);
  const stream = JSON.stringify(await redis.call('XRANGE', `${redis.prefix}events`, '-', '+'));
  assert.match(stream, /admin\.changed.*user-add.*a\\\\\\"b/);
  assert.ok(!stream.includes('secret'));
  const [fact] = events.recent(10);
  assert.ok(fact?.type === 'admin.changed');
  assert.deepEqual([fact.verb, fact.subject, Object.keys(fact).length], ['user-add', 'a"b', 5]);
});

it('a Redis that came back empty gets what a replica knows, and an older copy loses to a newer record', async () => {
  const cluster = `accounts-${clusters++}`;
  const state = { reign: 'first' };
  const open = async () => new RedisAccountRecords(await connect(cluster, { reign: () => state.reign }));
  const [one, behind] = [await open(), await open()];
  await one.change({ verb: 'lock', name: 'alice' }, true);
  await one.change({ verb: 'lock', name: 'bob' }, true);
  await behind.refresh();
  await one.change({ verb: 'passwd', name: 'alice', hash: 'new' }, true);
  await one.change({ verb: 'lock', name: 'carol' }, true);

  const redis = await connect(cluster);
  await redis.call('DEL', `${redis.prefix}accounts`, `${redis.prefix}accounts-log`, `${redis.prefix}meta`);
  state.reign = 'second';
  // The one that had not heard of the last two changes speaks first.
  await behind.refresh();
  await one.refresh();
  await behind.refresh();
  const all = new Map<string, AccountRecord>();
  const late = await open();
  late.follow((changed) => changed.forEach((record) => all.set(record.name, record)));
  await late.refresh();
  assert.deepEqual([...all.keys()].sort(), ['alice', 'bob', 'carol']);
  assert.deepEqual([all.get('alice')?.hash, all.get('alice')?.locked], ['new', true]);
});

it('a change whose answer got lost is not made twice', async () => {
  const redis = await connect(`accounts-${clusters++}`);
  const records = new RedisAccountRecords(redis);
  const run = redis.run.bind(redis);
  redis.run = async (script, args, options) => {
    await run(script, args, options);
    return run(script, args, options);
  };
  const add = { verb: 'add', name: 'dave', groups: [], hash: 'h' } as const;
  assert.equal(await records.change(add, false), 'done');
});

it('with Redis away a change is refused; a record of a newer version is not guessed at', async () => {
  const own = await RedisServer.start();
  try {
    const redis = await Redis.open({ ...own.settings, cluster: 'c' }, { deadlineMillis: 1500 });
    opened.push(redis);
    const records = new RedisAccountRecords(redis);
    await records.change({ verb: 'lock', name: 'alice' }, true);
    await redis.call('HSET', `${redis.prefix}accounts`, 'alice', '{"v":2,"at":"1"}');
    await assert.rejects(records.change({ verb: 'unlock', name: 'alice' }, true), NewerVersion);
    await assert.rejects(new RedisAccountRecords(redis).refresh(), NewerVersion);
    await own.kill();
    await assert.rejects(records.change({ verb: 'lock', name: 'bob' }, true), StoreUnavailable);
    await assert.rejects(records.refresh(), StoreUnavailable);
  } finally {
    await own.stop();
  }
});

it('a tunnel node whose user of Redis is that of docs/cluster.md serves sessions and cannot touch the records', async () => {
  const cluster = `accounts-${clusters++}`;
  const rights = ['+@read', '+@write', '+@scripting', '-@dangerous', '+info', '+wait', '+time', '+ping'];
  const more = ['+config|get', '+cluster|slots', '+cluster|keyslot'];
  await server.cli('ACL', 'SETUSER', 'nodes', 'on', '>secret', `~{${cluster}}:[^a]*`, ...rights, ...more);
  const passwordFile = join(server.folder, 'nodes-password');
  await writeFile(passwordFile, 'secret\n');
  const one = new RedisAccountRecords(await connect(cluster));
  await one.change({ verb: 'lock', name: 'alice' }, true);

  const where = { ...server.settings, cluster, username: 'nodes', passwordFile };
  const redis = await Redis.open(where, { windowMicros: 0n });
  opened.push(redis);
  const sessions = new RedisSessions({ redis });
  const tokenHash = hashToken(newToken());
  await sessions.create(sampleLogin(tokenHash));
  const node = { name: 'n1', incarnation: 'i1' };
  await sessions.announce(node);
  const claimed = await sessions.claim(sampleClaim(tokenHash, 'c', { node }));
  assert.ok(claimed.ok);
  await sessions.checkpoint(claimed.session.id, claimed.lease, { rxBytes: 1n, txBytes: 1n, activeAt: 1n });
  await sessions.sweep();
  assert.equal(await sessions.endOfUser('alice', 'terminated'), 1);
  await new RedisNodes(redis).list();
  await new LoginFailures(new RedisCounters(redis)).read('alice', '192.0.2.1');
  await (await RedisEventLog.open(redis, SILENT)).lastLogins('alice');

  const theirs = new RedisAccountRecords(redis);
  await assert.rejects(theirs.change({ verb: 'unlock', name: 'alice' }, true));
  await assert.rejects(theirs.change({ verb: 'add', name: 'eve', groups: [], hash: 'h' }, false));
  await assert.rejects(theirs.refresh());
  await sessions.close();
  assert.equal(await server.cli('HLEN', `{${cluster}}:accounts`), '1');
});

const SILENT = createLog({ name: 'test', level: 'silent' });

async function connect(cluster: string, options: RedisOptionsOfOurs = {}): Promise<Redis> {
  const redis = await Redis.open({ ...server.settings, cluster }, { windowMicros: 0n, ...options });
  opened.push(redis);
  return redis;
}
