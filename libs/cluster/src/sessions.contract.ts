import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Reason } from '@sallyport/protocol';
import type { Clock } from './clock.ts';
import { sampleClaim, sampleLogin } from './session.fake.ts';
import { EPOCH_LEAD_MICROS } from './session.ts';
import { seconds } from './session-decisions.ts';
import { addressesContract } from './sessions-addresses.contract.ts';
import { homeContract } from './sessions-home.contract.ts';
import { limitsContract } from './sessions-limits.contract.ts';
import { contractWorld, elsewhere, here, hereAgain } from './sessions-world.contract.ts';
import type { Notice, Sessions } from './sessions.ts';
import { hashToken, newToken } from './tokens.ts';

export { seeded } from './sessions-world.contract.ts';

/** The rules that every form of the session table keeps. @param open a new, empty table that reads this clock. */
export function sessionsContract(name: string, open: (clock: Clock) => Promise<Sessions>): void {
  describe(`sessions: ${name}`, () => {
    const world = contractWorld(open);
    const { login, connect, up, refused, get, listen, until, delivered, ignores, used } = world;

    describe('the life of a session', () => {
      it('starts as a login that is found by the hash of its token and by its id', async () => {
        const session = await login();
        assert.equal(session.state, 'authed');
        assert.equal(session.createdAt, world.clock.now);
        assert.deepEqual(await world.sessions.find(session.tokenHash), session);
        assert.deepEqual(await world.sessions.get(session.id), session);
        assert.deepEqual(await world.sessions.list(), [session]);
        assert.equal(await world.sessions.find(hashToken('another')), undefined);
      });

      it('goes up, parks, comes back with the same addresses and ends', async () => {
        const session = await login();
        const first = await up(session);
        assert.equal(first.resumed, false);
        assert.equal(first.session.state, 'up');
        assert.deepEqual(first.session.lease, first.lease);
        assert.equal(
          await world.sessions.park(session.id, first.lease, 'connection-lost', used(0n, 0n)),
          true,
        );
        assert.equal((await get(session)).state, 'parked');
        world.clock.pass(60);
        const second = await up(session);
        assert.equal(second.resumed, true);
        assert.deepEqual(second.addresses, first.addresses);
        assert.equal(
          await world.sessions.endByNode(session.id, second.lease, 'user-disconnect', used(0n, 0n)),
          true,
        );
        const closed = await get(session);
        assert.equal(closed.state, 'closed');
        assert.equal(closed.endReason, 'user-disconnect');
        assert.deepEqual(await world.sessions.list(), []);
        await refused(session, 'token-unknown');
      });

      it('is counted by its state, and found by the beginning of its id, until it ends', async () => {
        assert.deepEqual(await world.sessions.counts(), { authed: 0, up: 0, parked: 0 });
        const [authed, live, parked, closed] = [await login(), await login(), await login(), await login()];
        await up(live);
        await up(live);
        await world.sessions.park(parked.id, (await up(parked)).lease, 'connection-lost', used(0n, 0n));
        await up(closed);
        await world.sessions.end(closed.id, 'logout');
        assert.deepEqual(await world.sessions.counts(), { authed: 1, up: 1, parked: 1 });

        const found = async (prefix: string) =>
          (await world.sessions.findByPrefix(prefix)).map((session) => session.id).toSorted();
        assert.deepEqual(await found(live.id.slice(0, 10)), [live.id]);
        assert.deepEqual(await world.sessions.findByPrefix(live.id), [await get(live)]);
        assert.deepEqual(await found(''), [authed.id, live.id, parked.id].toSorted());
        assert.deepEqual(await found(closed.id), []);
        assert.deepEqual(await found(live.id.slice(1)), [], 'the beginning, not any part');
        assert.deepEqual(await found(`${live.id}0`), []);
        assert.deepEqual(await found('*'), [], 'no pattern');
        await world.sessions.endOfUser('alice', 'terminated');
        world.clock.pass(24 * 3600);
        await world.sessions.sweep();
        assert.deepEqual(await world.sessions.counts(), { authed: 0, up: 0, parked: 0 });
      });

      it('answers an unknown token with a refusal', async () => {
        const unknown = await world.sessions.claim(sampleClaim(hashToken('nobody'), 'c1'));
        assert.deepEqual(unknown, { ok: false, reason: 'token-unknown' });
      });

      it('refuses the token after each kind of end', async () => {
        const ends: Reason[] = ['logout', 'terminated', 'user-locked', 'user-deleted', 'password-changed'];
        for (const reason of ends) {
          const session = await login(`user-${reason}`);
          await up(session);
          assert.equal(await world.sessions.end(session.id, reason), true);
          await refused(session, 'token-unknown');
          assert.equal((await world.sessions.find(session.tokenHash))?.endReason, reason);
          assert.equal(await world.sessions.end(session.id, reason), false, 'nothing left to end');
        }
        assert.equal(await world.sessions.end('no-such-session', 'logout'), false);
      });

      it('ends all sessions of one user, whatever their state, and nobody else', async () => {
        const authed = await login('bob');
        await up(await login('bob'));
        const parked = await login('bob');
        await world.sessions.park(parked.id, (await up(parked)).lease, 'connection-lost', used(0n, 0n));
        const other = await login('alice');
        assert.equal(await world.sessions.endOfUser('bob', 'user-locked'), 3);
        assert.deepEqual(
          (await world.sessions.list()).map((session) => session.id),
          [other.id],
        );
        await refused(authed, 'token-unknown');
        assert.equal(await world.sessions.endOfUser('bob', 'user-locked'), 0);
      });

      it('ends the sessions of a user up to a time, and those that were made later stay', async () => {
        const before = [await login('bob'), await login('bob'), await login('bob')];
        const [, connected, parked] = before;
        assert.ok(connected && parked);
        await up(connected);
        await world.sessions.park(parked.id, (await up(parked)).lease, 'connection-lost', used(0n, 0n));
        const changedAt = world.clock.read();
        world.clock.pass(1);
        const later = [await login('bob'), await login('bob')];
        for (const session of later) await up(session);
        assert.equal(await world.sessions.endOfUser('bob', 'password-changed', changedAt), 3);
        for (const session of before) assert.equal((await get(session)).endReason, 'password-changed');
        for (const session of later) assert.equal((await get(session)).state, 'up');
        assert.equal(await world.sessions.endOfUser('bob', 'password-changed', changedAt), 0);
      });

      it('ends hundreds of one user, old and new ones mixed', async () => {
        const made = (count: number) => Promise.all(Array.from({ length: count }, () => login('bob')));
        const old = await made(250);
        const changedAt = world.clock.read();
        world.clock.pass(1);
        const later = await made(250);
        for (const session of old.slice(0, 210)) await up(session);
        assert.equal(await world.sessions.endOfUser('bob', 'password-changed', changedAt), old.length);
        const left = (await world.sessions.list()).map(({ id }) => id).sort();
        assert.deepEqual(left, later.map(({ id }) => id).sort());
        assert.equal(await world.sessions.endOfUser('bob', 'user-locked'), later.length);
      });

      it('adds payload up over tunnels and never counts back', async () => {
        const session = await login();
        const first = await up(session);
        assert.equal(await world.sessions.checkpoint(session.id, first.lease, used(100n, 10n)), true);
        assert.equal(await world.sessions.checkpoint(session.id, first.lease, used(90n, 9n)), true);
        await world.sessions.park(session.id, first.lease, 'connection-lost', used(150n, 20n));
        const second = await up(session);
        await world.sessions.checkpoint(session.id, second.lease, used(7n, 3n));
        await world.sessions.endByNode(session.id, second.lease, 'user-disconnect', used(8n, 4n));
        const { rxBytes, txBytes, tunnelRxBytes, tunnelTxBytes } = await get(session);
        assert.deepEqual([rxBytes, txBytes, tunnelRxBytes, tunnelTxBytes], [158n, 24n, 8n, 4n]);
      });

      it('inherits idle time over a move, and does not count parked time as idle', async () => {
        const session = await login();
        const first = await up(session);
        assert.equal(first.session.activeAt, world.clock.now, 'a first tunnel starts active');
        const active = world.clock.now;
        world.clock.pass(100);
        const second = await up(session, { node: elsewhere });
        assert.equal(second.session.activeAt, active);
        world.clock.pass(20);
        await world.sessions.park(session.id, second.lease, 'connection-lost', used(0n, 0n));
        world.clock.pass(500);
        const third = await up(session);
        assert.equal(world.clock.now - third.session.activeAt, seconds(120));
        await world.sessions.checkpoint(session.id, third.lease, {
          rxBytes: 1n,
          txBytes: 1n,
          activeAt: world.clock.now + 99n,
        });
        assert.equal((await get(session)).activeAt, world.clock.now, 'activity is never in the future');
      });
    });

    describe('lifetimes', () => {
      it('ends a login that nobody uses after cookie-timeout, also before a sweep', async () => {
        const session = await login();
        const late = await login();
        world.clock.pass(299);
        await up(session);
        assert.equal(await world.sessions.sweep(), 0);
        world.clock.pass(1);
        await refused(late, 'cookie-timeout');
        assert.equal((await get(late)).state, 'closed');
        await refused(late, 'cookie-timeout');
        assert.equal(await world.sessions.sweep(), 0);
        assert.equal((await get(session)).state, 'up');
      });

      it('ends a parked session after disconnected-timeout, counted from each parking', async () => {
        const session = await login();
        for (let round = 0; round < 2; round++) {
          const { lease } = await up(session);
          world.clock.pass(5000);
          assert.equal(await world.sessions.sweep(), 0, 'a session with a tunnel has no such limit');
          await world.sessions.park(session.id, lease, 'connection-lost', used(0n, 0n));
          world.clock.pass(1799);
          assert.equal(await world.sessions.sweep(), 0);
        }
        world.clock.pass(1);
        assert.equal(await world.sessions.sweep(), 1);
        await refused(session, 'disconnected-timeout');
      });

      it('keeps the session timeout over reconnects and tells the node', async () => {
        const heard = listen(here);
        const session = await login('alice', { sessionTimeoutSeconds: 1000 });
        const first = await up(session, { node: elsewhere });
        world.clock.pass(900);
        await world.sessions.park(session.id, first.lease, 'connection-lost', used(0n, 0n));
        const { lease } = await up(session);
        world.clock.pass(99);
        assert.equal(await world.sessions.sweep(), 0);
        world.clock.pass(1);
        assert.equal(await world.sessions.sweep(), 1);
        await refused(session, 'session-timeout');
        await delivered(heard, 1);
        assert.deepEqual(heard, [
          { sessionId: session.id, upToEpoch: lease.epoch, reason: 'session-timeout' },
        ]);
      });

      it('takes 0 as no limit', async () => {
        await login('alice', { cookieTimeoutSeconds: 0 });
        world.clock.pass(10_000_000);
        assert.equal(await world.sessions.sweep(), 0);
      });

      it('forgets a tombstone after one cookie lifetime, and not before', async () => {
        const session = await login('alice', { cookieTimeoutSeconds: 600 });
        await world.sessions.end(session.id, 'logout');
        world.clock.pass(599);
        await world.sessions.sweep();
        assert.equal((await world.sessions.find(session.tokenHash))?.state, 'closed');
        world.clock.pass(1);
        assert.equal(await world.sessions.sweep(), 0, 'it ended long ago');
        assert.equal(await world.sessions.find(session.tokenHash), undefined);
        await refused(session, 'token-unknown');
      });
    });

    describe('leases', () => {
      it('raises the epoch above the stored one, the clock and what the node has seen', async () => {
        const session = await login();
        const first = await up(session);
        assert.ok(first.lease.epoch >= world.clock.now);
        const second = await up(session);
        assert.ok(second.lease.epoch > first.lease.epoch, 'within one tick of the clock');
        const seen = second.lease.epoch + 5_000_000n;
        const third = await up(session, { seenEpoch: seen });
        assert.ok(third.lease.epoch > seen);
        assert.ok((await up(session)).lease.epoch > third.lease.epoch);
      });

      it('takes no seen epoch that is further ahead than EPOCH_LEAD_MICROS: epochs would not rise any more', async () => {
        const session = await login();
        const most = world.clock.now + EPOCH_LEAD_MICROS;
        for (const seenEpoch of [2n ** 63n - 1n, most + 1n])
          assert.ok((await up(session, { seenEpoch })).lease.epoch <= world.clock.now + 5n);
        assert.equal((await up(session, { seenEpoch: most })).lease.epoch, most + 1n);
      });

      it('gives a repeated claim of one connection the same lease, without a notice', async () => {
        const heard = listen(here);
        const session = await login();
        const request = sampleClaim(session.tokenHash, 'connection-1');
        const first = await world.sessions.claim(request);
        const again = await world.sessions.claim(request);
        assert.ok(first.ok && again.ok);
        assert.deepEqual(again, first);
        assert.equal((await get(session)).n, first.session.n);
        await world.sessions.end(session.id, 'logout');
        await delivered(heard, 1);
      });

      it('does not let a late repetition of an overtaken claim take the session back', async () => {
        const session = await login();
        const request = sampleClaim(session.tokenHash, 'connection-1');
        await world.sessions.claim(request);
        const later = await up(session, { node: elsewhere });
        assert.deepEqual(await world.sessions.claim(request), { ok: false, reason: 'superseded' });
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
        await world.sessions.park(session.id, second.lease, 'connection-lost', used(0n, 0n));
        await up(session);
        await delivered(heard, 1);
        assert.equal(heard[0]?.upToEpoch, first.lease.epoch);
      });

      it('keeps notices for a node that does not listen yet, in order', async () => {
        const session = await login();
        const first = await up(session);
        const second = await up(session);
        await world.sessions.end(session.id, 'terminated');
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
        const stop = world.sessions.notices(here, (notices) => heard.push(...notices));
        const byNode = await login();
        await world.sessions.endByNode(byNode.id, (await up(byNode)).lease, 'user-disconnect', used(0n, 0n));
        stop();
        const other = await login();
        await up(other);
        await world.sessions.end(other.id, 'logout');
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
        await world.sessions.park(session.id, first.lease, 'connection-lost', used(5n, 5n));
        assert.equal(
          await world.sessions.park(session.id, first.lease, 'connection-lost', used(5n, 5n)),
          false,
        );
        assert.equal(
          await world.sessions.endByNode(session.id, first.lease, 'user-disconnect', used(5n, 5n)),
          true,
        );
        assert.equal(
          await world.sessions.endByNode(session.id, first.lease, 'user-disconnect', used(5n, 5n)),
          false,
        );
      });

      it('ends a session by logout whatever the epoch, also between a claim and its BYE', async () => {
        const heard = listen(elsewhere);
        const session = await login();
        await up(session);
        const { lease } = await up(session, { node: elsewhere });
        await world.sessions.end(session.id, 'logout');
        await delivered(heard, 1);
        assert.deepEqual(heard, [{ sessionId: session.id, upToEpoch: lease.epoch, reason: 'logout' }]);
        assert.equal(
          await world.sessions.endByNode(session.id, lease, 'user-disconnect', used(0n, 0n)),
          false,
        );
      });

      it('parks what older incarnations of a node held, and nothing else', async () => {
        const old = await login();
        const present = await login();
        const other = await login();
        const { lease } = await up(old);
        await up(present, { node: hereAgain });
        await up(other, { node: elsewhere });
        world.clock.pass(50);
        assert.equal(await world.sessions.announce(hereAgain), 1);
        const parked = await get(old);
        assert.equal(parked.state, 'parked');
        assert.equal(parked.parkedAt, world.clock.now);
        assert.deepEqual([(await get(present)).state, (await get(other)).state], ['up', 'up']);
        assert.equal(await world.sessions.park(old.id, lease, 'connection-lost', used(0n, 0n)), false);
        assert.equal(await world.sessions.announce(hereAgain), 0);
        assert.equal((await up(old, { node: hereAgain })).resumed, true);
      });

      it('tells a process which leases it has: of each session that is up, by the present claim', async () => {
        const [parked, moved, closed] = [await login(), await login(), await login()];
        const { lease } = await up(parked);
        await up(moved);
        await up(closed);
        const kept = (await up(await login())).session.id;
        const again = (await up(await login(), { node: hereAgain })).session.id;
        await login();
        assert.equal((await world.sessions.leasesOf(here)).length, 4);
        await world.sessions.park(parked.id, lease, 'connection-lost', used(0n, 0n));
        await up(moved, { node: elsewhere });
        await world.sessions.end(closed.id, 'logout');
        assert.deepEqual(await world.sessions.leasesOf(here), [kept]);
        assert.deepEqual(await world.sessions.leasesOf(hereAgain), [again]);
        assert.deepEqual(await world.sessions.leasesOf(elsewhere), [moved.id]);
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
          const parked = await world.sessions.park(session.id, claim.lease, 'connection-lost', used(0n, 0n));
          assert.equal(parked, claim.lease.claimId === present?.claimId);
        }
      });

      it('keeps the MTU that was offered first', async () => {
        const session = await world.sessions.create(sampleLogin(hashToken(newToken())));
        assert.equal(session.mtuBytes, 0);
        assert.equal((await up(session, { mtuBytes: 1318 })).session.mtuBytes, 1318);
        assert.equal((await up(session, { mtuBytes: 1418 })).session.mtuBytes, 1318);
      });

      it('keeps the newest STRAP key and the one before it', async () => {
        const session = await world.sessions.create({
          ...sampleLogin(hashToken(newToken())),
          strapKey: 'A0',
        });
        assert.deepEqual(session.strapKeys, ['A0']);
        assert.deepEqual((await up(session, { strapKey: 'A1' })).session.strapKeys, ['A1', 'A0']);
        assert.deepEqual((await up(session)).session.strapKeys, ['A1', 'A0']);
        assert.deepEqual((await up(session, { strapKey: 'A2' })).session.strapKeys, ['A2', 'A1']);
        const lostAnswer = await up(session, { strapKey: 'A3', strapProved: 'A1' });
        assert.deepEqual(lostAnswer.session.strapKeys, ['A3', 'A1'], 'the key in use stays good');
      });
    });

    limitsContract(world);
    addressesContract(world);
    homeContract(world);

    it('refuses every call after close', async () => {
      const session = await login();
      await world.sessions.close();
      await assert.rejects(login(), { name: 'StoreUnavailable' });
      await assert.rejects(connect(session), { name: 'StoreUnavailable' });
      await assert.rejects(world.sessions.find(session.tokenHash), { name: 'StoreUnavailable' });
      await world.sessions.close();
    });
  });
}
