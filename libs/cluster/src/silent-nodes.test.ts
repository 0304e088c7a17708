import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { SILENT_MICROS } from './nodes.ts';
import { RedisNodes } from './nodes.redis.ts';
import { RedisServer } from './redis-server.fake.ts';
import { Redis } from './redis.ts';
import { sampleClaim, sampleLogin, TestClock } from './session.fake.ts';
import type { NodeIdentity } from './session.ts';
import { RedisSessions, SLICE } from './sessions.redis.ts';
import type { Notice } from './sessions.ts';
import { hashToken, newToken } from './tokens.ts';

/** A machine that is lost must not hold its users' places for ever. Time and the server's id are arguments here. */
describe('the sweep, where a node is silent', () => {
  let server: RedisServer;
  const opened: Redis[] = [];
  let clock: TestClock;
  let reign: string;

  before(async () => {
    server = await RedisServer.start();
  });
  after(async () => {
    await Promise.all(opened.map((redis) => redis.close()));
    await server.stop();
  });

  const open = async () => {
    clock = new TestClock();
    reign = 'first';
    const settings = { ...server.settings, cluster: `silent-${opened.length}` };
    const redis = await Redis.open(settings, { clock: () => clock.now, reign: () => reign });
    opened.push(redis);
    const sessions = new RedisSessions({ redis, pollMillis: 10 });
    await sessions.find('00').catch(() => undefined); // the first reign begins
    clock.pass(11);
    const table = new RedisNodes(redis);
    const beat = ({ name, incarnation }: NodeIdentity) =>
      table.heartbeat(
        { name, incarnation, number: 1, address: '', version: '', tunnels: 0, unready: false },
        clock.now,
      );
    /** Seconds in which these nodes live, and somebody sweeps. */
    const pass = async (seconds: number, ...living: NodeIdentity[]) => {
      for (let at = 0; at < seconds; at += STEP_SECONDS) {
        clock.pass(STEP_SECONDS);
        for (const node of living) await beat(node);
        await sessions.sweep();
      }
    };
    const login = (user: string) => {
      const grant = {
        ipv4Pools: ['10.9.0.0/24'],
        ipv6Pools: [],
        maxSameClients: 1,
        disconnectedTimeoutSeconds: 60,
      };
      return sessions.create(sampleLogin(hashToken(newToken()), user, grant));
    };
    const up = async (user: string, node: NodeIdentity) => {
      const session = await login(user);
      const claimed = await sessions.claim(sampleClaim(session.tokenHash, session.id, { node }));
      assert.ok(claimed.ok, claimed.ok ? '' : claimed.reason);
      return claimed;
    };
    const stateOf = async ({ session }: { session: { id: string } }) =>
      (await sessions.get(session.id))?.state;
    return { redis, sessions, beat, pass, login, up, stateOf };
  };

  it('parks what it held after a minute, all of it, and nothing of a node that lives', async () => {
    const { sessions, beat, pass, login, up, stateOf } = await open();
    for (const node of [lost, living]) await beat(node);
    const held = [];
    for (let i = 0; i < SLICE * 2 + 1; i++) held.push(await up(`user-${i}`, lost));
    const other = await up('bob', living);
    await pass(SILENT_SECONDS, living);
    assert.equal(await stateOf(held[0] ?? assert.fail()), 'up');
    const again = await login('user-0');
    const connect = () => sessions.claim(sampleClaim(again.tokenHash, 'again', { node: living }));
    assert.deepEqual(await connect(), { ok: false, reason: 'max-same-clients' });

    await pass(STEP_SECONDS, living);
    for (const one of held) assert.equal(await stateOf(one), 'parked');
    assert.equal(await stateOf(other), 'up');
    assert.ok((await connect()).ok);
    await pass(60, living);
    assert.equal(await stateOf(held[0] ?? assert.fail()), 'closed', 'its time without a tunnel is over');
    assert.deepEqual(await sessions.counts(), { authed: 0, up: 2, parked: 0 });
  });

  it('fences it off when it comes back all the same, and its clients connect there as ever', async () => {
    const { sessions, beat, pass, up, stateOf } = await open();
    for (const node of [lost, living]) await beat(node);
    const held = await up('alice', lost);
    await pass(SILENT_SECONDS + STEP_SECONDS, living);
    const usage = { rxBytes: 1n, txBytes: 1n, activeAt: 0n };
    assert.equal(await sessions.checkpoint(held.session.id, held.lease, usage), false);
    assert.equal(await stateOf(held), 'parked');
    const told: Notice[] = [];
    sessions.notices(lost, (notices) => told.push(...notices));
    while (told.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    const { id } = held.session;
    assert.deepEqual(told, [{ sessionId: id, upToEpoch: held.lease.epoch, reason: 'superseded' }]);
    const back = await sessions.claim(sampleClaim(held.session.tokenHash, 'back', { node: lost }));
    assert.ok(back.ok && back.resumed);
    await pass(SILENT_SECONDS * 2, lost, living);
    assert.equal(await stateOf(held), 'up');
    await sessions.close();
  });

  it('gives every node its minute again after the store was away, and after it was replaced', async () => {
    const { sessions, beat, pass, up, stateOf } = await open();
    for (const node of [lost, living]) await beat(node);
    const held = await up('alice', lost);
    await pass(SILENT_SECONDS - STEP_SECONDS, living);
    clock.pass(3600);
    await sessions.sweep();
    await pass(SILENT_SECONDS - STEP_SECONDS, living);
    assert.equal(await stateOf(held), 'up', 'the store was away');
    reign = 'second';
    await beat(living);
    for (const node of [lost, living]) await sessions.assert(node, []);
    await pass(SILENT_SECONDS, living);
    assert.equal(await stateOf(held), 'up', 'another store');
    await pass(2 * STEP_SECONDS, living);
    assert.equal(await stateOf(held), 'parked');
  });
});

const lost: NodeIdentity = { name: 'n1', incarnation: 'i1' };
const living: NodeIdentity = { name: 'n2', incarnation: 'i1' };
const SILENT_SECONDS = Number(SILENT_MICROS / 1_000_000n);
/** Less than what counts as an absence of the store. */
const STEP_SECONDS = 5;
