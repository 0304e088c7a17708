import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { decodeEntry } from './cloud-events.ts';
import { eventStreamContract } from './event-stream.contract.ts';
import { compareEntryIds } from './event-stream.ts';
import { RedisEventStream } from './event-stream.redis.ts';
import { RedisServer, startSentinelGroup } from './redis-server.fake.ts';
import { Redis } from './redis.ts';
import { sampleClaim, sampleLogin } from './session.fake.ts';
import { RedisSessions } from './sessions.redis.ts';
import { StoreUnavailable } from './sessions.ts';
import { StreamCap, type StreamLevel } from './stream-cap.ts';

describe('the event stream in a real Redis', () => {
  let server: RedisServer;
  before(async () => {
    server = await RedisServer.start();
  });
  after(() => server.stop());

  eventStreamContract('the contract', async () => {
    const redis = await Redis.open({
      ...server.settings,
      cluster: `c${Math.random().toString(36).slice(2)}`,
    });
    return {
      stream: new RedisEventStream(redis),
      append: async ({ sessionId, type, data }) =>
        String(await redis.call('XADD', `${redis.prefix}events`, '*', 'k', sessionId, 't', type, 'd', data)),
      pass: (millis) => new Promise((resolve) => setTimeout(resolve, millis)),
      close: () => redis.close(),
    };
  });

  it('reads what the scripts of the session table append, and holds their statistics', async (t) => {
    const redis = await Redis.open({ ...server.settings, cluster: 'facts' }, { windowMicros: 0n });
    t.after(() => redis.close());
    const sessions = new RedisSessions({ redis });
    t.after(() => sessions.close());
    const stream = new RedisEventStream(redis);
    const { id } = await sessions.create(sampleLogin('aa'.repeat(32)));
    const claimed = await sessions.claim(sampleClaim('aa'.repeat(32), 'c1'));
    assert.ok(claimed.ok);
    const usage = { rxBytes: 5n, txBytes: 6n, activeAt: 0n };
    await sessions.checkpoint(id, claimed.lease, usage);
    await stream.holdStats(true);
    await sessions.checkpoint(id, claimed.lease, { ...usage, rxBytes: 7n });
    await sessions.end(id, 'logout');

    const { entries } = await stream.read(100);
    assert.deepEqual(
      entries.map((entry) => decodeEntry(entry)).map((fact) => [fact.type, 'n' in fact && fact.n]),
      [
        ['started', 1],
        ['claimed', 2],
        ['stats', 3],
        ['ended', 4],
      ],
    );
  });
});

describe('the cap of the stream in a real Redis', () => {
  it('stops interim statistics first, then replaces the oldest facts by one gap that names them', async (t) => {
    const server = await RedisServer.start();
    t.after(() => server.stop());
    const redis = await Redis.open(server.settings, { windowMicros: 0n });
    t.after(() => redis.close());
    const sessions = new RedisSessions({ redis });
    const stream = new RedisEventStream(redis);
    const cap = new StreamCap(stream, CAP_BYTES);
    const { id } = await sessions.create(sampleLogin('aa'.repeat(32)));
    const claimed = await sessions.claim(sampleClaim('aa'.repeat(32), 'c1'));
    assert.ok(claimed.ok);
    const fill = async (until: (level: StreamLevel) => boolean) => {
      for (let n = 0; n < 2000; n++) {
        await redis.call('XADD', `${redis.prefix}events`, '*', 'k', '', 't', 'x', 'd', 'x'.repeat(1000));
        if (n % 10 > 0) continue;
        const size = await cap.check();
        assert.ok(size.bytes <= CAP_BYTES * 1.1, `${size.bytes}`);
        if (until(size.level)) return size;
      }
      return assert.fail('the cap was never reached');
    };
    const checkpoint = async (rxBytes: bigint) => {
      const before = (await stream.size()).entries;
      await sessions.checkpoint(id, claimed.lease, { rxBytes, txBytes: 0n, activeAt: 0n });
      return (await stream.size()).entries - before;
    };

    assert.equal(await checkpoint(1n), 1);
    const [first] = (await stream.read(1)).entries;
    await fill((level) => level === 'stats-held');
    assert.equal(await checkpoint(2n), 0, 'statistics are left out');
    assert.equal((await stream.read(1)).gap, undefined, 'and nothing is given up yet');
    const { entries } = await fill((level) => level === 'full');
    const { gap, entries: left } = await stream.read(100_000);
    assert.ok(gap && gap.count > 0);
    assert.equal(gap.from, first?.id);
    assert.ok(compareEntryIds(gap.to, left[0]?.id ?? '') < 0);
    assert.equal(left.length, entries);

    await stream.takeLease('a', 10_000);
    assert.equal(await stream.trim('a', (await stream.read(1)).reign, left.at(-1)?.id ?? ''), true);
    assert.deepEqual(await cap.check(), {
      ...(await stream.size()),
      level: 'normal',
      entries: 0,
      lagMillis: 0,
    });
    assert.equal(await checkpoint(3n), 1, 'there is room again');
  });

  it('allows statistics again, whichever reader held them', async (t) => {
    const server = await RedisServer.start();
    t.after(() => server.stop());
    const redis = await Redis.open(server.settings, { windowMicros: 0n });
    t.after(() => redis.close());
    const stream = new RedisEventStream(redis);
    const [first, second] = [new StreamCap(stream, CAP_BYTES), new StreamCap(stream, CAP_BYTES)];
    const append = (characters: number) =>
      redis.call('XADD', `${redis.prefix}events`, '*', 'k', '', 't', 'x', 'd', 'x'.repeat(characters));
    assert.equal((await second.check()).level, 'normal');
    await append(CAP_BYTES * 0.6);
    await append(CAP_BYTES * 0.3);
    assert.equal((await first.check()).level, 'stats-held');
    await redis.call('XTRIM', `${redis.prefix}events`, 'MAXLEN', 0);
    await append(CAP_BYTES * 0.6);
    assert.equal((await second.check()).level, 'stats-held', 'not before there is much room');
    await redis.call('XTRIM', `${redis.prefix}events`, 'MAXLEN', 0);
    assert.equal((await second.check()).level, 'normal');
    assert.equal((await stream.size()).statsHeld, false);
  });
});

describe('the event stream with a replica', () => {
  it('gives no entry that the replica has not confirmed', async () => {
    const group = await startSentinelGroup();
    const [, replica] = group.servers;
    const redis = await Redis.open(group.settings);
    try {
      const stream = new RedisEventStream(redis);
      await redis.call('XADD', `${redis.prefix}events`, '*', 'k', '', 't', 'x', 'd', '{}');
      assert.equal((await stream.read(10)).entries.length, 1);
      replica?.pause();
      await redis.call('XADD', `${redis.prefix}events`, '*', 'k', '', 't', 'x', 'd', '{}');
      await assert.rejects(stream.read(10), StoreUnavailable);
      replica?.resume();
      assert.equal((await stream.read(10)).entries.length, 2);
    } finally {
      await redis.close();
      await group.stop();
    }
  });
});

const CAP_BYTES = 400_000;
