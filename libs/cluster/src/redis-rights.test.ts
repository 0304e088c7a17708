import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createLog } from '@sallyport/chassis';
import type { Clock } from './clock.ts';
import { countersContract } from './counters.contract.ts';
import { RedisCounters } from './counters.redis.ts';
import { RedisEventLog } from './events.redis.ts';
import { RedisEventStream } from './event-stream.redis.ts';
import { nodesContract } from './nodes.contract.ts';
import { RedisNodes } from './nodes.redis.ts';
import { RedisServer } from './redis-server.fake.ts';
import { Redis, type RedisOptionsOfOurs } from './redis.ts';
import { sampleClaim, sampleLogin } from './session.fake.ts';
import { sessionsContract } from './sessions.contract.ts';
import { RedisSessions } from './sessions.redis.ts';

describe('a user of Redis with no more rights than docs/cluster.md names', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-rights-'));
  const passwordFile = join(folder, 'password');
  const opened: Redis[] = [];
  let server: RedisServer;

  before(async () => {
    writeFileSync(passwordFile, 'correct-horse\n', { mode: 0o600 });
    server = await RedisServer.start(
      ...['--user', 'sallyport', 'on', '>correct-horse', ...documentedRights('rights-*')],
    );
  });
  after(async () => {
    await Promise.all(opened.map((redis) => redis.close()));
    await server.stop();
    rmSync(folder, { recursive: true });
  });

  async function open(options: RedisOptionsOfOurs, cluster = `rights-${opened.length}`): Promise<Redis> {
    const redis = await Redis.open(
      { ...server.settings, username: 'sallyport', passwordFile, cluster },
      options,
    );
    opened.push(redis);
    return redis;
  }
  const still = (clock: Clock) => ({ clock, awayMicros: 0n, windowMicros: 0n });

  sessionsContract(
    'sessions',
    async (clock) => new RedisSessions({ redis: await open(still(clock)), pollMillis: 20 }),
  );
  nodesContract('nodes', async (clock) => new RedisNodes(await open({ clock })));
  countersContract('counters', async (clock) => new RedisCounters(await open({ clock })));

  it('is enough for the outbox and for who looks at events', async () => {
    const redis = await open({ windowMicros: 0n });
    const stream = new RedisEventStream(redis);
    assert.ok(await stream.takeLease('me', 5000));
    const sessions = new RedisSessions({ redis });
    await sessions.create(sampleLogin('aa'.repeat(32)));
    assert.ok((await sessions.claim(sampleClaim('aa'.repeat(32), 'c1'))).ok);
    await stream.holdStats(true);
    const events = await RedisEventLog.open(redis, createLog({ name: 't', level: 'silent' }));
    const at = 1_800_000_000_000_000n;
    events.append([{ v: 1, at, type: 'node.ready', node: 'n1', incarnation: 'i1' }]);
    while ((await stream.size()).entries < 3) await sleep(10);
    assert.deepEqual(await events.lastLogins('alice'), []);
    const { reign, entries } = await stream.read(10);
    assert.ok(await stream.trim('me', reign, entries.at(-1)?.id ?? ''));
    assert.equal(await stream.dropOldest(1), 0);
    await stream.dropLease('me');
    events.close();
    await sessions.close();
  });

  it('is not enough for the keys of another cluster', async () => {
    const other = await open({}, 'other');
    await assert.rejects(other.call('GET', '{other}:meta'), /NOPERM|permission/i);
  });
});

/** Channels and keys of one cluster, and the commands. */
function documentedRights(cluster: string): string[] {
  const page = readFileSync(new URL('../../../docs/cluster.md', import.meta.url), 'utf8');
  const rights = /^~\{NAME\}:\*.*$/m.exec(page);
  assert.ok(rights, 'docs/cluster.md names the rights');
  return rights[0].replaceAll('NAME', cluster).split(' ');
}
