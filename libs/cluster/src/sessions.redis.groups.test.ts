import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startRedisCluster, startSentinelGroup, until, type RedisGroup } from './redis-server.fake.ts';
import { Redis } from './redis.ts';
import { sampleClaim, sampleLogin } from './session.fake.ts';
import { sessionsContract } from './sessions.contract.ts';
import { RedisSessions } from './sessions.redis.ts';
import { hashToken, newToken } from './tokens.ts';

const opened: Redis[] = [];
const groups: RedisGroup[] = [];
let cluster: RedisGroup;
let sentinel: RedisGroup;

before(async () => {
  [cluster, sentinel] = await Promise.all([startRedisCluster(), startSentinelGroup()]);
  groups.push(cluster, sentinel);
});
after(async () => {
  await Promise.all(opened.map((redis) => redis.close()));
  await Promise.all(groups.map((group) => group.stop()));
});

sessionsContract('in a Redis Cluster', async (clock) => {
  const settings = { ...cluster.settings, cluster: `c${opened.length}` };
  const redis = await Redis.open(settings, { clock, awayMicros: 0n, windowMicros: 0n });
  opened.push(redis);
  return new RedisSessions({ redis, pollMillis: 20 });
});

sessionsContract('in Redis behind a sentinel, confirmed by a replica', async (clock) => {
  const settings = { ...sentinel.settings, cluster: `s${opened.length}` };
  const redis = await Redis.open(settings, { clock, awayMicros: 0n, windowMicros: 0n });
  opened.push(redis);
  return new RedisSessions({ redis, pollMillis: 20 });
});

describe('a failover by the sentinel', () => {
  it('confirms what must not get lost: without the replica nothing is said to be done', async () => {
    const redis = await Redis.open({ ...sentinel.settings, cluster: 'confirm' }, { windowMicros: 0n });
    opened.push(redis);
    const sessions = new RedisSessions({ redis });
    const session = await sessions.create(sampleLogin(hashToken(newToken())));
    const replica = sentinel.servers[1];
    replica?.pause();
    try {
      await assert.rejects(sessions.end(session.id, 'logout'), {
        name: 'StoreUnavailable',
        message: /confirmed/,
      });
      const unimportant = await sessions.get(session.id);
      assert.equal(unimportant?.state, 'closed');
    } finally {
      replica?.resume();
    }
    await until(async () => (await sessions.create(sampleLogin(hashToken(newToken())))) !== undefined);
  });

  it('says that a token is unknown only when a replica has proved that this is the primary', async () => {
    const redis = await Redis.open(
      { ...sentinel.settings, cluster: 'prove' },
      { windowMicros: 0n, deadlineMillis: 600 },
    );
    opened.push(redis);
    const sessions = new RedisSessions({ redis });
    const unknown = hashToken(newToken());
    const known = await until2(() => sessions.create(sampleLogin(hashToken(newToken()))));
    const replica = sentinel.servers[1];
    replica?.pause();
    try {
      const unproven = { name: 'StoreUnavailable', message: /confirmed/ };
      await assert.rejects(sessions.find(unknown), unproven);
      await assert.rejects(sessions.claim(sampleClaim(unknown, 'c1')), unproven);
      assert.equal((await sessions.find(known.tokenHash))?.id, known.id, 'what is there needs no proof');
    } finally {
      replica?.resume();
    }
    assert.equal(await until2(() => sessions.find(unknown)), undefined);
    assert.deepEqual(await until2(() => sessions.claim(sampleClaim(unknown, 'c1'))), {
      ok: false,
      reason: 'token-unknown',
    });
  });

  it('keeps every session, claim and address, begins a new reign and needs no hands', async () => {
    const redis = await Redis.open({ ...sentinel.settings, cluster: 'failover' }, { windowMicros: 300_000n });
    opened.push(redis);
    const reigns: string[] = [];
    redis.onReign((reign) => reigns.push(reign));
    const sessions = new RedisSessions({ redis, pollMillis: 50 });
    const up = [];
    for (let i = 0; i < 20; i++) {
      const session = await until2(() => sessions.create(sampleLogin(hashToken(newToken()), `user${i}`)));
      const claim = await until2(() => sessions.claim(sampleClaim(session.tokenHash, `first${i}`)));
      assert.ok(claim.ok);
      up.push(claim);
    }
    await sentinel.servers[0]?.kill();
    await assert.rejects(sessions.find('00'), { name: 'StoreUnavailable' }, 'never "unknown"');
    const promoted = async () =>
      (await sentinel.servers[1]?.cli('INFO', 'replication'))?.includes('role:master');
    await until(async () => (await promoted()) === true, 30_000);
    // The new primary has no replica until the old one is back, and refuses writes without one.
    await sentinel.servers[0]?.launch();
    for (const [i, { session, addresses }] of up.entries()) {
      const claim = await until2(() => sessions.claim(sampleClaim(session.tokenHash, `second${i}`)));
      assert.ok(claim.ok);
      assert.deepEqual(claim.addresses, addresses);
    }
    assert.equal(new Set(reigns).size, 2);
  });
});

/** Repeats a call while the store is not available. */
async function until2<T>(call: () => Promise<T>): Promise<T> {
  const end = performance.now() + 60_000;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (performance.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
