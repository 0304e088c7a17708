import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { RedisNodes } from './nodes.redis.ts';
import { RedisServer } from './redis-server.fake.ts';
import { Redis } from './redis.ts';
import { sampleClaim, sampleLogin } from './session.fake.ts';
import { RedisSessions } from './sessions.redis.ts';
import { hashToken, newToken } from './tokens.ts';

/* What stands in Redis and was not written by a script of ours, or not as it stands there now. */

const POISONS: [string, (text: Buffer) => string | Buffer][] = [
  ['no text', () => ''],
  ['neither JSON nor MessagePack', () => 'not json {{{'],
  ['JSON that breaks off', () => '{"v":1,"t":'],
  ['no record', () => '{}'],
  ['a list', () => '[]'],
  ['a record that breaks off', (text) => text.subarray(0, text.length >> 1)],
  ['a few fields', (text) => text.subarray(0, 3)],
  ['a state that nobody knows', () => JSON.stringify({ ...EMPTY, st: 'x' })],
  ['an object as user', () => JSON.stringify({ ...EMPTY, u: { a: 1 } })],
  ['lists without end', () => `{"v":1,"deep":${'['.repeat(5000)}${']'.repeat(5000)}}`],
];

describe('V38: a session record that is none', () => {
  let server: RedisServer;
  const opened: Redis[] = [];
  const clock = { now: 1_700_000_000_000_000n };

  before(async () => {
    server = await RedisServer.start();
  });
  after(async () => {
    await Promise.all(opened.map((redis) => redis.close()));
    await server.stop();
  });

  const open = async (cluster: string) => {
    const options = { windowMicros: 0n, awayMicros: 0n, clock: () => clock.now };
    const redis = await Redis.open({ ...server.settings, cluster }, options);
    opened.push(redis);
    return { redis, sessions: new RedisSessions({ redis }) };
  };
  const login = () => sampleLogin(hashToken(newToken()), 'alice', { cookieTimeoutSeconds: 60 });

  for (const [number, [what, poison]] of POISONS.entries()) {
    it(`${what}: opens nothing, and all others are served, listed, ended and parked`, async () => {
      const { redis, sessions } = await open(`poison-${number}`);
      const node = { name: 'n1', incarnation: 'first' };
      const made = await Promise.all(Array.from({ length: 4 }, () => sessions.create(login())));
      const [idle, up, other, otherUp] = made;
      assert.ok(idle && up && other && otherUp);
      for (const { tokenHash } of [up, otherUp])
        assert.ok((await sessions.claim({ ...sampleClaim(tokenHash, tokenHash), node })).ok);
      for (const { id } of [idle, up]) {
        const key = `${redis.prefix}s:${id}`;
        await redis.call('SET', key, poison(await stored(redis, key)));
      }

      for (const { id, tokenHash } of [idle, up]) {
        assert.equal(await sessions.find(tokenHash), undefined);
        assert.deepEqual(await sessions.claim(sampleClaim(tokenHash, 'x')), {
          ok: false,
          reason: 'token-unknown',
        });
        assert.equal(await sessions.end(id, 'terminated'), false);
      }
      const listed = (await sessions.list()).map(({ id }) => id);
      assert.deepEqual(listed.toSorted(), [other.id, otherUp.id].toSorted());
      assert.equal(await sessions.announce({ ...node, incarnation: 'second' }), 2);
      assert.equal((await sessions.get(otherUp.id))?.state, 'parked');
      clock.now += 61_000_000n;
      await sessions.sweep();
      assert.equal((await sessions.get(other.id))?.state, 'closed');
    });
  }

  it('does not keep its address from a tunnel that asserts it', async () => {
    const { redis, sessions } = await open('poison-address');
    const node = { name: 'n1', incarnation: 'i1' };
    const [first, second] = await Promise.all([sessions.create(login()), sessions.create(login())]);
    const [broken, up] = [
      await sessions.claim({ ...sampleClaim(first.tokenHash, 'c1'), node }),
      await sessions.claim({ ...sampleClaim(second.tokenHash, 'c2'), node }),
    ];
    assert.ok(broken.ok && up.ok);
    await redis.call('SET', `${redis.prefix}s:${first.id}`, 'not json {{{');
    await redis.call('DEL', `${redis.prefix}s:${second.id}`);
    const asserted = { ...up.session, addresses: broken.session.addresses };
    assert.deepEqual(await sessions.assert(node, [asserted]), [{ sessionId: second.id, kept: true }]);
    assert.deepEqual((await sessions.get(second.id))?.addresses, broken.session.addresses);
  });

  it('fields that nobody knows, and times that are to come, change nothing for who it belongs to', async () => {
    const { redis, sessions } = await open('poison-fields');
    const { id, tokenHash } = await sessions.create(login());
    const key = `${redis.prefix}s:${id}`;
    const grant = await redis.call(
      'EVAL',
      "return ({ cmsgpack.unpack(redis.call('GET', KEYS[1])) })[8]",
      1,
      key,
    );
    const created = String(clock.now + 3_600_000_000n);
    const odd = { ...EMPTY, t: tokenHash, g: String(grant), c: created, surprise: { a: [1] } };
    await redis.call('SET', key, JSON.stringify(odd));
    const claimed = await sessions.claim(sampleClaim(tokenHash, 'x'));
    assert.ok(claimed.ok);
    assert.ok(claimed.lease.epoch >= clock.now);
    await sessions.sweep();
    assert.equal((await sessions.get(id))?.state, 'up');
    assert.equal(await sessions.end(id, 'terminated'), true);
  });
});

const GRANT_POISONS: [string, string | undefined][] = [
  ['missing', undefined],
  ['no JSON', 'not json {{{'],
  ['null', 'null'],
  ['no grant', '{}'],
];

describe('V38: a grant that is none', () => {
  let server: RedisServer;
  const opened: Redis[] = [];
  const clock = { now: 1_700_000_000_000_000n };

  before(async () => {
    server = await RedisServer.start();
  });
  after(async () => {
    await Promise.all(opened.map((redis) => redis.close()));
    await server.stop();
  });

  for (const [number, [what, poison]] of GRANT_POISONS.entries()) {
    it(`${what}: its sessions open nothing, and all others are listed, swept and parked`, async () => {
      const options = { windowMicros: 0n, awayMicros: 0n, clock: () => clock.now };
      const redis = await Redis.open({ ...server.settings, cluster: `grant-poison-${number}` }, options);
      opened.push(redis);
      const sessions = new RedisSessions({ redis });
      const node = { name: 'n1', incarnation: 'first' };
      const login = (mtuBytes: number) =>
        sessions.create(sampleLogin(hashToken(newToken()), 'alice', { cookieTimeoutSeconds: 60, mtuBytes }));
      const [idle, up] = [await login(1300), await login(1300)];
      const [key] = (await redis.call('SMEMBERS', `${redis.prefix}grants`)) as string[];
      const [other, otherUp] = [await login(1301), await login(1301)];
      for (const { tokenHash } of [up, otherUp])
        assert.ok((await sessions.claim({ ...sampleClaim(tokenHash, tokenHash), node })).ok);
      const grant = `${redis.prefix}g:${key}`;
      if (poison === undefined) await redis.call('DEL', grant);
      else await redis.call('HSET', grant, 'x', poison);

      for (const { id, tokenHash } of [idle, up]) {
        assert.equal(await sessions.find(tokenHash), undefined);
        assert.equal(await sessions.end(id, 'terminated'), false);
        const claimed = await sessions.claim(sampleClaim(tokenHash, 'x'));
        assert.deepEqual(claimed, { ok: false, reason: 'token-unknown' });
      }
      const listed = (await sessions.list()).map(({ id }) => id);
      assert.deepEqual(listed.toSorted(), [other.id, otherUp.id].toSorted());
      assert.equal(await sessions.announce({ ...node, incarnation: 'second' }), 2);
      assert.equal((await sessions.get(otherUp.id))?.state, 'parked');
      clock.now += 61_000_000n;
      await sessions.sweep();
      assert.equal((await sessions.get(other.id))?.state, 'closed');
    });
  }
});

const NOW = 1_700_000_000_000_000n;
const NODE_POISONS: [string, string][] = [
  ['no text', ''],
  ['no JSON', 'not json {{{'],
  ['JSON that breaks off', '{"name":"n2","beat":'],
  ['null', 'null'],
  ['a number', '7'],
  ['no node', '{}'],
  ['no heartbeat', '{"name":"n2","number":2,"tunnels":0,"offset":"0"}'],
  ['a heartbeat that is no time', '{"name":"n2","number":2,"tunnels":0,"beat":"soon","offset":"0"}'],
  ['an object as name', '{"name":{},"number":2,"tunnels":0,"beat":"1","offset":"0"}'],
  ['what only Lua takes for JSON', `{"name":"n2","number":2,"tunnels":NaN,"beat":"${NOW}","offset":"0"}`],
  ['lists without end', `{"deep":${'['.repeat(5000)}${']'.repeat(5000)}}`],
];

describe('V38: a record of a node that is none', () => {
  let server: RedisServer;
  const opened: Redis[] = [];
  const clock = { now: NOW };

  before(async () => {
    server = await RedisServer.start();
  });
  after(async () => {
    await Promise.all(opened.map((redis) => redis.close()));
    await server.stop();
  });

  for (const [number, [what, poison]] of NODE_POISONS.entries()) {
    it(`${what}: the others are listed, sessions are swept, a reign begins, and a heartbeat mends it`, async () => {
      let reign = 'first';
      const settings = { ...server.settings, cluster: `node-poison-${number}` };
      const redis = await Redis.open(settings, { clock: () => clock.now, reign: () => reign });
      opened.push(redis);
      const [nodes, sessions] = [new RedisNodes(redis), new RedisSessions({ redis })];
      const beat = (name: string) =>
        nodes.heartbeat(
          { name, incarnation: 'i1', number: 1, address: '', version: '', tunnels: 0, unready: false },
          clock.now,
        );
      const poisoned = () => redis.call('HSET', `${redis.prefix}nodes`, 'n2', poison);
      const names = async () => (await nodes.list()).map(({ name }) => name);
      await beat('n1');
      await poisoned();
      reign = 'second';
      assert.equal((await sessions.counts()).up, 0, 'the reign begins');
      await sessions.assert({ name: 'n1', incarnation: 'i1' }, []);
      assert.equal(await sessions.find('00'), undefined, 'only those that live were waited for');
      await sessions.sweep();
      assert.equal(await nodes.drain('n2', true), false);
      await nodes.leave({ name: 'n2', incarnation: 'i1' });
      assert.deepEqual(await names(), ['n1']);
      await poisoned();
      assert.equal((await beat('n2')).drain, false);
      assert.deepEqual(await names(), ['n1', 'n2']);
    });
  }
});

/** As the scripts find it, bytes and all. */
async function stored(redis: Redis, key: string): Promise<Buffer> {
  const script =
    "return (string.gsub(redis.call('GET', KEYS[1]), '.', function(c) return string.format('%02x', string.byte(c)) end))";
  return Buffer.from(String(await redis.call('EVAL', script, 1, key)), 'hex');
}

const EMPTY = { v: 1, n: 1, st: 'a', t: '0'.repeat(64), u: 'alice', p: 'staff', g: 'none' };
