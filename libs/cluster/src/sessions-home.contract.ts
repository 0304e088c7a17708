import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { cidrContains, parseAddress, parseCidr, type Grant } from '@sallyport/protocol';
import { REUSE_DELAY_SECONDS } from './addresses.ts';
import { homeOf } from './home-slices.ts';
import type { ContractWorld } from './sessions-world.contract.ts';

/** Nodes give addresses of their own slice of each pool first (CLUSTER.md C7). */
export function homeContract(world: ContractWorld): void {
  const { login, up, refused } = world;
  const settle = (home: readonly string[]) =>
    world.sessions.configure({ maxClients: 0, connectsPerMinute: 0, home });

  describe('home', () => {
    for (const { grant, pool, sizes } of POOLS) {
      it(`gives addresses of home first and all others then (${pool})`, async () => {
        const family = pool.includes(':') ? 'ipv6' : 'ipv4';
        const seen = new Set<string>();
        for (const [index, size] of sizes.entries()) {
          const home = homeOf([pool], index + 1, sizes.length);
          settle(home);
          for (let count = 0; count < size; count++) {
            const { addresses } = await up(await login(`user${index}-${count}`, grant));
            assert.ok(isIn(home, addresses[family]), `${addresses[family]} is in none of ${home.join(' ')}`);
            seen.add(addresses[family]);
          }
        }
        assert.equal(
          seen.size,
          sizes.reduce((sum, size) => sum + size, 0),
        );
        await refused(await login('one too many', grant), 'pool-empty');
      });
    }

    it('gives what is away from home when home is full', async () => {
      const grant = { ipv4Pools: ['10.1.0.0/27'], ipv6Pools: [] };
      settle(homeOf(grant.ipv4Pools, 1, 4));
      const given: string[] = [];
      for (let count = 0; count < 29; count++)
        given.push((await up(await login(`u${count}`, grant))).addresses.ipv4);
      assert.ok(given.slice(0, 6).every((address) => isIn(['10.1.0.0/29'], address)));
      assert.ok(given.slice(6).every((address) => !isIn(['10.1.0.0/29'], address)));
      assert.equal(new Set(given).size, 29);
      await refused(await login('last', grant), 'pool-empty');
    });

    it('gives a user the last address again at home, and another where that one is away from home', async () => {
      const grant = { ipv4Pools: ['10.1.0.0/24'], ipv6Pools: [] };
      const [here = '', there = ''] = [1, 2].flatMap((number) => homeOf(grant.ipv4Pools, number, 2));
      settle([here]);
      const first = await login('bob', grant);
      const { addresses } = await up(first);
      await world.sessions.end(first.id, 'logout');
      const second = await login('bob', grant);
      assert.deepEqual((await up(second)).addresses, addresses);
      await world.sessions.end(second.id, 'logout');
      settle([there]);
      assert.ok(isIn([there], (await up(await login('bob', grant))).addresses.ipv4));
    });

    it('gives what rests at home before what is free elsewhere, after the delay', async () => {
      const grant = { ipv4Pools: ['10.1.0.0/27'], ipv6Pools: [] };
      settle(homeOf(grant.ipv4Pools, 1, 4));
      const sessions = [];
      for (let count = 0; count < 6; count++) sessions.push(await login(`u${count}`, grant));
      for (const session of sessions) await up(session);
      for (const session of sessions) await world.sessions.end(session.id, 'logout');
      assert.ok(!isIn(['10.1.0.0/29'], (await up(await login('early', grant))).addresses.ipv4));
      world.clock.pass(REUSE_DELAY_SECONDS);
      assert.ok(isIn(['10.1.0.0/29'], (await up(await login('late', grant))).addresses.ipv4));
    });

    it('keeps the address of a session wherever it is claimed, and says who had it last', async () => {
      const grant = { ipv4Pools: ['10.1.0.0/24'], ipv6Pools: ['fd00:1::/64'] };
      settle(['10.1.0.0/25', 'fd00:1::/65']);
      const session = await login('a', grant);
      const first = await up(session);
      settle(['10.1.0.128/25', 'fd00:1::8000:0:0:0/65']);
      const returning: boolean[] = [first.returning];
      for (const name of ['n2', 'n2', 'n1']) {
        const claim = await up(session, { node: { name, incarnation: 'i1' } });
        assert.deepEqual(claim.addresses, first.addresses);
        returning.push(claim.returning);
      }
      assert.deepEqual(returning, [false, false, true, false]);
    });
  });
}

const POOLS: { grant: Partial<Grant>; pool: string; sizes: number[] }[] = [
  // 16 units of 4: 5, 5 and 6; without network, gateway and broadcast address.
  { pool: '10.1.0.0/25', sizes: [38, 40, 47], grant: { ipv4Pools: ['10.1.0.0/25'], ipv6Pools: [] } },
  { pool: 'fd00:1::/121', sizes: [62, 64], grant: { ipv4Pools: [], ipv6Pools: ['fd00:1::/121'] } },
  {
    pool: 'fd00:1::/59',
    sizes: [15, 16],
    grant: { ipv4Pools: [], ipv6Pools: ['fd00:1::/59'], ipv6SubnetPrefix: 64 },
  },
  // The inner pool of a group lies in the outer one, which alone is cut.
  { pool: '10.1.0.0/25', sizes: [13], grant: { ipv4Pools: ['10.1.0.16/28'], ipv6Pools: [] } },
];

function isIn(home: readonly string[], address: string): boolean {
  const bytes = parseAddress(address) ?? assert.fail(address);
  return home.some((cidr) => cidrContains(parseCidr(cidr) ?? assert.fail(cidr), bytes));
}
