import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { RedisNodes } from './nodes.redis.ts';
import { RedisServer, until } from './redis-server.fake.ts';
import { Redis, type RedisOptionsOfOurs } from './redis.ts';
import { sampleClaim, sampleLogin, TestClock } from './session.fake.ts';
import { decodeEvent } from './journal-lines.ts';
import { EPOCH_LEAD_MICROS, type NodeIdentity, type Session } from './session.ts';
import { RedisSessions } from './sessions.redis.ts';
import { hashToken, newToken } from './tokens.ts';

/** What must hold when Redis forgets (CLUSTER.md C1, C12, C13). The server's id is an argument here, time too. */
describe('a reign', () => {
  let server: RedisServer;
  const opened: Redis[] = [];
  let clock: TestClock;
  let reign = 'first';

  before(async () => {
    server = await RedisServer.start();
  });
  after(async () => {
    await Promise.all(opened.map((redis) => redis.close()));
    await server.stop();
  });

  const open = async (options: RedisOptionsOfOurs = {}) => {
    clock = new TestClock();
    reign = 'first';
    const settings = { ...server.settings, cluster: `reign-${opened.length}` };
    const redis = await Redis.open(settings, { clock: () => clock.now, reign: () => reign, ...options });
    opened.push(redis);
    const sessions = new RedisSessions({ redis, pollMillis: 10 });
    const nodes = new RedisNodes(redis);
    await sessions.find('00').catch(() => undefined); // the first reign begins
    clock.pass(11);
    return { redis, sessions, nodes };
  };
  const beat = (nodes: RedisNodes, { name, incarnation }: NodeIdentity, ahead = 0n) =>
    nodes.heartbeat(
      { name, incarnation, number: 1, address: '', version: '', tunnels: 0, unready: false },
      clock.now + ahead,
    );
  const create = (sessions: RedisSessions, user = 'alice', ipv4Pools = ['10.9.0.0/30']) =>
    sessions.create(sampleLogin(hashToken(newToken()), user, { ipv4Pools, ipv6Pools: [] }));
  const claim = async (sessions: RedisSessions, session: Session, connection: string, node = here) => {
    const claimed = await sessions.claim(sampleClaim(session.tokenHash, connection, { node }));
    assert.ok(claimed.ok, claimed.ok ? '' : claimed.reason);
    return claimed.session;
  };
  const forget = (redis: Redis, ...sessions: Session[]) =>
    Promise.all(
      sessions.map(async (session) => {
        await redis.call('DEL', `${redis.prefix}s:${session.id}`);
        for (const index of ['users', 'node:n1', 'node:n2', 'due', 'taken4'])
          await redis.call('DEL', `${redis.prefix}${index}`);
      }),
    );
  const empty = (redis: Redis) =>
    redis.call(
      'EVAL',
      `for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do redis.call('DEL', key) end`,
      0,
      redis.prefix,
    );

  it('answers nobody as unknown until all nodes have asserted, and gives back what they had', async () => {
    const { redis, sessions, nodes } = await open();
    for (const node of [here, elsewhere]) await beat(nodes, node);
    const session = await create(sessions);
    const up = await claim(sessions, session, 'c1');
    await forget(redis, up);
    reign = 'second';
    await assert.rejects(sessions.claim(sampleClaim(session.tokenHash, 'c2')), { name: 'StoreUnavailable' });
    await assert.rejects(sessions.find(session.tokenHash), { name: 'StoreUnavailable' });
    const parked = await create(sessions, 'bob', ['10.9.0.0/24']);
    await assert.rejects(sessions.claim(sampleClaim(parked.tokenHash, 'c3')), /new address waits/);

    assert.deepEqual(await sessions.assert(here, [up]), [{ sessionId: up.id, kept: true }]);
    await assert.rejects(sessions.find('00'), { name: 'StoreUnavailable' }, 'n2 has not');
    await sessions.assert(elsewhere, []);
    assert.equal(await sessions.find('00'), undefined);
    assert.deepEqual({ ...(await sessions.get(up.id)), n: up.n }, up);
    const moved = await claim(sessions, session, 'c2', elsewhere);
    assert.equal(moved.addresses.ipv4, up.addresses.ipv4);
    assert.ok((moved.lease?.epoch ?? 0n) > (up.lease?.epoch ?? 0n));
    await claim(sessions, parked, 'c3');
  });

  it('waits for the whole time when the keys are gone, because nobody knows who had any', async () => {
    const { redis, sessions, nodes } = await open();
    const up = await claim(sessions, await create(sessions), 'c1');
    await empty(redis);
    await beat(nodes, here);
    await sessions.assert(here, [up]);
    await assert.rejects(sessions.find('00'), { name: 'StoreUnavailable' });
    assert.equal(
      (await claim(sessions, up, 'c2')).addresses.ipv4,
      up.addresses.ipv4,
      'it keeps its address: served',
    );
    clock.pass(10);
    assert.equal(await sessions.find('00'), undefined);
  });

  it('is another one when the keys of a server went that did not restart: who is connected stays', async (t) => {
    const own = await RedisServer.start();
    t.after(() => own.stop());
    const redis = await Redis.open(own.settings, { windowMicros: 500_000n });
    opened.push(redis);
    const sessions = new RedisSessions({ redis, pollMillis: 10 });
    t.after(() => sessions.close());
    await until(async () => (await sessions.find('00')) === undefined);
    const up = await claim(sessions, await create(sessions), 'c1');
    const asserted: unknown[] = [];
    sessions.onNewReign(() => void sessions.assert(here, [up]).then((verdicts) => asserted.push(verdicts)));
    sessions.notices(here, () => undefined);
    await own.cli('FLUSHALL');
    await until(async () => asserted.length > 0);
    assert.deepEqual(asserted, [[{ sessionId: up.id, kept: true }]]);
    await until(async () => (await sessions.find('00')) === undefined);
    assert.deepEqual({ ...(await sessions.find(up.tokenHash)), n: up.n }, up, 'the cookie is known still');
    assert.equal((await claim(sessions, up, 'c2')).addresses.ipv4, up.addresses.ipv4);
  });

  it('says of no user that all his sessions have ended while nodes assert', async () => {
    const { redis, sessions, nodes } = await open();
    await beat(nodes, here);
    const up = await claim(sessions, await create(sessions), 'c1');
    await forget(redis, up);
    reign = 'second';
    await assert.rejects(sessions.endOfUser('alice', 'terminated'), { name: 'StoreUnavailable' });
    await sessions.assert(here, [up]);
    assert.equal(await sessions.endOfUser('alice', 'terminated'), 1);
    assert.equal((await sessions.get(up.id))?.state, 'closed');
  });

  it('takes a claim again during which it begins: Redis may have forgotten the lease', async () => {
    const { redis, sessions } = await open({ windowMicros: 0n });
    const session = await create(sessions);
    const key = `${redis.prefix}s:${session.id}`;
    await redis.call('COPY', key, `${redis.prefix}before`);
    const confirm = redis.confirm.bind(redis);
    let confirms = 0;
    redis.confirm = async () => {
      confirms += 1;
      if (confirms === 1) {
        await redis.call('COPY', `${redis.prefix}before`, key, 'REPLACE');
        for (const name of [`k:${session.id}`, 'taken4', 'node:n1', 'users'])
          await redis.call('DEL', `${redis.prefix}${name}`);
        clock.pass(1);
        reign = 'second';
        await sessions.counts(); // somebody else of this process hears of it
      }
      await confirm();
    };
    const { lease } = await claim(sessions, session, 'c1');
    assert.deepEqual((await sessions.get(session.id))?.lease, lease);
    assert.equal((await sessions.get(session.id))?.state, 'up');
    assert.equal(confirms, 2);
  });

  it('tells a node of the new reign with its mail', async () => {
    const { sessions } = await open();
    const heard: string[] = [];
    sessions.onNewReign((name) => heard.push(name));
    sessions.notices(here, () => undefined);
    reign = 'second';
    await until(() => Promise.resolve(heard.includes('second')));
    assert.equal(heard.at(-1), 'second');
    await sessions.close();
  });

  it('keeps the higher lease: what Redis has, or what the node has', async () => {
    const { redis, sessions } = await open();
    const session = await create(sessions);
    const first = await claim(sessions, session, 'c1');
    const key = `${redis.prefix}s:${session.id}`;
    await redis.call('COPY', key, `${redis.prefix}stale`);
    const second = await claim(sessions, session, 'c2', elsewhere);
    assert.deepEqual(await sessions.assert(here, [first]), [
      { sessionId: session.id, kept: false, reason: 'superseded' },
    ]);
    // The claim by n2 is one of the writes that got lost.
    await redis.call('COPY', `${redis.prefix}stale`, key, 'REPLACE');
    await redis.call('DEL', `${redis.prefix}node:n2`);
    const told: bigint[] = [];
    const stop = sessions.notices(here, (notices) => told.push(...notices.map((notice) => notice.upToEpoch)));
    assert.deepEqual(await sessions.assert(elsewhere, [second]), [{ sessionId: session.id, kept: true }]);
    assert.deepEqual((await sessions.get(session.id))?.lease, second.lease);
    await until(() => Promise.resolve(told.length >= 2)); // of the claim, and again of the assertion
    assert.ok(told.every((epoch) => epoch === first.lease?.epoch));
    stop();
  });

  it('takes no lease from a node that no claim can have given', async () => {
    const { redis, sessions } = await open();
    const up = await claim(sessions, await create(sessions), 'c1');
    assert.ok(up.lease);
    const most = clock.now + EPOCH_LEAD_MICROS;
    const { lease } = up;
    const asserted = (epoch: bigint): Session => ({ ...up, lease: { ...lease, epoch } });
    for (const epoch of [most + 1n, 2n ** 63n - 1n]) {
      const refused = [{ sessionId: up.id, kept: false, reason: 'superseded' }];
      assert.deepEqual(await sessions.assert(here, [asserted(epoch)]), refused);
      assert.deepEqual((await sessions.get(up.id))?.lease, up.lease);
    }
    await forget(redis, up);
    assert.deepEqual(await sessions.assert(here, [asserted(most)]), [{ sessionId: up.id, kept: true }]);
  });

  it('settles two sessions with one address: the later claim loses, whoever asserts first', async () => {
    for (const order of ['earlier first', 'later first']) {
      const { redis, sessions } = await open();
      const earlier = await claim(sessions, await create(sessions, 'alice'), 'c1');
      await forget(redis, earlier);
      await redis.call('DEL', `${redis.prefix}rested`);
      clock.pass(1);
      const later = await claim(sessions, await create(sessions, 'bob'), 'c2', elsewhere);
      assert.equal(later.addresses.ipv4, earlier.addresses.ipv4, 'the pool has one address');
      await forget(redis, later);
      const all: [NodeIdentity, Session][] = [
        [here, earlier],
        [elsewhere, later],
      ];
      for (const [node, session] of order === 'earlier first' ? all : all.reverse())
        await sessions.assert(node, [session]);
      assert.equal((await sessions.get(earlier.id))?.state, 'up', order);
      assert.equal((await sessions.get(later.id))?.endReason, 'address-taken', order);
    }
  });

  it('keeps a logged-out cookie dead when the logout was lost', async () => {
    const { redis, sessions } = await open();
    const session = await create(sessions);
    const up = await claim(sessions, session, 'c1');
    const key = `${redis.prefix}s:${session.id}`;
    await redis.call('COPY', key, `${redis.prefix}alive`);
    await sessions.end(session.id, 'logout');
    const tombstone = await sessions.get(session.id);
    assert.ok(tombstone);
    await redis.call('COPY', `${redis.prefix}alive`, key, 'REPLACE');
    await sessions.assert(here, [tombstone]);
    assert.deepEqual(await sessions.claim(sampleClaim(session.tokenHash, 'c2')), {
      ok: false,
      reason: 'token-unknown',
    });
    assert.deepEqual(await sessions.assert(here, [up]), [
      { sessionId: up.id, kept: false, reason: 'logout' },
    ]);
  });

  it('does not age parked sessions while the store is away, and says so in an event', async () => {
    const { redis, sessions } = await open();
    const { id, lease } = await claim(sessions, await create(sessions), 'c1');
    assert.ok(lease);
    await sessions.park(id, lease, 'connection-lost', { rxBytes: 0n, txBytes: 0n, activeAt: 0n });
    for (let i = 0; i < 3; i++) {
      clock.pass(9);
      await sessions.sweep();
    }
    clock.pass(7200);
    assert.equal(await sessions.sweep(), 0);
    const present = await sessions.get(id);
    assert.equal(clock.now - (present?.parkedAt ?? 0n), 27_000_000n);
    assert.equal((await claim(sessions, present ?? assert.fail(), 'c2')).activeAt, clock.now);
    const entries = String(await redis.call('XRANGE', `${redis.prefix}events`, '-', '+'));
    assert.equal(entries.split('"type":"parked"').length - 1, 2);
  });

  it('ends nobody when the clocks of the nodes say that Redis has the wrong time', async (t) => {
    const { redis, nodes, sessions: first } = await open({ awayMicros: 0n });
    const told: boolean[] = [];
    const sessions = new RedisSessions({ redis, onSweepHalted: (halted) => told.push(halted) });
    t.after(() => Promise.all([first.close(), sessions.close()]));
    await create(sessions);
    clock.pass(400);
    await beat(nodes, here, -6_000_000n);
    await beat(nodes, elsewhere, -7_000_000n);
    assert.equal(await sessions.sweep(), 0);
    assert.equal(await sessions.sweep(), 0);
    assert.deepEqual(told, [true], 'once');
    await beat(nodes, here, 0n);
    await beat(nodes, elsewhere, 0n);
    assert.equal(await sessions.sweep(), 1);
    assert.deepEqual(told, [true, false]);
  });

  it('writes events that the decoder of the journal reads', async () => {
    const { redis, sessions } = await open();
    const session = await sessions.create({
      ...sampleLogin(hashToken(newToken())),
      user: 'a"\\é€\u0001',
      strapKey: 'A+/=',
    });
    const up = await claim(sessions, session, 'c1');
    assert.equal(up.user, 'a"\\é€\u0001');
    await sessions.end(up.id, 'logout');
    const entries: unknown = await redis.call('XRANGE', `${redis.prefix}events`, '-', '+');
    assert.ok(Array.isArray(entries));
    const types = entries.map((entry: [string, string[]]) => {
      const event = decodeEvent(entry[1][5] ?? '');
      assert.equal(entry[1][1], session.id);
      assert.equal(entry[1][3], event.type);
      return [event.type, event.n];
    });
    assert.deepEqual(types, [
      ['started', 1],
      ['claimed', 2],
      ['ended', 3],
    ]);
  });
});

const here: NodeIdentity = { name: 'n1', incarnation: 'i1' };
const elsewhere: NodeIdentity = { name: 'n2', incarnation: 'i1' };
