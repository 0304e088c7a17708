import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { AccountOrder } from '@sallyport/cluster';
import { line, PASSWORD } from './auth.fake.ts';
import { logIn, until, type Replica, type Replicas } from './replicas.fake.ts';
import { UserChangeRefused } from './users-file.ts';

/** What `sallyport user` does, whether a change is one of the file or a record over it. */
export function accountsContract(name: string, open: (users: string) => Promise<Replicas>): void {
  describe(`users: ${name}`, () => {
    let replicas: Replicas;
    let one: Replica;
    let other: Replica;

    beforeEach(async () => {
      replicas = await open((await line('alice', 'staff')) + (await line('bob', '*')));
      [one, other] = [await replicas.open(), await replicas.open()];
    });
    afterEach(() => replicas.close());

    for (const [order, reason] of [
      [{ verb: 'lock', name: 'alice' }, 'user-locked'],
      [{ verb: 'passwd', name: 'alice', password: 'another' }, 'password-changed'],
      [{ verb: 'delete', name: 'alice' }, 'user-deleted'],
    ] as const satisfies readonly [AccountOrder, string][]) {
      it(`${order.verb} at one replica ends the user's sessions, and the other refuses him`, async () => {
        const ids = [await logIn(one, 'alice'), await logIn(other, 'alice')].map(
          (granted) => granted.sessionId,
        );
        const bob = await logIn(other, 'bob');
        await one.accounts.apply(order);
        for (const id of ids) assert.equal((await other.sessions.get(id))?.endReason, reason);
        await until('the other refuses him', async () => !(await isIn(other, 'alice')));
        assert.equal((await one.sessions.get(bob.sessionId))?.state, 'authed');
        await until('nothing is left of his logins', async () => (await sessionsOf('alice')) === 0);
      });
    }

    it('who is added, unlocked or has a new password is let in by both', async () => {
      await one.accounts.apply({ verb: 'add', name: 'carol', groups: ['staff', 'ops'], password: PASSWORD });
      await one.accounts.apply({ verb: 'lock', name: 'alice' });
      await other.accounts.apply({ verb: 'unlock', name: 'alice' });
      await other.accounts.apply({ verb: 'passwd', name: 'bob', password: 'another' });
      for (const replica of [one, other]) {
        await until('carol is in', () => isIn(replica, 'carol'));
        await until('alice is in', () => isIn(replica, 'alice'));
        await until('bob is in', () => isIn(replica, 'bob', 'another'));
        const users = await replica.accounts.list();
        const listed = users.map((user) => `${user.name}:${user.groups.join()}:${user.locked}`).sort();
        assert.deepEqual(listed, ['alice:staff:false', 'bob::false', 'carol:staff,ops:false']);
      }
    });

    it('who is deleted and added again is another one', async () => {
      const before = await logIn(one, 'alice');
      await one.accounts.apply({ verb: 'delete', name: 'alice' });
      await one.accounts.apply({ verb: 'add', name: 'alice', groups: ['ops'], password: PASSWORD });
      assert.notEqual((await one.sessions.get(before.sessionId))?.endReason, '');
      await until('the other knows him', () => other.directory.find('alice')?.groups[0] === 'ops');
      await logIn(other, 'alice');
    });

    it('a lock that comes while logins are under way at the other leaves no session', async () => {
      for (let round = 0; round < 2; round++) {
        const logins = Array.from({ length: 6 }, () => isIn(other, 'alice'));
        await Promise.all([...logins, one.accounts.apply({ verb: 'lock', name: 'alice' })]);
        await until('no session is left', async () => (await sessionsOf('alice')) === 0);
        await until('the other knows', () => other.directory.find('alice')?.locked === true);
        await one.accounts.apply({ verb: 'unlock', name: 'alice' });
        await until('the other knows', () => other.directory.find('alice')?.locked === false);
      }
    });

    it('refuses what makes no sense, with a text for the operator', async () => {
      const orders: readonly (readonly [AccountOrder, RegExp])[] = [
        [{ verb: 'add', name: 'alice', groups: [], password: 'x' }, /'alice' exists already/],
        [{ verb: 'passwd', name: 'zoe', password: 'x' }, /there is no user 'zoe'/],
        [{ verb: 'add', name: 'a:b', groups: [], password: 'x' }, /./],
        [{ verb: 'add', name: 'zoe', groups: ['a,b'], password: 'x' }, /./],
        [{ verb: 'add', name: 'zoe', groups: [], password: '' }, /./],
        [{ verb: 'unlock', name: '__proto__' }, /there is no user/],
      ];
      for (const [order, text] of orders)
        await assert.rejects(
          Promise.resolve(one.accounts.apply(order)),
          (error: unknown) => error instanceof UserChangeRefused && text.test(error.message),
          JSON.stringify(order),
        );
      assert.equal((await other.accounts.list()).length, 2);
    });

    async function sessionsOf(user: string): Promise<number> {
      return (await one.sessions.list()).filter((session) => session.user === user).length;
    }
  });
}

function isIn(replica: Replica, user: string, password = PASSWORD): Promise<boolean> {
  return logIn(replica, user, password).then(
    () => true,
    () => false,
  );
}
