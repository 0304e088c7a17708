import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { beginLogin, grantLogin, handleReply, REPEAT_SECONDS, type Login } from './login.ts';
import type { Logins } from './logins.ts';

/**
 * The rules that every form of Logins keeps.
 * @param open an empty table that reads this time (ms), with room for `max` pending logins.
 */
export function loginsContract(
  name: string,
  open: (now: () => number, max?: number) => Promise<Logins> | Logins,
): void {
  describe(`logins: ${name}`, () => {
    const started = async (max?: number) => {
      const clock = { now: 1_000_000 };
      return { clock, logins: await open(() => clock.now, max) };
    };

    test('a login is found until its time is over, and survives JSON', async () => {
      const { logins, clock } = await started();
      const made = login('a', clock.now);
      assert.deepEqual(JSON.parse(JSON.stringify(made)), made);
      assert.equal(await logins.add(made, 0), true);
      clock.now += 239_999;
      assert.deepEqual(await logins.find(made.id), made);
      clock.now += 1;
      assert.equal(await logins.find(made.id), undefined);
      assert.equal(await logins.find('__proto__'), undefined);
    });

    test('of two changes of one state only the first is stored', async () => {
      const { logins, clock } = await started();
      const made = login('a', clock.now);
      await logins.add(made, 0);
      const decision = handleReply(made, 1, LIMITS, clock.now);
      assert.ok(decision.next === 'verify');
      assert.equal(await logins.replace(decision.login, made.revision), true);
      assert.equal(await logins.replace({ ...decision.login, tries: 0 }, made.revision), false);
      assert.equal((await logins.find(made.id))?.tries, 1);
      await logins.remove(made.id);
      assert.equal(
        await logins.replace(decision.login, decision.login.revision),
        false,
        'a removed login stays removed',
      );
    });

    test('pending logins of one address are limited; granted, removed and expired ones do not count; 0 = no limit', async () => {
      const { logins, clock } = await started();
      const [a, b] = [login('a', clock.now), login('b', clock.now)];
      assert.deepEqual(
        [await logins.add(a, 2), await logins.add(b, 2), await logins.add(login('c', clock.now), 2)],
        [true, true, false],
      );
      const other = { ...login('d', clock.now), address: '198.51.100.1' };
      assert.equal(await logins.add(other, 2), true, 'another address');
      assert.equal(await logins.add(login('e', clock.now), 0), true);
      await logins.remove('e'.repeat(22));

      assert.equal(await logins.replace(grantLogin(a, 's', clock.now), a.revision), true);
      assert.equal(await logins.add(login('f', clock.now), 2), true);
      assert.equal(await logins.add(login('g', clock.now), 2), false);
      await logins.remove(b.id);
      assert.equal(await logins.add(login('h', clock.now), 2), true);
      clock.now += 240_000;
      assert.equal(await logins.add(login('i', clock.now), 1), true);
    });

    test('IPv6 addresses of one /64 share the limit', async () => {
      const { logins, clock } = await started();
      const from = (name: string, address: string) => logins.add({ ...login(name, clock.now), address }, 2);
      assert.equal(await from('a', '2001:db8:0:1::1'), true);
      assert.equal(await from('b', '2001:db8:0:1::2'), true);
      assert.equal(await from('c', '2001:db8:0:1:ffff::3'), false);
      assert.equal(await from('d', '2001:db8:0:2::1'), true);
      await logins.remove('a'.repeat(22));
      assert.equal(await from('e', '2001:db8:0:1::5'), true);
    });

    test('in all they are bounded: the oldest pending one goes, granted ones go by themselves', async () => {
      const { logins, clock } = await started(3);
      for (const name of ['a', 'b', 'c', 'd']) {
        await logins.add(login(name, clock.now), 0);
        clock.now += 1;
      }
      assert.equal(await logins.find('a'.repeat(22)), undefined);
      assert.ok(await logins.find('b'.repeat(22)));
      const d = login('d', clock.now);
      await logins.replace(grantLogin(d, 's', clock.now), d.revision);
      clock.now += REPEAT_SECONDS * 1000 - 1;
      assert.equal((await logins.find(d.id))?.sessionId, 's');
      clock.now += 1;
      assert.equal(await logins.find(d.id), undefined);
    });
  });
}

export const LIMITS = { authTimeoutSeconds: 240, maxLoginTries: 3 };

export function login(name: string, now: number): Login {
  const start = {
    id: name.repeat(22),
    profile: 'staff',
    profileFixed: false,
    methods: ['local'],
    address: '192.0.2.7',
    tries: 0,
  };
  return beginLogin(start, LIMITS, now);
}
