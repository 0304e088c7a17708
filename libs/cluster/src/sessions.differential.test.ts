import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Grant } from '@sallyport/protocol';
import { homeOf } from './home-slices.ts';
import { RedisServer } from './redis-server.fake.ts';
import { Redis } from './redis.ts';
import { sampleClaim, sampleLogin, TestClock } from './session.fake.ts';
import { seeded } from './sessions.contract.ts';
import type { Lease, Session } from './session.ts';
import type { ClaimRequest, Sessions } from './sessions.ts';
import { MemorySessions } from './sessions.memory.ts';
import { RedisSessions } from './sessions.redis.ts';

/** The rules exist twice, in TypeScript and in Lua: over random histories both say and store the same. */
describe('the table in Redis against the table in memory', () => {
  let server: RedisServer;

  before(async () => {
    server = await RedisServer.start();
  });
  after(() => server.stop());

  for (const seed of [1, 2, 3]) {
    it(`takes the same decisions over a random history (${seed})`, async () => {
      const clock = new TestClock();
      const settings = { ...server.settings, cluster: `history-${seed}` };
      const redis = await Redis.open(settings, { clock: clock.read, awayMicros: 0n, windowMicros: 0n });
      const limits = { maxClients: 0, connectsPerMinute: 0, reserved: RESERVED };
      const memory = await MemorySessions.open({ clock: clock.read, limits });
      const pair = new Pair(memory, new RedisSessions({ redis, limits, pollMillis: 5000 }));
      const random = seeded(seed);
      try {
        for (let step = 0; step < STEPS; step++) {
          await pair.act(random, clock, step);
          if (step % 25 === 0) await pair.compareAll(`seed ${seed}, step ${step}`);
        }
        await pair.compareAll(`seed ${seed}, the end`);
        assert.ok(
          pair.claims > 60 && pair.refusals.size >= 5 && pair.yielded > 3,
          JSON.stringify([pair.claims, pair.yielded, ...pair.refusals]),
        );
      } finally {
        await pair.close();
        await redis.close();
      }
    });
  }
});

const STEPS = 600;
const GRANTS: Partial<Grant>[] = [
  {
    ipv4Pools: ['10.1.1.0/31', '10.1.0.0/29'],
    ipv6Pools: ['fd00:1::/124'],
    maxSameClients: 2,
    sessionTimeoutSeconds: 3000,
  },
  {
    ipv4Pools: ['10.2.0.0/30'],
    ipv6Pools: ['fd00:2::/61'],
    ipv6SubnetPrefix: 64,
    maxSameClients: 1,
    onLimit: 'replace-oldest',
  },
  { ipv4Pools: [], ipv6Pools: ['fd00:3::/120'], cookieTimeoutSeconds: 60, disconnectedTimeoutSeconds: 40 },
  { explicitIpv4: '10.3.0.9', explicitIpv6: 'fd00:4::9', onLimit: 'replace-oldest' },
  { explicitIpv4: '10.3.0.8', ipv6Pools: [] },
  // An address of the first pools, for its user alone.
  { explicitIpv4: '10.1.0.3', ipv6Pools: ['fd00:1::/124'], maxSameClients: 1, onLimit: 'replace-oldest' },
];
const POOLS = GRANTS.flatMap(({ ipv4Pools = [], ipv6Pools = [] }) => [...ipv4Pools, ...ipv6Pools]);
const RESERVED = ['10.1.0.3', '10.3.0.9', 'fd00:2:0:3::5', 'fd00:1::7'];

interface Known {
  memory: Session;
  redis: Session;
  leases: { memory: Lease; redis: Lease }[];
}

class Pair {
  claims = 0;
  /** Sessions that ended for another one. */
  yielded = 0;
  readonly refusals = new Set<string>();
  readonly #memory: Sessions;
  readonly #redis: Sessions;
  readonly #known: Known[] = [];

  constructor(memory: Sessions, redis: Sessions) {
    this.#memory = memory;
    this.#redis = redis;
  }

  async act(random: (limit: number) => number, clock: TestClock, step: number): Promise<void> {
    // Mostly the newer ones: the older ones have ended.
    const pick = this.#known[this.#known.length - 1 - random(Math.min(this.#known.length, 16))];
    const action = random(20);
    // Nothing happens twice at one time: of two that were parked together either may go.
    clock.pass((random(8) === 0 ? random(90) : random(3)) + 0.000001);
    if (action < 4 || pick === undefined) return this.#login(random, step);
    if (action < 12) return this.#claim(pick, random, step);
    if (action < 17) return this.#ofLease(pick, random, action);
    if (action === 17) return this.#both((table, side) => table.end(pick[side].id, 'logout'));
    if (action === 18 && random(4) === 0) {
      return this.#both((table) => table.endOfUser(`user${random(1)}`, 'user-locked'));
    }
    if (random(3) === 0) {
      const limits = {
        maxClients: random(3) * 8,
        connectsPerMinute: random(3) * 3,
        reserved: RESERVED,
        home: homeOf(POOLS, 1 + (step % 3), step % 4),
      };
      this.#memory.configure(limits);
      this.#redis.configure(limits);
    }
    if (random(6) === 0) await this.#both((table) => table.announce({ name: 'n1', incarnation: `i${step}` }));
    return this.#both((table) => table.sweep());
  }

  async compareAll(where: string): Promise<void> {
    for (const known of this.#known) {
      const [memory, redis] = await Promise.all([
        this.#memory.get(known.memory.id),
        this.#redis.get(known.redis.id),
      ]);
      assert.deepEqual(comparable(redis), comparable(memory), where);
      const found = await this.#redis.find(known.redis.tokenHash);
      assert.deepEqual(found, redis, where);
    }
    const ended = await Promise.all(this.#known.map((known) => this.#memory.get(known.memory.id)));
    this.yielded = Math.max(this.yielded, ended.filter((one) => one?.endReason === 'replaced').length);
    const live = await this.#redis.list();
    assert.equal(live.length, (await this.#memory.list()).length, where);
    for (const family of ['ipv4', 'ipv6'] as const) {
      const held = live.map((session) => session.addresses[family]).filter((address) => address !== '');
      assert.equal(new Set(held).size, held.length, `${where}: an address is held twice`);
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.#memory.close(), this.#redis.close()]);
  }

  async #login(random: (limit: number) => number, step: number): Promise<void> {
    const input = sampleLogin(
      step.toString(16).padStart(64, '0'),
      `user${random(6)}`,
      GRANTS[random(GRANTS.length)],
    );
    const strapKey = random(2) === 0 ? '' : `key${step}`;
    const [memory, redis] = await Promise.all(
      [this.#memory, this.#redis].map((table) => table.create({ ...input, strapKey })),
    );
    if (memory !== undefined && redis !== undefined) this.#known.push({ memory, redis, leases: [] });
  }

  async #claim(pick: Known, random: (limit: number) => number, step: number): Promise<void> {
    const again = random(5) === 0 ? pick.leases[random(pick.leases.length)]?.memory.claimId : undefined;
    const request = sampleClaim(pick.memory.tokenHash, again ?? `c${step}`, {
      node: { name: `n${random(3)}`, incarnation: 'i' },
      wantIpv4: random(5) > 0,
      wantIpv6: random(5) > 0,
      strapKey: random(3) === 0 ? `key${step}` : '',
      mtuBytes: 1200 + random(3),
      seenEpoch: 0n,
    } satisfies Partial<ClaimRequest>);
    const [memory, redis] = [await this.#memory.claim(request), await this.#redis.claim(request)];
    if (!memory.ok || !redis.ok) {
      assert.deepEqual(redis, memory, `step ${step}`);
      if (!memory.ok) this.refusals.add(memory.reason);
      return;
    }
    this.claims++;
    assert.deepEqual(
      [redis.resumed, redis.returning, redis.lease],
      [memory.resumed, memory.returning, memory.lease],
      `step ${step}`,
    );
    pick.leases.push({ memory: memory.lease, redis: redis.lease });
  }

  #ofLease(pick: Known, random: (limit: number) => number, action: number): Promise<void> {
    const lease = pick.leases[pick.leases.length - 1 - random(2)];
    if (lease === undefined) return Promise.resolve();
    const usage = {
      rxBytes: BigInt(random(100)),
      txBytes: BigInt(random(100)),
      activeAt: BigInt(random(1000)),
    };
    return this.#both((table, side) => {
      const { id } = pick[side];
      if (action < 15) return table.park(id, lease[side], 'connection-lost', usage);
      if (action === 15) return table.checkpoint(id, lease[side], usage);
      return table.endByNode(id, lease[side], 'user-disconnect', usage);
    });
  }

  async #both(call: (table: Sessions, side: 'memory' | 'redis') => Promise<unknown>): Promise<void> {
    const memory = await call(this.#memory, 'memory');
    assert.deepEqual(await call(this.#redis, 'redis'), memory);
  }
}

/** Ids and the drawn addresses differ by nature. */
function comparable(session: Session | undefined) {
  if (session === undefined) return undefined;
  const { ipv4, ipv6 } = session.addresses;
  const drawn = session.grant.explicitIpv4 === '';
  return {
    ...session,
    id: '',
    addresses: drawn ? { ipv4: ipv4 !== '', ipv6: ipv6 !== '' } : { ipv4, ipv6: ipv6 !== '' },
  };
}
