import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import type { Grant } from '@sallyport/protocol';
import { sampleClaim } from './session.fake.ts';
import { PARKED_PER_USER_MIN } from './session-decisions.ts';
import type { Session } from './session.ts';
import { elsewhere, here } from './sessions-world.contract.ts';
import type { ContractWorld } from './sessions-world.contract.ts';

/** How many sessions may have a tunnel, and how often a token may ask. */
export function limitsContract(world: ContractWorld): void {
  const { login, up, refused, get, listen, delivered, used } = world;

  describe('limits', () => {
    it('counts sessions of one user with a tunnel at CONNECT, and a reconnect is free', async () => {
      const grant = { maxSameClients: 2 };
      const first = await login('bob', grant);
      const second = await login('bob', grant);
      const third = await login('bob', grant);
      const { lease } = await up(first);
      await up(second);
      await refused(third, 'max-same-clients');
      assert.equal((await get(third)).state, 'authed', 'it may try again');
      await up(second, { node: elsewhere });
      await up(await login('alice', grant));
      await world.sessions.park(first.id, lease, 'connection-lost', used(0n, 0n));
      await up(third);
      await refused(first, 'max-same-clients');
    });

    it('never counts a parked session against its own user', async () => {
      const grant = { maxSameClients: 1 };
      for (let device = 0; device < 5; device++) {
        const session = await login('bob', grant);
        const { lease } = await up(session);
        await world.sessions.park(session.id, lease, 'connection-lost', used(0n, 0n));
      }
      assert.equal((await world.sessions.list()).length, 5);
    });

    it('bounds the parked sessions of one user who has a limit: the longest parked goes for a new one', async () => {
      const park = async (user: string, grant: Partial<Grant>) => {
        const session = await login(user, grant);
        const { lease } = await up(session);
        await world.sessions.park(session.id, lease, 'connection-lost', used(0n, 0n));
        world.clock.pass(1);
        return session;
      };
      for (const [user, maxSameClients, kept] of [
        ['few', 1, PARKED_PER_USER_MIN],
        ['many', PARKED_PER_USER_MIN + 2, PARKED_PER_USER_MIN + 2],
      ] as const) {
        const parked: Session[] = [];
        for (let i = 0; i < kept + 1; i++) parked.push(await park(user, { maxSameClients }));
        const [first, second] = parked;
        assert.ok(first !== undefined && second !== undefined);
        assert.equal((await get(first)).state, 'parked');
        await up(second);
        await world.sessions.park(second.id, (await up(second)).lease, 'connection-lost', used(0n, 0n));
        assert.equal((await get(first)).state, 'parked', 'a reconnect lets nobody go');
        await up(await login(user, { maxSameClients }));
        assert.equal((await get(first)).endReason, 'replaced');
        assert.equal((await get(second)).state, 'parked', 'it was parked later');
      }
      const unlimited = await park('shared', { maxSameClients: 0 });
      for (let i = 0; i < PARKED_PER_USER_MIN + 2; i++) await park('shared', { maxSameClients: 0 });
      assert.equal((await get(unlimited)).state, 'parked');
    });

    it('lets the oldest go where on-limit says so, and tells its node', async () => {
      const heard = listen(here);
      const grant: Partial<Grant> = { maxSameClients: 2, onLimit: 'replace-oldest' };
      const oldest = await login('bob', grant);
      world.clock.pass(1);
      const middle = await login('bob', grant);
      const newest = await login('bob', grant);
      await up(middle);
      const { lease } = await up(oldest);
      await up(newest);
      assert.equal((await get(oldest)).endReason, 'replaced');
      assert.equal((await get(middle)).state, 'up');
      await delivered(heard, 1);
      assert.deepEqual(heard, [{ sessionId: oldest.id, upToEpoch: lease.epoch, reason: 'replaced' }]);
    });

    it('tells the claiming node of its tunnels that are lost by a claim before the claim resolves', async () => {
      const heard = listen(here);
      const grant: Partial<Grant> = {
        maxSameClients: 1,
        onLimit: 'replace-oldest',
        explicitIpv4: '10.90.1.1',
      };
      const first = await login('bob', grant);
      const second = await login('bob', grant);
      await up(first);
      const heardAt = (session: Session) =>
        world.sessions
          .claim(sampleClaim(session.tokenHash, randomUUID()))
          .then(() => heard.map((notice) => notice.reason));
      assert.deepEqual(await heardAt(first), ['superseded']);
      assert.deepEqual(await heardAt(second), ['superseded', 'replaced']);
    });

    it('ends nobody when the claim is refused for another reason', async () => {
      const grant: Partial<Grant> = { maxSameClients: 1, onLimit: 'replace-oldest' };
      world.sessions.configure({ maxClients: 2, connectsPerMinute: 0 });
      const first = await login('bob', { ...grant, ipv4Pools: ['10.1.0.0/30'] });
      await up(first, { wantIpv6: false });
      await up(await login('carol', { ipv4Pools: ['10.2.0.0/30'] }), { wantIpv6: false });
      const second = await login('bob', { ...grant, ipv4Pools: ['10.2.0.0/30'] });
      await refused(second, 'pool-empty', { wantIpv6: false });
      assert.equal((await get(first)).state, 'up');
    });

    it('has a limit for all sessions with a tunnel', async () => {
      world.sessions.configure({ maxClients: 2, connectsPerMinute: 0 });
      const first = await login('a');
      const third = await login('c');
      const { lease } = await up(first);
      await up(await login('b'));
      await refused(third, 'max-clients');
      await up(first);
      await world.sessions.park(first.id, lease, 'connection-lost', used(0n, 0n));
      await refused(third, 'max-clients');
      world.sessions.configure({ maxClients: 3, connectsPerMinute: 0 });
      await up(third);
    });

    it('bounds the CONNECTs of a token in a minute, and only of that token', async () => {
      world.sessions.configure({ maxClients: 0, connectsPerMinute: 3 });
      const session = await login();
      for (let i = 0; i < 3; i++) await up(session);
      const present = (await get(session)).lease;
      for (let i = 0; i < 5; i++) await refused(session, 'connect-rate');
      assert.deepEqual((await get(session)).lease, present, 'the tunnel goes on');
      await up(await login());
      world.clock.pass(59);
      await refused(session, 'connect-rate');
      world.clock.pass(1);
      await up(session);
    });

    it('counts refused CONNECTs too', async () => {
      world.sessions.configure({ maxClients: 0, connectsPerMinute: 2 });
      const session = await login('bob', { ipv4Pools: [], ipv6Pools: [] });
      await refused(session, 'no-address-family');
      await refused(session, 'no-address-family');
      await refused(session, 'connect-rate');
    });
  });
}
