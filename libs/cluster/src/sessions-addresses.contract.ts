import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Grant } from '@sallyport/protocol';
import type { Session } from './session.ts';
import { seeded } from './sessions-world.contract.ts';
import type { ContractWorld } from './sessions-world.contract.ts';

/** Which addresses a session gets and keeps. */
export function addressesContract(world: ContractWorld): void {
  const { login, connect, up, refused, get, used } = world;

  describe('addresses', () => {
    it('gives the families that are wanted and offered, and refuses when there is none', async () => {
      const v4 = { ipv6Pools: [] };
      const v6 = { ipv4Pools: [] };
      const only4 = await up(await login('a', v4));
      assert.equal(only4.addresses.ipv6, '');
      assert.match(only4.addresses.ipv4, /^10\.90\./);
      const only6 = await up(await login('b', v6));
      assert.equal(only6.addresses.ipv4, '');
      assert.match(only6.addresses.ipv6, /^fd00:90:/);
      await refused(await login('c', v4), 'no-address-family', { wantIpv4: false });
      await refused(await login('d', v6), 'no-address-family', { wantIpv6: false });
      await refused(await login('e'), 'no-address-family', { wantIpv4: false, wantIpv6: false });
    });

    it('keeps an address that is not wanted for now, and adds a family later', async () => {
      const session = await login();
      const first = await up(session, { wantIpv6: false });
      assert.equal(first.addresses.ipv6, '');
      const second = await up(session);
      assert.equal(second.addresses.ipv4, first.addresses.ipv4);
      assert.notEqual(second.addresses.ipv6, '');
      const third = await up(session, { wantIpv4: false });
      assert.deepEqual(third.addresses, { ipv4: '', ipv6: second.addresses.ipv6 });
      assert.deepEqual((await up(session)).addresses, second.addresses);
    });

    it('refuses when a pool is empty of all but live sessions', async () => {
      const grant = { ipv4Pools: ['10.1.0.0/31', '10.2.0.0/31'], ipv6Pools: [] };
      const first = await login('a', grant);
      const second = await login('b', grant);
      const third = await login('c', grant);
      const { addresses } = await up(first);
      assert.equal(addresses.ipv4, '10.1.0.1', 'pools in order');
      assert.equal((await up(second)).addresses.ipv4, '10.2.0.1');
      await refused(third, 'pool-empty');
      const half = await get(third);
      assert.deepEqual([half.state, half.addresses, half.n], ['authed', { ipv4: '', ipv6: '' }, 1]);
      await world.sessions.end(first.id, 'logout');
      assert.equal((await up(third)).addresses.ipv4, '10.1.0.1');
    });

    it('keeps the address of a parked session from others while there is another one', async () => {
      const grant = { ipv4Pools: ['10.1.0.0/29'], ipv6Pools: [] };
      const parked = await login('a', grant);
      const { lease, addresses } = await up(parked);
      await world.sessions.park(parked.id, lease, 'connection-lost', used(0n, 0n));
      for (const user of ['b', 'c', 'd', 'e'])
        assert.notEqual((await up(await login(user, grant))).addresses.ipv4, addresses.ipv4);
      assert.deepEqual((await up(parked)).addresses, addresses);
    });

    it('gives the address of a parked session away when the pool is empty: the longest parked of the user first', async () => {
      const grant = { ipv4Pools: ['10.1.0.0/29'], ipv6Pools: ['fd00:1::/125'], maxSameClients: 0 };
      const users = ['carol', 'alice', 'dave', 'alice', 'erin'];
      const parked: Session[] = [];
      for (const user of users) {
        const session = await login(user, grant);
        const { lease } = await up(session);
        world.clock.pass(1);
        if (user !== 'erin') await world.sessions.park(session.id, lease, 'connection-lost', used(0n, 0n));
        parked.push(session);
      }
      const reasons = async () => (await Promise.all(parked.map(get))).map((session) => session.endReason);
      await up(await login('alice', grant));
      assert.deepEqual(await reasons(), ['', 'replaced', '', '', ''], 'her own, the older one');
      await up(await login('bob', grant));
      assert.deepEqual(await reasons(), ['replaced', 'replaced', '', '', ''], 'then the longest parked');
      await up(await login('bob', grant));
      await up(await login('bob', grant));
      assert.deepEqual(await reasons(), ['replaced', 'replaced', 'replaced', 'replaced', '']);
      await refused(await login('bob', grant), 'pool-empty');
      assert.equal((await get(parked[4] ?? assert.fail())).state, 'up', 'a live one never yields');
    });

    it('lets nobody yield for nothing: not in another pool, nor with a reserved address, nor for a refusal', async () => {
      const grant = { ipv4Pools: ['10.1.0.0/30'], ipv6Pools: [] };
      const park = async (session: Session) => {
        const { lease } = await up(session);
        await world.sessions.park(session.id, lease, 'connection-lost', used(0n, 0n));
      };
      const elsewhere = await login('a', { ipv4Pools: ['10.2.0.0/30'], ipv6Pools: [] });
      await park(elsewhere);
      const fixed = await login('b', { ...grant, explicitIpv4: '10.1.0.2' });
      await park(fixed);
      const limits = { maxClients: 0, connectsPerMinute: 0, reserved: ['10.1.0.2'] };
      world.sessions.configure(limits);
      await refused(await login('c', grant), 'pool-empty');
      world.sessions.configure({ ...limits, maxClients: 1 });
      await up(await login('d', { ipv4Pools: ['10.3.0.0/30'], ipv6Pools: [] }));
      await refused(await login('a', elsewhere.grant), 'max-clients');
      for (const session of [elsewhere, fixed]) assert.equal((await get(session)).state, 'parked');
    });

    it('holds nothing when only one of two families is left', async () => {
      const grant = { ipv4Pools: ['10.1.0.0/29'], ipv6Pools: ['fd00:1::/127'] };
      await up(await login('a', grant));
      const second = await login('b', grant);
      await refused(second, 'pool-empty');
      const ipv4 = (await world.sessions.pools()).find((pool) => pool.family === 'ipv4');
      assert.equal(ipv4?.used, 1);
    });

    it('gives a user of a profile his last address again', async () => {
      const first = await login('bob');
      const { addresses } = await up(first);
      await world.sessions.end(first.id, 'logout');
      await up(await login('alice'));
      assert.deepEqual((await up(await login('bob'))).addresses, addresses);
    });

    it('gives the fixed address, to one session of its user at a time', async () => {
      const grant = { explicitIpv4: '10.90.1.1', explicitIpv6: 'fd00:90::1:1' };
      const first = await login('bob', grant);
      const second = await login('bob', grant);
      const { addresses, lease } = await up(first);
      assert.deepEqual(addresses, { ipv4: '10.90.1.1', ipv6: 'fd00:90::1:1' });
      await refused(second, 'address-taken');
      await world.sessions.park(first.id, lease, 'connection-lost', used(0n, 0n));
      assert.deepEqual((await up(second)).addresses, addresses);
      assert.equal((await get(first)).endReason, 'replaced', 'the parked session yields');
      await refused(await login('eve', grant), 'address-taken');
    });

    it('gives the fixed addresses of the configuration from no pool, to nobody else, in both families', async () => {
      const pools = {
        ipv4Pools: ['10.1.0.0/29'],
        ipv6Pools: ['fd00:1::/62'],
        ipv6SubnetPrefix: 64,
      };
      const limits = { maxClients: 0, connectsPerMinute: 0 };
      const bob = { ...pools, explicitIpv4: '10.1.0.4', explicitIpv6: 'fd00:1:0:2::7' };
      // One that a user had before, when it was nobody's: it does not come back to him.
      const early = await login('early', { ...pools, explicitIpv4: '10.1.0.4', ipv6Pools: [] });
      await up(early);
      world.sessions.configure({ ...limits, reserved: ['10.1.0.4', 'fd00:1:0:2::7'] });
      await world.sessions.end(early.id, 'logout');
      const got: string[] = [];
      for (const user of ['early', 'a', 'b', 'c']) {
        got.push((await up(await login(user, { ...pools, ipv6Pools: [] }))).addresses.ipv4);
      }
      assert.deepEqual(got.toSorted(), ['10.1.0.2', '10.1.0.3', '10.1.0.5', '10.1.0.6']);
      await refused(await login('d', { ...pools, ipv6Pools: [] }), 'pool-empty');
      const only6 = { ...pools, ipv4Pools: [] };
      const prefixes = [await up(await login('e', only6)), await up(await login('f', only6))];
      assert.deepEqual(prefixes.map(({ addresses }) => addresses.ipv6).toSorted(), [
        'fd00:1:0:1::1',
        'fd00:1:0:3::1',
      ]);
      await refused(await login('g', only6), 'pool-empty');
      assert.deepEqual((await up(await login('bob', bob))).addresses, {
        ipv4: '10.1.0.4',
        ipv6: 'fd00:1:0:2::7',
      });
      world.sessions.configure(limits);
      await world.sessions.endOfUser('bob', 'logout');
      assert.equal(
        (await up(await login('d', { ...pools, ipv6Pools: [] }))).addresses.ipv4,
        '10.1.0.4',
        'no longer reserved',
      );
    });

    it('lets a live session with the fixed address go where on-limit says so', async () => {
      const grant: Partial<Grant> = { explicitIpv4: '10.90.1.1', ipv6Pools: [], onLimit: 'replace-oldest' };
      const first = await login('bob', grant);
      await up(first);
      assert.equal((await up(await login('bob', grant))).addresses.ipv4, '10.90.1.1');
      assert.equal((await get(first)).endReason, 'replaced');
    });

    it('shows how full each pool is', async () => {
      const grant = {
        ipv4Pools: ['10.1.0.0/24', '10.1.1.0/30'],
        ipv6Pools: ['fd00:1::/56'],
        ipv6SubnetPrefix: 64,
      };
      await up(await login('a', grant));
      const session = await login('b', grant);
      await up(session, { wantIpv4: false });
      await world.sessions.end(session.id, 'logout');
      const pools = [...(await world.sessions.pools())].sort((a, b) => (a.pool < b.pool ? -1 : 1));
      assert.deepEqual(pools, [
        { pool: '10.1.0.0/24', family: 'ipv4', size: 253n, used: 1 },
        { pool: '10.1.1.0/30', family: 'ipv4', size: 1n, used: 0 },
        { pool: 'fd00:1::/56', family: 'ipv6', size: 255n, used: 1 },
      ]);
    });

    it('never gives one address twice, over any history', async () => {
      const random = seeded(20_261);
      const grant = {
        ipv4Pools: ['10.1.0.0/28', '10.1.0.0/27'],
        ipv6Pools: ['fd00:1::/60'],
        ipv6SubnetPrefix: 64,
      };
      const known: Session[] = [];
      const tally: Record<string, number> = {};
      for (let i = 0; i < 600; i++) {
        const pick = known[random(known.length)];
        const action = random(10);
        if (action < 3 || pick === undefined) known.push(await login(`user${random(12)}`, grant));
        else if (action < 8) {
          const claim = await connect(pick);
          const outcome = claim.ok ? 'claimed' : claim.reason;
          tally[outcome] = (tally[outcome] ?? 0) + 1;
        } else if (action === 8) {
          const { lease } = await get(pick).catch(() => ({ lease: undefined }));
          if (lease !== undefined) await world.sessions.park(pick.id, lease, 'connection-lost', used(0n, 0n));
        } else await world.sessions.end(pick.id, 'logout');
        world.clock.pass(random(20));
        if (i % 10 === 0) await world.sessions.sweep();
        const live = await world.sessions.list();
        for (const family of ['ipv4', 'ipv6'] as const) {
          const held = live.map((session) => session.addresses[family]).filter((address) => address !== '');
          assert.equal(new Set(held).size, held.length, `step ${i}: an address is held twice`);
        }
      }
      assert.ok((tally['claimed'] ?? 0) > 50 && (tally['pool-empty'] ?? 0) > 0, JSON.stringify(tally));
    });
  });
}
