import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { Grant, Reason } from '@sallyport/protocol';
import type { Clock } from './clock.ts';
import { sampleClaim, sampleLogin, TestClock } from './session.fake.ts';
import { seconds } from './session-decisions.ts';
import type { Lease, NodeIdentity, Session } from './session.ts';
import type { Claimed, ClaimRequest, Notice, Sessions, Usage } from './sessions.ts';
import { hashToken, newToken } from './tokens.ts';

/** The rules that every form of the session table keeps. @param open a new, empty table that reads this clock. */
export function sessionsContract(name: string, open: (clock: Clock) => Promise<Sessions>): void {
  describe(`sessions: ${name}`, () => {
    let clock: TestClock;
    let sessions: Sessions;

    beforeEach(async () => {
      clock = new TestClock();
      sessions = await open(clock.read);
    });

    afterEach(() => sessions.close());

    const login = async (user = 'alice', grant: Partial<Grant> = {}): Promise<Session> =>
      sessions.create(sampleLogin(hashToken(newToken()), user, grant));
    const connect = (session: Session, changes: Partial<ClaimRequest> = {}) =>
      sessions.claim(sampleClaim(session.tokenHash, randomUUID(), changes));
    const up = async (session: Session, changes: Partial<ClaimRequest> = {}): Promise<Claimed> => {
      const claimed = await connect(session, changes);
      assert.ok(claimed.ok, claimed.ok ? '' : `claim refused: ${claimed.reason}`);
      return claimed;
    };
    const refused = async (session: Session, reason: Reason, changes: Partial<ClaimRequest> = {}) =>
      assert.deepEqual(await connect(session, changes), { ok: false, reason });
    const get = async (session: Session): Promise<Session> => {
      const found = await sessions.get(session.id);
      assert.ok(found);
      return found;
    };
    const listen = (node: NodeIdentity): Notice[] => {
      const heard: Notice[] = [];
      sessions.notices(node, (notices) => heard.push(...notices));
      return heard;
    };
    const until = async (reached: () => boolean): Promise<void> => {
      for (let turn = 0; turn < 200 && !reached(); turn++) await new Promise((go) => setTimeout(go, 10));
    };
    const delivered = async (heard: Notice[], count: number): Promise<void> => {
      await until(() => heard.length >= count);
      assert.equal(heard.length, count);
    };

    describe('the life of a session', () => {
      it('starts as a login that is found by the hash of its token and by its id', async () => {
        const session = await login();
        assert.equal(session.state, 'authed');
        assert.equal(session.createdAt, clock.now);
        assert.deepEqual(await sessions.find(session.tokenHash), session);
        assert.deepEqual(await sessions.get(session.id), session);
        assert.deepEqual(await sessions.list(), [session]);
        assert.equal(await sessions.find(hashToken('another')), undefined);
      });

      it('goes up, parks, comes back with the same addresses and ends', async () => {
        const session = await login();
        const first = await up(session);
        assert.equal(first.resumed, false);
        assert.equal(first.session.state, 'up');
        assert.deepEqual(first.session.lease, first.lease);
        assert.equal(await sessions.park(session.id, first.lease, 'connection-lost', used(0n, 0n)), true);
        assert.equal((await get(session)).state, 'parked');
        clock.pass(60);
        const second = await up(session);
        assert.equal(second.resumed, true);
        assert.deepEqual(second.addresses, first.addresses);
        assert.equal(
          await sessions.endByNode(session.id, second.lease, 'user-disconnect', used(0n, 0n)),
          true,
        );
        const closed = await get(session);
        assert.equal(closed.state, 'closed');
        assert.equal(closed.endReason, 'user-disconnect');
        assert.deepEqual(await sessions.list(), []);
        await refused(session, 'token-unknown');
      });

      it('is counted by its state, and found by the beginning of its id, until it ends', async () => {
        assert.deepEqual(await sessions.counts(), { authed: 0, up: 0, parked: 0 });
        const [authed, live, parked, closed] = [await login(), await login(), await login(), await login()];
        await up(live);
        await up(live);
        await sessions.park(parked.id, (await up(parked)).lease, 'connection-lost', used(0n, 0n));
        await up(closed);
        await sessions.end(closed.id, 'logout');
        assert.deepEqual(await sessions.counts(), { authed: 1, up: 1, parked: 1 });

        const found = async (prefix: string) =>
          (await sessions.findByPrefix(prefix)).map((session) => session.id).toSorted();
        assert.deepEqual(await found(live.id.slice(0, 10)), [live.id]);
        assert.deepEqual(await sessions.findByPrefix(live.id), [await get(live)]);
        assert.deepEqual(await found(''), [authed.id, live.id, parked.id].toSorted());
        assert.deepEqual(await found(closed.id), []);
        assert.deepEqual(await found(live.id.slice(1)), [], 'the beginning, not any part');
        assert.deepEqual(await found(`${live.id}0`), []);
        assert.deepEqual(await found('*'), [], 'no pattern');
        await sessions.endOfUser('alice', 'terminated');
        clock.pass(24 * 3600);
        await sessions.sweep();
        assert.deepEqual(await sessions.counts(), { authed: 0, up: 0, parked: 0 });
      });

      it('answers an unknown token with a refusal', async () => {
        const unknown = await sessions.claim(sampleClaim(hashToken('nobody'), 'c1'));
        assert.deepEqual(unknown, { ok: false, reason: 'token-unknown' });
      });

      it('refuses the token after each kind of end', async () => {
        const ends: Reason[] = ['logout', 'terminated', 'user-locked', 'user-deleted', 'password-changed'];
        for (const reason of ends) {
          const session = await login(`user-${reason}`);
          await up(session);
          assert.equal(await sessions.end(session.id, reason), true);
          await refused(session, 'token-unknown');
          assert.equal((await sessions.find(session.tokenHash))?.endReason, reason);
          assert.equal(await sessions.end(session.id, reason), false, 'nothing left to end');
        }
        assert.equal(await sessions.end('no-such-session', 'logout'), false);
      });

      it('ends all sessions of one user, whatever their state, and nobody else', async () => {
        const authed = await login('bob');
        await up(await login('bob'));
        const parked = await login('bob');
        await sessions.park(parked.id, (await up(parked)).lease, 'connection-lost', used(0n, 0n));
        const other = await login('alice');
        assert.equal(await sessions.endOfUser('bob', 'user-locked'), 3);
        assert.deepEqual(
          (await sessions.list()).map((session) => session.id),
          [other.id],
        );
        await refused(authed, 'token-unknown');
        assert.equal(await sessions.endOfUser('bob', 'user-locked'), 0);
      });

      it('adds payload up over tunnels and never counts back', async () => {
        const session = await login();
        const first = await up(session);
        assert.equal(await sessions.checkpoint(session.id, first.lease, used(100n, 10n)), true);
        assert.equal(await sessions.checkpoint(session.id, first.lease, used(90n, 9n)), true);
        await sessions.park(session.id, first.lease, 'connection-lost', used(150n, 20n));
        const second = await up(session);
        await sessions.checkpoint(session.id, second.lease, used(7n, 3n));
        await sessions.endByNode(session.id, second.lease, 'user-disconnect', used(8n, 4n));
        const { rxBytes, txBytes, tunnelRxBytes, tunnelTxBytes } = await get(session);
        assert.deepEqual([rxBytes, txBytes, tunnelRxBytes, tunnelTxBytes], [158n, 24n, 8n, 4n]);
      });

      it('inherits idle time over a move, and does not count parked time as idle', async () => {
        const session = await login();
        const first = await up(session);
        assert.equal(first.session.activeAt, clock.now, 'a first tunnel starts active');
        const active = clock.now;
        clock.pass(100);
        const second = await up(session, { node: elsewhere });
        assert.equal(second.session.activeAt, active);
        clock.pass(20);
        await sessions.park(session.id, second.lease, 'connection-lost', used(0n, 0n));
        clock.pass(500);
        const third = await up(session);
        assert.equal(clock.now - third.session.activeAt, seconds(120));
        await sessions.checkpoint(session.id, third.lease, {
          rxBytes: 1n,
          txBytes: 1n,
          activeAt: clock.now + 99n,
        });
        assert.equal((await get(session)).activeAt, clock.now, 'activity is never in the future');
      });
    });

    describe('lifetimes', () => {
      it('ends a login that nobody uses after cookie-timeout, also before a sweep', async () => {
        const session = await login();
        const late = await login();
        clock.pass(299);
        await up(session);
        assert.equal(await sessions.sweep(), 0);
        clock.pass(1);
        await refused(late, 'cookie-timeout');
        assert.equal((await get(late)).state, 'closed');
        await refused(late, 'cookie-timeout');
        assert.equal(await sessions.sweep(), 0);
        assert.equal((await get(session)).state, 'up');
      });

      it('ends a parked session after disconnected-timeout, counted from each parking', async () => {
        const session = await login();
        for (let round = 0; round < 2; round++) {
          const { lease } = await up(session);
          clock.pass(5000);
          assert.equal(await sessions.sweep(), 0, 'a session with a tunnel has no such limit');
          await sessions.park(session.id, lease, 'connection-lost', used(0n, 0n));
          clock.pass(1799);
          assert.equal(await sessions.sweep(), 0);
        }
        clock.pass(1);
        assert.equal(await sessions.sweep(), 1);
        await refused(session, 'disconnected-timeout');
      });

      it('keeps the session timeout over reconnects and tells the node', async () => {
        const heard = listen(here);
        const session = await login('alice', { sessionTimeoutSeconds: 1000 });
        const first = await up(session, { node: elsewhere });
        clock.pass(900);
        await sessions.park(session.id, first.lease, 'connection-lost', used(0n, 0n));
        const { lease } = await up(session);
        clock.pass(99);
        assert.equal(await sessions.sweep(), 0);
        clock.pass(1);
        assert.equal(await sessions.sweep(), 1);
        await refused(session, 'session-timeout');
        await delivered(heard, 1);
        assert.deepEqual(heard, [
          { sessionId: session.id, upToEpoch: lease.epoch, reason: 'session-timeout' },
        ]);
      });

      it('takes 0 as no limit', async () => {
        await login('alice', { cookieTimeoutSeconds: 0 });
        clock.pass(10_000_000);
        assert.equal(await sessions.sweep(), 0);
      });

      it('forgets a tombstone after one cookie lifetime, and not before', async () => {
        const session = await login('alice', { cookieTimeoutSeconds: 600 });
        await sessions.end(session.id, 'logout');
        clock.pass(599);
        await sessions.sweep();
        assert.equal((await sessions.find(session.tokenHash))?.state, 'closed');
        clock.pass(1);
        assert.equal(await sessions.sweep(), 0, 'it ended long ago');
        assert.equal(await sessions.find(session.tokenHash), undefined);
        await refused(session, 'token-unknown');
      });
    });

    describe('leases', () => {
      it('raises the epoch above the stored one, the clock and what the node has seen', async () => {
        const session = await login();
        const first = await up(session);
        assert.ok(first.lease.epoch >= clock.now);
        const second = await up(session);
        assert.ok(second.lease.epoch > first.lease.epoch, 'within one tick of the clock');
        const seen = second.lease.epoch + 5_000_000n;
        const third = await up(session, { seenEpoch: seen });
        assert.ok(third.lease.epoch > seen);
        assert.ok((await up(session)).lease.epoch > third.lease.epoch);
      });

      it('gives a repeated claim of one connection the same lease, without a notice', async () => {
        const heard = listen(here);
        const session = await login();
        const request = sampleClaim(session.tokenHash, 'connection-1');
        const first = await sessions.claim(request);
        const again = await sessions.claim(request);
        assert.ok(first.ok && again.ok);
        assert.deepEqual(again, first);
        assert.equal((await get(session)).n, first.session.n);
        await sessions.end(session.id, 'logout');
        await delivered(heard, 1);
      });

      it('does not let a late repetition of an overtaken claim take the session back', async () => {
        const session = await login();
        const request = sampleClaim(session.tokenHash, 'connection-1');
        await sessions.claim(request);
        const later = await up(session, { node: elsewhere });
        assert.deepEqual(await sessions.claim(request), { ok: false, reason: 'superseded' });
        assert.deepEqual((await get(session)).lease, later.lease);
      });

      it('tells the former owner, once and with its epoch, that its tunnel is superseded', async () => {
        const heard = listen(here);
        const heardElsewhere = listen(elsewhere);
        const session = await login();
        const first = await up(session);
        await up(session, { node: elsewhere });
        await delivered(heard, 1);
        assert.deepEqual(heard, [
          { sessionId: session.id, upToEpoch: first.lease.epoch, reason: 'superseded' },
        ]);
        assert.deepEqual(heardElsewhere, []);
      });

      it('tells a node also of a second CONNECT on itself, but not of a parked tunnel', async () => {
        const heard = listen(here);
        const session = await login();
        const first = await up(session);
        const second = await up(session);
        await sessions.park(session.id, second.lease, 'connection-lost', used(0n, 0n));
        await up(session);
        await delivered(heard, 1);
        assert.equal(heard[0]?.upToEpoch, first.lease.epoch);
      });

      it('keeps notices for a node that does not listen yet, in order', async () => {
        const session = await login();
        const first = await up(session);
        const second = await up(session);
        await sessions.end(session.id, 'terminated');
        const heard = listen(here);
        await delivered(heard, 2);
        assert.deepEqual(
          heard.map(({ upToEpoch, reason }) => [upToEpoch, reason]),
          [
            [first.lease.epoch, 'superseded'],
            [second.lease.epoch, 'terminated'],
          ],
        );
      });

      it('sends no notice for an end that the node itself asked for, and none after it stops to listen', async () => {
        const heard: Notice[] = [];
        const stop = sessions.notices(here, (notices) => heard.push(...notices));
        const byNode = await login();
        await sessions.endByNode(byNode.id, (await up(byNode)).lease, 'user-disconnect', used(0n, 0n));
        stop();
        const other = await login();
        await up(other);
        await sessions.end(other.id, 'logout');
        const late = listen(here);
        await delivered(late, 1);
        assert.deepEqual(heard, []);
      });

      it('ignores park, checkpoint and end of an older lease', async () => {
        const session = await login();
        const old = await up(session);
        await up(session, { node: elsewhere });
        await ignores(session, old.lease);
      });

      it('ignores a lease of the right epoch with another claim id', async () => {
        const session = await login();
        const { lease } = await up(session);
        await ignores(session, { ...lease, claimId: 'forged' });
      });

      it('ends by the lease that parked it, as a late BYE does, but not after another claim', async () => {
        const session = await login();
        const first = await up(session);
        await sessions.park(session.id, first.lease, 'connection-lost', used(5n, 5n));
        assert.equal(await sessions.park(session.id, first.lease, 'connection-lost', used(5n, 5n)), false);
        assert.equal(
          await sessions.endByNode(session.id, first.lease, 'user-disconnect', used(5n, 5n)),
          true,
        );
        assert.equal(
          await sessions.endByNode(session.id, first.lease, 'user-disconnect', used(5n, 5n)),
          false,
        );
      });

      it('ends a session by logout whatever the epoch, also between a claim and its BYE', async () => {
        const heard = listen(elsewhere);
        const session = await login();
        await up(session);
        const { lease } = await up(session, { node: elsewhere });
        await sessions.end(session.id, 'logout');
        await delivered(heard, 1);
        assert.deepEqual(heard, [{ sessionId: session.id, upToEpoch: lease.epoch, reason: 'logout' }]);
        assert.equal(await sessions.endByNode(session.id, lease, 'user-disconnect', used(0n, 0n)), false);
      });

      it('parks what older incarnations of a node held, and nothing else', async () => {
        const old = await login();
        const present = await login();
        const other = await login();
        const { lease } = await up(old);
        await up(present, { node: hereAgain });
        await up(other, { node: elsewhere });
        clock.pass(50);
        assert.equal(await sessions.announce(hereAgain), 1);
        const parked = await get(old);
        assert.equal(parked.state, 'parked');
        assert.equal(parked.parkedAt, clock.now);
        assert.deepEqual([(await get(present)).state, (await get(other)).state], ['up', 'up']);
        assert.equal(await sessions.park(old.id, lease, 'connection-lost', used(0n, 0n)), false);
        assert.equal(await sessions.announce(hereAgain), 0);
        assert.equal((await up(old, { node: hereAgain })).resumed, true);
      });

      it('lets exactly one of a hundred claims at once win, and tells all the others', async () => {
        const heard = listen(here);
        const heardElsewhere = listen(elsewhere);
        const session = await login();
        const claims = await Promise.all(
          Array.from({ length: 100 }, (_, i) => up(session, { node: i % 2 === 0 ? here : elsewhere })),
        );
        const epochs = claims.map((claim) => claim.lease.epoch);
        assert.equal(new Set(epochs).size, 100);
        const present = (await get(session)).lease;
        assert.equal(
          present?.epoch,
          epochs.reduce((a, b) => (a > b ? a : b)),
        );
        assert.equal(claims.filter((claim) => claim.lease.claimId === present?.claimId).length, 1);
        assert.equal(new Set(claims.map((claim) => claim.addresses.ipv4)).size, 1);
        await until(() => heard.length + heardElsewhere.length === 99);
        const told = [...heard, ...heardElsewhere].filter((notice) => notice.reason === 'superseded');
        assert.equal(told.length, 99);
        assert.ok(told.every((notice) => notice.upToEpoch < (present?.epoch ?? 0n)));
        for (const claim of claims) {
          const parked = await sessions.park(session.id, claim.lease, 'connection-lost', used(0n, 0n));
          assert.equal(parked, claim.lease.claimId === present?.claimId);
        }
      });

      it('keeps the MTU that was offered first', async () => {
        const session = await sessions.create(sampleLogin(hashToken(newToken())));
        assert.equal(session.mtuBytes, 0);
        assert.equal((await up(session, { mtuBytes: 1318 })).session.mtuBytes, 1318);
        assert.equal((await up(session, { mtuBytes: 1418 })).session.mtuBytes, 1318);
      });

      it('keeps the newest STRAP key and the one before it', async () => {
        const session = await sessions.create({ ...sampleLogin(hashToken(newToken())), strapKey: 'A0' });
        assert.deepEqual(session.strapKeys, ['A0']);
        assert.deepEqual((await up(session, { strapKey: 'A1' })).session.strapKeys, ['A1', 'A0']);
        assert.deepEqual((await up(session)).session.strapKeys, ['A1', 'A0']);
        assert.deepEqual((await up(session, { strapKey: 'A2' })).session.strapKeys, ['A2', 'A1']);
        const lostAnswer = await up(session, { strapKey: 'A3', strapProved: 'A1' });
        assert.deepEqual(lostAnswer.session.strapKeys, ['A3', 'A1'], 'the key in use stays good');
      });
    });

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
        await sessions.park(first.id, lease, 'connection-lost', used(0n, 0n));
        await up(third);
        await refused(first, 'max-same-clients');
      });

      it('never counts a parked session against its own user', async () => {
        const grant = { maxSameClients: 1 };
        for (let device = 0; device < 5; device++) {
          const session = await login('bob', grant);
          const { lease } = await up(session);
          await sessions.park(session.id, lease, 'connection-lost', used(0n, 0n));
        }
        assert.equal((await sessions.list()).length, 5);
      });

      it('lets the oldest go where on-limit says so, and tells its node', async () => {
        const heard = listen(here);
        const grant: Partial<Grant> = { maxSameClients: 2, onLimit: 'replace-oldest' };
        const oldest = await login('bob', grant);
        clock.pass(1);
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

      it('ends nobody when the claim is refused for another reason', async () => {
        const grant: Partial<Grant> = { maxSameClients: 1, onLimit: 'replace-oldest' };
        sessions.configure({ maxClients: 2, connectsPerMinute: 0 });
        const first = await login('bob', { ...grant, ipv4Pools: ['10.1.0.0/30'] });
        await up(first, { wantIpv6: false });
        await up(await login('carol', { ipv4Pools: ['10.2.0.0/30'] }), { wantIpv6: false });
        const second = await login('bob', { ...grant, ipv4Pools: ['10.2.0.0/30'] });
        await refused(second, 'pool-empty', { wantIpv6: false });
        assert.equal((await get(first)).state, 'up');
      });

      it('has a limit for all sessions with a tunnel', async () => {
        sessions.configure({ maxClients: 2, connectsPerMinute: 0 });
        const first = await login('a');
        const third = await login('c');
        const { lease } = await up(first);
        await up(await login('b'));
        await refused(third, 'max-clients');
        await up(first);
        await sessions.park(first.id, lease, 'connection-lost', used(0n, 0n));
        await refused(third, 'max-clients');
        sessions.configure({ maxClients: 3, connectsPerMinute: 0 });
        await up(third);
      });

      it('bounds the CONNECTs of a token in a minute, and only of that token', async () => {
        sessions.configure({ maxClients: 0, connectsPerMinute: 3 });
        const session = await login();
        for (let i = 0; i < 3; i++) await up(session);
        const present = (await get(session)).lease;
        for (let i = 0; i < 5; i++) await refused(session, 'connect-rate');
        assert.deepEqual((await get(session)).lease, present, 'the tunnel goes on');
        await up(await login());
        clock.pass(59);
        await refused(session, 'connect-rate');
        clock.pass(1);
        await up(session);
      });

      it('counts refused CONNECTs too', async () => {
        sessions.configure({ maxClients: 0, connectsPerMinute: 2 });
        const session = await login('bob', { ipv4Pools: [], ipv6Pools: [] });
        await refused(session, 'no-address-family');
        await refused(session, 'no-address-family');
        await refused(session, 'connect-rate');
      });
    });

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

      it('keeps the address of a parked session from others, and refuses when a pool is empty', async () => {
        const grant = { ipv4Pools: ['10.1.0.0/31', '10.2.0.0/31'], ipv6Pools: [] };
        const first = await login('a', grant);
        const second = await login('b', grant);
        const third = await login('c', grant);
        const { lease, addresses } = await up(first);
        assert.equal(addresses.ipv4, '10.1.0.1', 'pools in order');
        assert.equal((await up(second)).addresses.ipv4, '10.2.0.1');
        await sessions.park(first.id, lease, 'connection-lost', used(0n, 0n));
        await refused(third, 'pool-empty');
        const half = await get(third);
        assert.deepEqual([half.state, half.addresses, half.n], ['authed', { ipv4: '', ipv6: '' }, 1]);
        await sessions.end(first.id, 'logout');
        assert.equal((await up(third)).addresses.ipv4, '10.1.0.1');
      });

      it('holds nothing when only one of two families is left', async () => {
        const grant = { ipv4Pools: ['10.1.0.0/29'], ipv6Pools: ['fd00:1::/127'] };
        await up(await login('a', grant));
        const second = await login('b', grant);
        await refused(second, 'pool-empty');
        const ipv4 = (await sessions.pools()).find((pool) => pool.family === 'ipv4');
        assert.equal(ipv4?.used, 1);
      });

      it('gives a user of a profile his last address again', async () => {
        const first = await login('bob');
        const { addresses } = await up(first);
        await sessions.end(first.id, 'logout');
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
        await sessions.park(first.id, lease, 'connection-lost', used(0n, 0n));
        assert.deepEqual((await up(second)).addresses, addresses);
        assert.equal((await get(first)).endReason, 'replaced', 'the parked session yields');
        await refused(await login('eve', grant), 'address-taken');
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
        await sessions.end(session.id, 'logout');
        const pools = [...(await sessions.pools())].sort((a, b) => (a.pool < b.pool ? -1 : 1));
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
            if (lease !== undefined) await sessions.park(pick.id, lease, 'connection-lost', used(0n, 0n));
          } else await sessions.end(pick.id, 'logout');
          clock.pass(random(20));
          if (i % 10 === 0) await sessions.sweep();
          const live = await sessions.list();
          for (const family of ['ipv4', 'ipv6'] as const) {
            const held = live.map((session) => session.addresses[family]).filter((address) => address !== '');
            assert.equal(new Set(held).size, held.length, `step ${i}: an address is held twice`);
          }
        }
        assert.ok((tally['claimed'] ?? 0) > 50 && (tally['pool-empty'] ?? 0) > 0, JSON.stringify(tally));
      });
    });

    it('refuses every call after close', async () => {
      const session = await login();
      await sessions.close();
      await assert.rejects(login(), { name: 'StoreUnavailable' });
      await assert.rejects(connect(session), { name: 'StoreUnavailable' });
      await assert.rejects(sessions.find(session.tokenHash), { name: 'StoreUnavailable' });
      await sessions.close();
    });

    /** Nothing of a lost lease changes the record. */
    async function ignores(session: Session, lease: Lease): Promise<void> {
      const before = await get(session);
      assert.equal(await sessions.park(session.id, lease, 'connection-lost', used(9n, 9n)), false);
      assert.equal(await sessions.checkpoint(session.id, lease, used(9n, 9n)), false);
      assert.equal(await sessions.endByNode(session.id, lease, 'user-disconnect', used(9n, 9n)), false);
      assert.deepEqual(await get(session), before);
    }

    function used(rxBytes: bigint, txBytes: bigint): Usage {
      return { rxBytes, txBytes, activeAt: 0n };
    }
  });
}

const here: NodeIdentity = { name: 'n1', incarnation: 'i1' };
const hereAgain: NodeIdentity = { name: 'n1', incarnation: 'i2' };
const elsewhere: NodeIdentity = { name: 'n2', incarnation: 'i1' };

/** Numbers from 0 to below `limit`, the same in each run (mulberry32). */
export function seeded(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return limit === 0 ? 0 : ((t ^ (t >>> 14)) >>> 0) % limit;
  };
}
