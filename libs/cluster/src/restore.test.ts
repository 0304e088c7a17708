import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { CloudEvents } from './cloud-events.ts';
import { FakeSink, FakeTopics } from './event-sink.fake.ts';
import { RedisEventStream } from './event-stream.redis.ts';
import { recordingLog } from './outbox.fake.ts';
import { Outbox } from './outbox.ts';
import { RedisServer } from './redis-server.fake.ts';
import { Redis, RESTORE_MICROS, WINDOW_MICROS } from './redis.ts';
import { RedisRestore } from './restore.redis.ts';
import { sampleClaim, sampleLogin, TestClock } from './session.fake.ts';
import type { NodeIdentity, Session } from './session.ts';
import { RedisSessions } from './sessions.redis.ts';
import { StoreUnavailable } from './sessions.ts';
import { hashToken, newToken } from './tokens.ts';

/** What comes back from Kafka when Redis forgot (CLUSTER.md C1). Real Redis, topics in memory; time and reign are arguments. */
describe('a restore', () => {
  let server: RedisServer;
  const opened: Redis[] = [];

  before(async () => {
    server = await RedisServer.start();
  });
  after(async () => {
    await Promise.all(opened.map((redis) => redis.close()));
    await server.stop();
  });

  /** One cluster with its outbox, settled in its first reign. */
  async function open() {
    const clock = new TestClock();
    const world = { reign: 'first', clock, topics: new FakeTopics(), warnings: [] as string[] };
    const settings = { ...server.settings, cluster: `restore-${opened.length}` };
    const redis = await Redis.open(settings, {
      clock: () => clock.now,
      reign: () => world.reign,
      restoreMicros: RESTORE_MICROS,
    });
    opened.push(redis);
    const sessions = new RedisSessions({ redis, pollMillis: 10 });
    const stream = new RedisEventStream(redis);
    const outbox = (holder = 'a') =>
      new Outbox({
        ...{ stream, table: sessions, sink: new FakeSink(world.topics), cluster: 'test', holder },
        ...{ clock: clock.read, log: recordingLog(world.warnings), restore: new RedisRestore(redis) },
      });
    const one = outbox();
    const whole = {
      ...world,
      redis,
      sessions,
      stream,
      outbox,
      one,
      set: (reign: string) => (world.reign = reign),
    };
    await one.round();
    clock.pass(11);
    await drain(one);
    return whole;
  }
  type World = Awaited<ReturnType<typeof open>>;

  const create = (world: World, user: string, pool = '10.9.0.0/24') =>
    world.sessions.create(
      sampleLogin(hashToken(newToken()), user, { ipv4Pools: [pool], ipv6Pools: [], ...LIVES }),
    );
  const up = async (world: World, user: string, pool?: string, node = here) => {
    const { tokenHash } = await create(world, user, pool);
    world.clock.pass(1);
    const claimed = await world.sessions.claim(sampleClaim(tokenHash, `c-${user}`, { node }));
    assert.ok(claimed.ok, claimed.ok ? '' : claimed.reason);
    return claimed.session;
  };
  const park = async (world: World, { id, lease }: Session) => {
    assert.ok(lease);
    await world.sessions.park(id, lease, 'connection-lost', {
      rxBytes: 7n,
      txBytes: 9n,
      activeAt: world.clock.now,
    });
    return (await world.sessions.get(id)) ?? assert.fail();
  };
  const parked = async (world: World, user: string, pool?: string) =>
    park(world, await up(world, user, pool));
  /** The primary comes back without anything. */
  const forget = async (world: World, reign = 'second') => {
    await world.redis.call('EVAL', WIPE, 0, world.redis.prefix);
    world.set(reign);
  };
  const resume = async (world: World, { tokenHash }: Session) => {
    const claimed = await world.sessions.claim(sampleClaim(tokenHash, `again-${tokenHash}`));
    return claimed.ok ? claimed.session.addresses.ipv4 : claimed.reason;
  };

  it('brings back what no node holds, before the topic is written anew; what has ended stays ended', async () => {
    const world = await open();
    const kept = await parked(world, 'alice');
    const waiting = await create(world, 'bob');
    const out = await parked(world, 'carol');
    await world.sessions.end(out.id, 'logout');
    await drain(world.one);
    await forget(world);

    await assert.rejects(world.sessions.find(kept.tokenHash), { name: 'StoreUnavailable' });
    await drain(world.one);
    const back = await world.sessions.get(kept.id);
    assert.deepEqual({ ...back, n: kept.n }, kept);
    assert.equal(back?.n, kept.n + 1);
    assert.equal((await world.sessions.get(waiting.id))?.state, 'authed');
    assert.equal(await resume(world, kept), kept.addresses.ipv4);
    await assert.rejects(
      world.sessions.find(out.tokenHash),
      { name: 'StoreUnavailable' },
      'the nodes have their time',
    );

    world.clock.pass(Number(WINDOW_MICROS / 1_000_000n) + 1);
    await drain(world.one);
    assert.equal(await resume(world, out), 'token-unknown');
    assert.deepEqual([...world.topics.state.keys()].sort(), [kept.id, waiting.id].sort());
    const types = world.topics.of('facts').map(({ key, headers }) => `${key} ${headers.ce_type}`);
    assert.ok(types.includes(`${kept.id} sallyport.session.snapshot.v1`));
  });

  it('parks a tunnel that no node has asserted, and leaves alone what one has', async () => {
    const world = await open();
    const [dead, alive] = [await up(world, 'alice'), await up(world, 'bob', undefined, elsewhere)];
    await drain(world.one);
    await forget(world);
    await drain(world.one);
    assert.equal(await world.sessions.get(dead.id).catch(() => 'waits'), 'waits');
    await world.sessions.assert(elsewhere, [alive]);
    world.clock.pass(11);
    await drain(world.one);
    const now = await world.sessions.get(dead.id);
    assert.deepEqual(
      [now?.state, now?.addresses, now?.parkedAt],
      ['parked', dead.addresses, world.clock.now],
    );
    assert.deepEqual((await world.sessions.get(alive.id))?.lease, alive.lease);
    assert.equal((await world.sessions.get(alive.id))?.state, 'up');
    // The node was only slow: its tunnel goes, the client comes back with its cookie.
    assert.deepEqual(await world.sessions.assert(here, [dead]), [
      { sessionId: dead.id, kept: false, reason: 'superseded' },
    ]);
  });

  it('settles one address for two: the later claim loses, whichever of them comes back first', async () => {
    for (const order of ['node first', 'topic first']) {
      const world = await open();
      const first = await parked(world, 'alice', '10.9.0.0/30');
      await drain(world.one);
      await forget(world);
      await world.sessions.counts(); // the reign begins
      const later = { ...(await rival(world, first)), state: 'up' as const };
      if (order === 'node first') await world.sessions.assert(elsewhere, [later]);
      await drain(world.one);
      if (order === 'topic first') await world.sessions.assert(elsewhere, [later]);
      assert.equal((await world.sessions.get(first.id))?.state, 'parked', order);
      assert.equal((await world.sessions.get(later.id))?.endReason, 'address-taken', order);
    }
  });

  it('takes no address away when it comes too late for anybody to have waited', async () => {
    const world = await open();
    const first = await parked(world, 'alice', '10.9.0.0/30');
    await drain(world.one);
    world.topics.down = true;
    await forget(world);
    await world.one.round();
    world.clock.pass(Number(RESTORE_MICROS / 1_000_000n) + 1);
    assert.equal(await world.sessions.find(first.tokenHash), undefined, 'the wait has an end');
    const other = await up(world, 'bob', '10.9.0.0/30');
    assert.equal(other.addresses.ipv4, first.addresses.ipv4);
    world.topics.down = false;
    await drain(world.one);
    assert.equal((await world.sessions.get(other.id))?.state, 'up');
    assert.equal((await world.sessions.get(first.id))?.endReason, 'address-taken');
  });

  it('ends what has outlived its time, and does not count the time that the store was away', async () => {
    for (const away of [false, true]) {
      const world = await open();
      const session = await parked(world, 'alice');
      await drain(world.one);
      if (away) {
        world.stream.takeLease = () => Promise.reject(new StoreUnavailable('away'));
        assert.equal(await world.one.round(), 'blocked');
      }
      world.clock.pass(LIVES.disconnectedTimeoutSeconds + 1);
      Reflect.deleteProperty(world.stream, 'takeLease');
      await forget(world);
      await drain(world.one);
      const now = await world.sessions.get(session.id);
      assert.equal(now?.state, away ? 'parked' : 'closed');
      assert.equal(now?.endReason, away ? '' : 'disconnected-timeout');
    }
  });

  it('adds up the times that the store was away until the table is settled', async () => {
    const world = await open();
    const session = await parked(world, 'alice');
    await drain(world.one);
    const fail = async (call: 'takeLease' | 'read', seconds: number) => {
      Object.assign(world.stream, { [call]: () => Promise.reject(new StoreUnavailable('away')) });
      assert.equal(await world.one.round(), 'blocked');
      world.clock.pass(seconds);
      Reflect.deleteProperty(world.stream, call);
    };
    await fail('takeLease', LIVES.disconnectedTimeoutSeconds + 1);
    // It answers, and fails again at once.
    await fail('read', 1);
    await forget(world);
    await drain(world.one);
    assert.equal((await world.sessions.get(session.id))?.state, 'parked');
  });

  it('sends what waits before it reads the topic, which is behind', async () => {
    const world = await open();
    const session = await parked(world, 'alice');
    await drain(world.one);
    await world.sessions.end(session.id, 'logout');
    // Its tombstone is forgotten, the fact has not been sent yet.
    await world.redis.call('DEL', `${world.redis.prefix}s:${session.id}`);
    world.set('second');
    await drain(world.one);
    world.clock.pass(11);
    await drain(world.one);
    assert.equal(await world.sessions.get(session.id), undefined);
    assert.equal(world.topics.state.size, 0);
  });

  it('restores nothing from a topic that may hold what has ended', async () => {
    const world = await open();
    await parked(world, 'alice');
    const ended = await parked(world, 'bob');
    await drain(world.one);
    await world.sessions.end(ended.id, 'logout');
    await world.stream.dropOldest(1);
    // Dies in the middle of the snapshot that would have repaired the topic.
    world.topics.loseAnswers = 1;
    assert.equal(await world.one.round(), 'blocked');
    assert.ok(world.topics.state.has('gap'));
    await forget(world);
    world.clock.pass(31);
    await drain(world.one);
    world.clock.pass(31);
    await drain(world.one);
    assert.equal(await world.sessions.get(ended.id), undefined);
    assert.match(world.warnings.join(), /its table is not complete/);
    assert.equal(world.topics.state.size, 0, 'and it is whole again');
  });

  it('is refused to a holder whose lease is over, and in another reign', async () => {
    const world = await open();
    const session = await parked(world, 'alice');
    const restore = new RedisRestore(world.redis);
    await forget(world);
    await world.one.round();
    const copy = [session];
    await assert.rejects(restore.write({ holder: 'z', reign: 'second' }, copy, 0n), {
      name: 'StoreUnavailable',
    });
    await assert.rejects(restore.write({ holder: 'a', reign: 'first' }, copy, 0n), {
      name: 'StoreUnavailable',
    });
    assert.deepEqual(await restore.write({ holder: 'a', reign: 'second' }, copy, 0n), {
      ...{ restored: 1, ended: 0, kept: 0 },
    });
    assert.equal(
      (await restore.write({ holder: 'a', reign: 'second' }, copy, 0n)).kept,
      1,
      'again is harmless',
    );
  });

  it('overrides nothing that is stored, unless the topic has a newer record that no node holds', async () => {
    const world = await open();
    const session = await create(world, 'alice');
    const key = `${world.redis.prefix}s:${session.id}`;
    await world.redis.call('COPY', key, `${world.redis.prefix}early`);
    const later = await parked({ ...world, sessions: world.sessions }, 'bob');
    assert.ok(later);
    const claimed = await world.sessions.claim(sampleClaim(session.tokenHash, 'c1'));
    assert.ok(claimed.ok);
    const newest = await park(world, claimed.session);
    await drain(world.one);
    // The claim and what followed are writes that a failover lost.
    await world.redis.call('COPY', `${world.redis.prefix}early`, key, 'REPLACE');
    world.set('second');
    await drain(world.one);
    world.clock.pass(11);
    await drain(world.one);
    const now = await world.sessions.get(session.id);
    assert.deepEqual([now?.state, now?.addresses], ['parked', newest.addresses]);
    assert.deepEqual(await world.sessions.get(later.id), later);
  });

  it('happens once in a reign: the next holder does not begin again', async () => {
    const world = await open();
    await parked(world, 'alice');
    await drain(world.one);
    const written = world.topics.of('facts').length;
    await world.one.close();
    const next = world.outbox('b');
    await drain(next);
    assert.equal(world.topics.of('facts').length, written);
    assert.equal(next.status.resyncs, 0);
  });

  /** Somebody else with the address of `of`, claimed later on another node. */
  async function rival(world: World, of: Session): Promise<Session> {
    const tokenHash = hashToken(newToken());
    const epoch = (of.lease?.epoch ?? 0n) + 1_000_000n;
    const id = events.state(of).key;
    return {
      ...of,
      tokenHash,
      id: id.split('').reverse().join(''),
      user: 'bob',
      parkedAt: 0n,
      lease: { ...elsewhere, epoch, claimId: 'x' },
    };
  }
});

async function drain(outbox: Outbox): Promise<void> {
  for (let rounds = 0; rounds < 100; rounds++) {
    const result = await outbox.round();
    if (result === 'idle') return;
    assert.notEqual(result, 'blocked', outbox.status.trouble);
  }
  assert.fail('never idle');
}

const events = new CloudEvents('test');
const LIVES = { disconnectedTimeoutSeconds: 600, cookieTimeoutSeconds: 300 };
const WIPE = `for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do redis.call('DEL', key) end`;
const here: NodeIdentity = { name: 'n1', incarnation: 'i1' };
const elsewhere: NodeIdentity = { name: 'n2', incarnation: 'i1' };
