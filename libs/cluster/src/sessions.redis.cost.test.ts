import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { RedisServer } from './redis-server.fake.ts';
import { Redis } from './redis.ts';
import { sampleClaim, sampleLogin } from './session.fake.ts';
import { RedisSessions } from './sessions.redis.ts';
import { hashToken, newToken } from './tokens.ts';

const CLAIMS = 40;
const BYTES = 1200;
/** As long as that of a P-256 key. */
const STRAP_KEY = 'M'.repeat(124);

describe('what sessions in Redis cost', () => {
  let server: RedisServer;
  let redis: Redis;
  let sessions: RedisSessions;

  before(async () => {
    server = await RedisServer.start();
    // What a test prepares in one call takes its time on a busy machine.
    redis = await Redis.open(server.settings, { windowMicros: 0n, deadlineMillis: 120_000 });
    sessions = new RedisSessions({ redis, pollMillis: 60_000 });
  });
  after(async () => {
    await redis.close();
    await server.stop();
  });

  const POOL = { ipv4Pools: ['10.64.0.0/16'], ipv6Pools: ['fd00:64::/48'], ipv6SubnetPrefix: 64 };
  const SIZE = 65_533;

  it('chooses an address for the same price with 100 and with 60,000 taken, finds the last one, then says empty', async (context) => {
    const few = await priceAt(100);
    const many = await priceAt(60_000);
    const nearlyFull = await priceAt(SIZE - 100);
    assert.ok(many.commands < few.commands * 1.5, `${few.commands} and ${many.commands} commands`);
    assert.ok(nearlyFull.commands < few.commands * 4, `${few.commands} and ${nearlyFull.commands} commands`);
    context.diagnostic(`${few.micros}, ${many.micros} and ${nearlyFull.micros} µs`);
    await take(SIZE - 1);
    const last = await up('last');
    assert.ok(last.ok && last.addresses.ipv4.startsWith('10.64.'));
    assert.deepEqual(await up('nobody'), { ok: false, reason: 'pool-empty' });
  });

  it('lets a parked session yield for the same price in a small and in a large pool that is full', async () => {
    const few = await priceOfYielding('10.65.0.0/26');
    const many = await priceOfYielding('10.66.0.0/21');
    assert.ok(many < few * 2, `${few} and ${many} commands`);
  });

  it(`keeps a session with a tunnel in at most ${BYTES} bytes, and runs one script for a resume`, async () => {
    const used = async () =>
      Number(/used_memory:(\d+)/.exec(String(await redis.call('INFO', 'memory')))?.[1]);
    await redis.call('FLUSHALL');
    await up('warm', { ipv4Pools: ['10.0.0.0/8'] });
    await settle();
    const before = await used();
    for (let i = 0; i < 10; i++) {
      await Promise.all(
        Array.from({ length: 100 }, (_, j) => up(`user${i}.${j}`, { ipv4Pools: ['10.0.0.0/8'] })),
      );
    }
    await settle();
    const each = ((await used()) - before) / 1000;
    assert.ok(each <= BYTES, `${each} bytes`);

    const session = await sessions.create(sampleLogin(hashToken(newToken())));
    await sessions.claim(sampleClaim(session.tokenHash, 'first'));
    const calls = async () =>
      [...String(await redis.call('INFO', 'commandstats')).matchAll(/cmdstat_evalsha:calls=(\d+)/g)].map(
        (m) => Number(m[1]),
      )[0] ?? 0;
    const start = await calls();
    await sessions.claim(sampleClaim(session.tokenHash, 'second'));
    assert.equal((await calls()) - start, 1);
  });

  /** Without the event stream, which the outbox empties, and the CONNECTs of the last minute. */
  async function settle(): Promise<void> {
    const forget = `for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end`;
    await redis.call('EVAL', forget, 0, `${redis.prefix}k:*`);
    await redis.call('DEL', `${redis.prefix}events`);
  }

  async function up(user: string, grant: { ipv4Pools: string[] } = POOL) {
    const login = sampleLogin(hashToken(newToken()), user, grant);
    const session = await sessions.create({ ...login, strapKey: STRAP_KEY });
    const node = { name: 'vpn1', incarnation: '0123456789abcdef' };
    return sessions.claim(sampleClaim(session.tokenHash, randomUUID(), { node, wantIpv6: grant !== POOL }));
  }

  /** Marks blocks of the pool as taken, as claims do. */
  async function take(count: number): Promise<void> {
    const script = `local key, missing = KEYS[1], ARGV[1] - redis.call('ZCARD', KEYS[1])
      for i = 0, 65535 do
        if missing <= 0 then return end
        local block = string.format('0a40%04x20', i * 40503 % 65536)
        local free = #redis.call('ZRANGEBYLEX', key, '[' .. block, '[' .. block .. '\\255') == 0
        if free and block ~= '0a40000020' and block ~= '0a40000120' and block ~= '0a40ffff20' then
          redis.call('ZADD', key, 0, block .. string.rep('x', 16))
          missing = missing - 1
        end
      end`;
    await redis.call('EVAL', script, 1, `${redis.prefix}taken4`, count);
  }

  /** Fills the pool with parked sessions of as many users. @returns commands of one claim then, with fixed addresses. */
  async function priceOfYielding(cidr: string): Promise<number> {
    const grant = { ipv4Pools: [cidr] };
    const [address = '', length] = cidr.split('/');
    const reserved = [address.replace(/0$/, '9'), '192.0.2.1'];
    sessions.configure({ maxClients: 0, connectsPerMinute: 0, reserved });
    const free = 2 ** (32 - Number(length)) - 4;
    for (let i = 0; i < free; i += 64) {
      const group = Array.from({ length: Math.min(64, free - i) }, async (_, j) => {
        const claim = await up(`parked${cidr}${i + j}`, grant);
        assert.ok(claim.ok);
        const usage = { rxBytes: 0n, txBytes: 0n, activeAt: 0n };
        await sessions.park(claim.session.id, claim.lease, 'connection-lost', usage);
      });
      await Promise.all(group);
    }
    let commands = 0;
    for (let i = 0; i < CLAIMS; i++) {
      const session = await sessions.create(sampleLogin(hashToken(newToken()), `more${cidr}${i}`, grant));
      await redis.call('CONFIG', 'RESETSTAT');
      const claim = await sessions.claim(sampleClaim(session.tokenHash, 'c', { wantIpv6: false }));
      assert.ok(claim.ok && !reserved.includes(claim.addresses.ipv4));
      const stats = String(await redis.call('INFO', 'commandstats'));
      for (const [, calls] of stats.matchAll(/calls=(\d+)/g)) commands += Number(calls) / CLAIMS;
    }
    assert.equal((await sessions.pools()).find(({ pool }) => pool === cidr)?.used, free);
    return commands;
  }

  /** What the server does for one first claim: commands of the script, on average, and µs, the median. */
  async function priceAt(taken: number): Promise<{ commands: number; micros: number }> {
    await take(taken);
    const times: number[] = [];
    let commands = 0;
    for (let i = 0; i < CLAIMS; i++) {
      const session = await sessions.create(sampleLogin(hashToken(newToken()), `price${taken}.${i}`, POOL));
      await redis.call('CONFIG', 'RESETSTAT');
      await sessions.claim(sampleClaim(session.tokenHash, 'c', { wantIpv6: false }));
      const stats = String(await redis.call('INFO', 'commandstats'));
      times.push(Number(/cmdstat_evalsha:calls=1,usec=(\d+)/.exec(stats)?.[1]));
      for (const [, calls] of stats.matchAll(/calls=(\d+)/g)) commands += Number(calls) / CLAIMS;
    }
    return { commands, micros: times.sort((a, b) => a - b)[CLAIMS / 2] ?? NaN };
  }
});
