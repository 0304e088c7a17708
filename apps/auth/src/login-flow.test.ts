import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { Occurrence } from '@sallyport/cluster';
import { begin, client, fakeAuth, formOf, grantedOf, line, PASSWORD, reply } from './auth.fake.ts';
import { MemoryLogins, type Logins } from './logins.ts';
import { fakeProfile, fakeSettings } from './settings.fake.ts';

const RIGHT = { username: 'alice', password: PASSWORD };
const WRONG = { username: 'alice', password: 'wrong' };

test('name and password in one form give a session whose token finds it', async (t) => {
  const { auth, sessions } = await started(t, { users: await line('alice', 'staff,ops') });
  const form = formOf(await auth.begin(begin()));
  assert.deepEqual(
    form.fields.map((field) => [field.name, field.kind, field.value]),
    [
      ['username', 'text', ''],
      ['password', 'password', ''],
    ],
  );
  assert.deepEqual(form.profiles, [], 'one profile is no choice');

  const granted = grantedOf(await auth.reply(reply(form, RIGHT)));
  const [session] = await sessions.list();
  assert.equal(session?.id, granted.sessionId);
  assert.equal(session?.user, 'alice');
  assert.equal(session?.grant.group, 'staff');
  assert.equal(granted.group, 'staff');
  assert.match(granted.token, /^[A-Za-z0-9_-]{43}$/);
  assert.ok(!JSON.stringify(session, bigints).includes(granted.token), 'the token itself is not stored');

  const live = await auth.lookup({ token: granted.token });
  assert.deepEqual(live, {
    live: true,
    sessionId: session?.id,
    profile: 'staff',
    group: 'staff',
    profileFile: '',
  });
});

test('a client that sends the name alone is asked for the password', async (t) => {
  const { auth } = await started(t);
  const form = formOf(await auth.begin(begin()));
  const second = formOf(await auth.reply(reply(form, { username: 'alice' })));
  assert.equal(second.id, 'challenge');
  assert.deepEqual(
    second.fields.map((field) => field.name),
    ['password'],
  );
  // Step 2 with another user than step 1: the first name counts (V26).
  const granted = grantedOf(await auth.reply(reply(second, { username: 'bob', password: PASSWORD })));
  assert.equal(granted.user, 'alice');
});

test('two wrong passwords and the right one are let in, the fourth try is refused', async (t) => {
  const { auth, sessions } = await started(t);
  let form = formOf(await auth.begin(begin()));
  for (const _ of [1, 2]) {
    form = formOf(await auth.reply(reply(form, WRONG)));
    assert.equal(form.error, 'Login failed.');
  }
  grantedOf(await auth.reply(reply(form, RIGHT)));

  form = formOf(await auth.begin(begin()));
  form = formOf(await auth.reply(reply(form, WRONG)));
  form = formOf(await auth.reply(reply(form, WRONG)));
  assert.equal((await auth.reply(reply(form, WRONG))).refused?.reason, 'login-tries-exhausted');
  assert.equal((await auth.reply(reply(form, RIGHT))).refused?.reason, 'login-tries-exhausted');
  assert.equal((await sessions.list()).length, 1);
});

test('a granted login cannot be used to guess without end', async (t) => {
  const { auth } = await started(t);
  const form = formOf(await auth.begin(begin()));
  grantedOf(await auth.reply(reply(form, RIGHT)));
  const reasons = [];
  for (const _ of [1, 2, 3, 4]) reasons.push((await auth.reply(reply(form, WRONG))).refused?.reason);
  assert.deepEqual(reasons.slice(0, 3), ['login-failed', 'login-failed', 'login-failed']);
  assert.equal(reasons[3], 'login-tries-exhausted');
});

test('a hundred replies at once are not a hundred tries', async (t) => {
  const { auth, parts, sessions } = await started(t);
  const form = formOf(await auth.begin(begin()));
  let verified = 0;
  const find = parts.directory.find.bind(parts.directory);
  parts.directory.find = (name) => {
    verified += 1;
    return find(name);
  };
  const answers = await Promise.all(Array.from({ length: 100 }, () => auth.reply(reply(form, WRONG))));
  assert.ok(verified <= 3, `${verified} passwords were looked at`);
  assert.equal(answers.filter((answer) => answer.granted).length, 0);
  assert.equal((await sessions.list()).length, 0);
});

test('a wrong reply that is repeated gets the same form and costs no try', async (t) => {
  const { auth } = await started(t);
  const first = formOf(await auth.begin(begin()));
  const second = formOf(await auth.reply(reply(first, WRONG)));
  for (const _ of [1, 2, 3, 4]) assert.deepEqual(await auth.reply(reply(first, WRONG)), { form: second });
  formOf(await auth.reply(reply(second, WRONG)));
});

test('a right reply that is repeated gives a session that works, and takes none away', async (t) => {
  const { auth, sessions } = await started(t);
  const form = formOf(await auth.begin(begin()));
  const lost = grantedOf(await auth.reply(reply(form, RIGHT)));
  const again = grantedOf(await auth.reply(reply(form, RIGHT)));
  assert.equal((await auth.lookup({ token: again.token })).live, true);
  assert.equal((await auth.lookup({ token: lost.token })).live, true);
  assert.equal((await sessions.list()).length, 2);
});

test('two right replies at once are both good', async (t) => {
  const { auth, sessions } = await started(t);
  const form = formOf(await auth.begin(begin()));
  const answers = await Promise.all([auth.reply(reply(form, RIGHT)), auth.reply(reply(form, RIGHT))]);
  const alive = new Set((await sessions.list()).map((session) => session.id));
  assert.equal(alive.size, 2);
  for (const answer of answers) assert.ok(alive.has(grantedOf(answer).sessionId));
});

test('two right replies at two replicas are both good, in whatever order these reach the store', async (t) => {
  for (const order of orders(6)) {
    const steps = new Steps(order);
    const logins = new MemoryLogins(() => 1_700_000_000_000);
    const { auth, sessions, replica } = await started(t, { logins: steps.taken('a', logins) });
    const form = formOf(await steps.free(() => auth.begin(begin())));
    const other = await replica(steps.taken('b', logins));
    const answers = await Promise.all([
      steps.until('a', () => auth.reply(reply(form, RIGHT))),
      steps.until('b', () => other.reply(reply(form, RIGHT))),
    ]);
    const alive = new Set((await sessions.list()).map((session) => session.id));
    for (const answer of answers) assert.ok(alive.has(grantedOf(answer).sessionId), order.join(' '));
  }
});

test('a wrong and a right reply at two replicas: the right one is good or must be given again, the wrong one never', async (t) => {
  for (const order of orders(6)) {
    const steps = new Steps(order);
    const logins = new MemoryLogins(() => 1_700_000_000_000);
    const { auth, sessions, replica } = await started(t, { logins: steps.taken('a', logins) });
    const form = formOf(await steps.free(() => auth.begin(begin())));
    const other = await replica(steps.taken('b', logins));
    const [right, wrong] = await Promise.all([
      steps.until('a', () => auth.reply(reply(form, RIGHT))),
      steps.until('b', () => other.reply(reply(form, WRONG))),
    ]);
    assert.equal(wrong.granted, undefined, order.join(' '));
    const [session, ...more] = await sessions.list();
    assert.equal(session?.id, right.granted?.sessionId, order.join(' '));
    assert.deepEqual(more, []);
  }
});

test('a granted login gives nothing to who has its handle but not the password, nor once its session is in use', async (t) => {
  const { auth, sessions } = await started(t, { settings: { policy: { ipv4Pools: ['10.9.0.0/24'] } } });
  const form = formOf(await auth.begin(begin()));
  const granted = grantedOf(await auth.reply(reply(form, RIGHT)));
  assert.equal((await auth.reply(reply(form, WRONG))).refused?.reason, 'login-failed');
  assert.equal((await auth.lookup({ token: granted.token })).live, true);

  const session = await sessions.get(granted.sessionId);
  await sessions.claim({
    tokenHash: session?.tokenHash ?? '',
    node: { name: 'n1', incarnation: 'a' },
    connectionId: 'c',
    wantIpv4: true,
    wantIpv6: false,
    client: { address: '', userAgent: '', platform: '', hostname: '' },
    strapKey: '',
    mtuBytes: 1400,
    seenEpoch: 0n,
  });
  assert.equal((await sessions.get(granted.sessionId))?.state, 'up');
  assert.equal((await auth.reply(reply(form, RIGHT))).refused?.reason, 'login-expired');
});

test('a pending login ends after auth-timeout, on the second', async (t) => {
  const { auth, clock } = await started(t);
  const form = formOf(await auth.begin(begin()));
  clock.now += 239_999;
  const again = formOf(await auth.reply(reply(form, WRONG)));
  clock.now += 1;
  assert.equal((await auth.reply(reply(again, RIGHT))).refused?.reason, 'login-expired');
});

test('a handle that was never given out is refused', async (t) => {
  const { auth } = await started(t);
  const form = formOf(await auth.begin(begin()));
  const [id = ''] = form.loginId.split('.');
  for (const loginId of [
    `${id}.2`,
    `${id}.0`,
    id,
    'x',
    `${'A'.repeat(22)}.1`,
    `${id}.1.1`,
    '__proto__',
    '../a.1',
  ]) {
    assert.equal(
      (await auth.reply(reply(form, RIGHT, { loginId }))).refused?.reason,
      'login-expired',
      loginId,
    );
  }
});

test('an unknown, a locked and a known user get the same answers', async (t) => {
  const users = (await line('alice', '*')) + (await line('lena', '*', { locked: true }));
  const { auth, events, sessions } = await started(t, { users });
  const seen = [];
  for (const name of [
    'alice',
    'lena',
    'nobody',
    '',
    'a\0b',
    '../../etc/passwd',
    'x'.repeat(300),
    '__proto__',
  ]) {
    const password = name === 'lena' ? PASSWORD : 'wrong';
    const form = formOf(await auth.begin(begin()));
    const { loginId: _, ...shown } = formOf(await auth.reply(reply(form, { username: name, password })));
    seen.push(shown);
  }
  for (const shown of seen) assert.deepEqual(shown, seen[0]);
  assert.equal((await sessions.list()).length, 0);
  const facts = events.recent(100).filter((fact): fact is Occurrence => fact.type === 'auth.failed');
  // Operators learn more; names that are no users are not written down (people type passwords there).
  assert.deepEqual(
    facts.map((fact) => (fact.type === 'auth.failed' ? [fact.user, fact.reason] : [])),
    [
      ['alice', 'login-failed'],
      ['lena', 'user-locked'],
      ...Array.from({ length: 6 }, () => ['', 'login-failed']),
    ],
  );
});

test('special characters and UTF-8 in name and password', async (t) => {
  const cases: [string, string][] = [
    ['sp@c/al', '!@#$%^&*()<>'],
    ["o'brien <b>&amp;", '"\'`\\ \t'],
    ['Жанна', 'пароль€😀'],
  ];
  const lines = await Promise.all(cases.map(([name, password]) => line(name, '*', { password })));
  const { auth } = await started(t, { users: lines.join('') });
  for (const [username, password] of cases) {
    const form = formOf(await auth.begin(begin()));
    assert.equal(grantedOf(await auth.reply(reply(form, { username, password }))).user, username);
  }
  const form = formOf(await auth.begin(begin()));
  // A look-alike (Latin a for Cyrillic а) is another name.
  formOf(await auth.reply(reply(form, { username: 'Жaнна', password: 'пароль€😀' })));
});

test('profiles are found by name and by label in any case; unknown ones give the default, never a session', async (t) => {
  const { auth, sessions } = await started(t, { settings: twoProfiles() });
  const chosen = async (profile: string) => formOf(await auth.begin(begin({ profile })));
  assert.equal((await chosen('')).profile.name, 'staff');
  assert.equal((await chosen('guests')).profile.name, 'guests');
  assert.equal((await chosen('GÄSTE')).profile.name, 'guests');
  for (const name of [
    'DefaultWEBVPNGroup',
    'DefaultRAGroup',
    '__proto__',
    'constructor',
    '../staff',
    'a'.repeat(300),
  ]) {
    const form = await chosen(name);
    assert.equal(form.profile.name, 'staff', name);
    formOf(await auth.reply(reply(form, WRONG, { profile: name })));
  }
  const guests = await chosen('guests');
  assert.deepEqual(guests.profiles, [
    { name: 'guests', label: 'Gäste' },
    { name: 'staff', label: 'Staff' },
  ]);
  assert.equal((await sessions.list()).length, 0);
});

test('a profile in the URL hides the list and cannot be left; an unknown one is refused', async (t) => {
  const { auth } = await started(t, { settings: twoProfiles() });
  const form = formOf(await auth.begin(begin({ urlProfile: 'guests', profile: 'staff' })));
  assert.equal(form.profile.name, 'guests');
  assert.deepEqual(form.profiles, []);
  assert.equal(grantedOf(await auth.reply(reply(form, RIGHT, { profile: 'staff' }))).profile, 'guests');
  assert.equal((await auth.begin(begin({ urlProfile: 'nix' }))).refused?.reason, 'profile-unknown');
});

test('a server name offers only its own profiles', async (t) => {
  const settings = {
    ...twoProfiles(),
    vhosts: { 'g.example': { tls: fakeSettings().tls, profiles: ['guests'] } },
  };
  const { auth } = await started(t, { settings });
  const there = client({ serverName: 'G.example.' });
  const form = formOf(await auth.begin(begin({ profile: 'staff', client: there })));
  assert.equal(form.profile.name, 'guests');
  const refused = await auth.begin(begin({ urlProfile: 'staff', client: there }));
  assert.equal(refused.refused?.reason, 'profile-unknown');
  // By the field of the reply neither (V8: another tenant's group).
  const granted = grantedOf(await auth.reply(reply(form, RIGHT, { profile: 'staff', client: there })));
  assert.equal(granted.profile, 'guests');
});

test('another profile in the reply begins anew with it and keeps the tries', async (t) => {
  const { auth } = await started(t, { settings: twoProfiles() });
  let form = formOf(await auth.begin(begin()));
  form = formOf(await auth.reply(reply(form, WRONG, { profile: 'guests' })));
  assert.equal(form.profile.name, 'guests');
  form = formOf(await auth.reply(reply(form, WRONG, { profile: 'staff' })));
  assert.equal(form.profile.name, 'staff');
  assert.equal(
    (await auth.reply(reply(form, WRONG, { profile: 'guests' }))).refused?.reason,
    'login-tries-exhausted',
  );

  form = formOf(await auth.begin(begin()));
  assert.equal(grantedOf(await auth.reply(reply(form, RIGHT, { profile: 'Gäste' }))).profile, 'guests');
});

test('a client that chooses again in an init keeps its tries and leaves no login behind', async (t) => {
  const { auth } = await started(t, { settings: { ...twoProfiles(), maxLoginsPerAddress: 1 } });
  let form = formOf(await auth.begin(begin()));
  form = formOf(await auth.reply(reply(form, WRONG)));
  form = formOf(await auth.reply(reply(form, WRONG)));
  form = formOf(await auth.begin(begin({ profile: 'guests', loginId: form.loginId })));
  assert.equal((await auth.begin(begin())).refused?.reason, 'login-limit');
  assert.equal((await auth.reply(reply(form, WRONG))).refused?.reason, 'login-tries-exhausted');
});

test('name, password and profile posted at once, without a form before, are enough', async (t) => {
  const { auth } = await started(t, { settings: twoProfiles() });
  const bare = { loginId: '', profile: 'Gäste', client: client() };
  assert.equal(grantedOf(await auth.reply({ ...bare, answers: RIGHT })).profile, 'guests');
  formOf(await auth.reply({ ...bare, answers: WRONG }));
  formOf(await auth.reply({ ...bare, answers: {} }));
});

test('lock, new password and deletion end sessions and pending logins', async (t) => {
  for (const verb of ['lock', 'passwd', 'delete'] as const) {
    const { auth, parts, sessions, events } = await started(t);
    const form = formOf(await auth.begin(begin()));
    const granted = grantedOf(await auth.reply(reply(form, RIGHT)));
    const pending = formOf(await auth.begin(begin()));
    await parts.directory.apply(
      verb === 'passwd' ? { verb, name: 'alice', password: 'another' } : { verb, name: 'alice' },
    );
    const reason = { lock: 'user-locked', passwd: 'password-changed', delete: 'user-deleted' }[verb];
    assert.equal((await auth.lookup({ token: granted.token })).live, false);
    assert.equal((await sessions.get(granted.sessionId))?.endReason, reason);
    formOf(await auth.reply(reply(pending, RIGHT)));
    assert.equal(
      (await auth.reply(reply(form, RIGHT))).granted,
      undefined,
      'the repeat of the granted reply',
    );
    const told = JSON.stringify(events.recent(100), bigints);
    assert.ok(!told.includes(PASSWORD) && !told.includes('$scrypt') && !told.includes(granted.token));
  }
});

test('a lock that comes while the session is being made wins', async (t) => {
  const { auth, parts, sessions } = await started(t);
  const create = sessions.create.bind(sessions);
  sessions.create = async (input) => {
    await parts.directory.apply({ verb: 'lock', name: 'alice' });
    return create(input);
  };
  const form = formOf(await auth.begin(begin()));
  assert.deepEqual((await auth.reply(reply(form, RIGHT))).refused?.reason, 'login-failed');
  assert.equal((await sessions.list()).length, 0);
});

test('logout ends the session of its token once', async (t) => {
  const { auth } = await started(t);
  const form = formOf(await auth.begin(begin()));
  const { token } = grantedOf(await auth.reply(reply(form, RIGHT)));
  assert.deepEqual(await auth.logout({ token: 'x' }), { ended: false });
  assert.deepEqual(await auth.logout({ token }), { ended: true });
  assert.deepEqual(await auth.logout({ token }), { ended: false });
  assert.equal((await auth.lookup({ token })).live, false);
});

test('a session past its first time is not live, swept or not', async (t) => {
  const { auth, clock } = await started(t);
  const { token } = grantedOf(await auth.reply(reply(formOf(await auth.begin(begin())), RIGHT)));
  clock.now += 299_999;
  assert.equal((await auth.lookup({ token })).live, true);
  clock.now += 1;
  assert.equal((await auth.lookup({ token })).live, false);
});

test('profile × user × way in: who may not enter is refused the same, and only after the right password', async (t) => {
  const groups: Record<string, string[]> = {
    alice: ['staff'],
    bob: ['guests'],
    carol: ['guests', 'ops'],
    dora: [],
  };
  const allowed: Record<string, string[]> = { staff: ['staff', 'ops'], guests: ['guests'], all: [] };
  const profiles = Object.fromEntries(
    Object.entries(allowed).map(([name, allowGroups]) => [
      name,
      fakeProfile(name, { label: `L-${name}`, allowGroups }),
    ]),
  );
  const lines = await Promise.all(
    Object.entries(groups).map(([user, of]) => line(user, of.join(',') || '*')),
  );
  const { auth, sessions } = await started(t, {
    users: lines.join(''),
    settings: { profiles, defaultProfile: 'all' },
  });
  const ways = ['init by name', 'init by label', 'url', 'field of the reply', 'posted at once'] as const;

  const enter = async (way: (typeof ways)[number], profile: string, answers: Record<string, string>) => {
    if (way === 'posted at once') return auth.reply({ loginId: '', answers, profile, client: client() });
    if (way === 'field of the reply')
      return auth.reply(reply(formOf(await auth.begin(begin())), answers, { profile }));
    const wish =
      way === 'url'
        ? { urlProfile: profile }
        : { profile: way === 'init by label' ? `l-${profile}` : profile };
    return auth.reply(reply(formOf(await auth.begin(begin(wish))), answers));
  };

  let made = 0;
  for (const [user, of] of Object.entries(groups)) {
    for (const [profile, allow] of Object.entries(allowed)) {
      for (const way of ways) {
        const name = `${user} into ${profile}, ${way}`;
        const mayEnter = allow.length === 0 || allow.filter((group) => of.includes(group)).length > 0;
        const right = await enter(way, profile, { username: user, password: PASSWORD });
        if (mayEnter) {
          made += 1;
          assert.equal(right.granted?.profile, profile, name);
          assert.equal(right.granted?.group, of[0] ?? '', name);
        } else {
          const text = 'You may not use this connection profile.';
          assert.deepEqual(right, { refused: { reason: 'profile-forbidden', text } }, name);
        }
        const wrong = await enter(way, profile, { username: user, password: 'wrong' });
        assert.equal(wrong.form?.error, 'Login failed.', name);
      }
    }
  }
  assert.equal((await sessions.list()).length, made);
});

test('what happened is counted by method and result, without names', async (t) => {
  const { auth, metrics } = await started(t);
  const form = formOf(await auth.reply(reply(formOf(await auth.begin(begin())), WRONG)));
  grantedOf(await auth.reply(reply(form, RIGHT)));
  const text = await metrics.text();
  assert.match(text, /sallyport_auth_attempts_total\{method="local",result="login-failed"\} 1/);
  assert.match(text, /sallyport_auth_attempts_total\{method="local",result="proven"\} 1/);
  assert.match(text, /sallyport_auth_duration_seconds_count\{method="local"\} 2/);
  assert.ok(!text.includes('alice') && !text.includes('192.0.2.7'));
});

function twoProfiles() {
  const profiles = {
    staff: fakeProfile('staff', { label: 'Staff' }),
    guests: fakeProfile('guests', { label: 'Gäste' }),
  };
  return { profiles, defaultProfile: 'staff' };
}

async function started(t: TestContext, options: Parameters<typeof fakeAuth>[0] = {}) {
  const fake = await fakeAuth(options);
  t.after(() => fake.close());
  return fake;
}

/** All orders in which two take `length` steps. */
function orders(length: number): ('a' | 'b')[][] {
  return Array.from({ length: 2 ** length }, (_, bits) =>
    Array.from({ length }, (_, at) => ((bits >> at) & 1 ? 'a' : 'b')),
  );
}

/** Lets two replicas reach their store in a given order; when it is at its end, or one of them is done, as they come. */
class Steps {
  readonly #order: string[];
  readonly #done = new Set<string>();
  #waiting: (() => void)[] = [];
  #free = false;

  constructor(order: readonly string[]) {
    this.#order = [...order];
  }

  async free<T>(work: () => Promise<T>): Promise<T> {
    this.#free = true;
    return work().finally(() => (this.#free = false));
  }

  async until<T>(who: string, work: () => Promise<T>): Promise<T> {
    return work().finally(() => {
      this.#done.add(who);
      this.#wake();
    });
  }

  taken(who: string, logins: Logins): Logins {
    return {
      add: (login, max) => this.#turn(who).then(() => logins.add(login, max)),
      find: (id) => this.#turn(who).then(() => logins.find(id)),
      replace: (login, revision) => this.#turn(who).then(() => logins.replace(login, revision)),
      remove: (id) => this.#turn(who).then(() => logins.remove(id)),
    };
  }

  async #turn(who: string): Promise<void> {
    const mine = () => this.#order.length === 0 || this.#order[0] === who || this.#done.size > 0;
    while (!this.#free && !mine()) await new Promise<void>((go) => this.#waiting.push(go));
    if (this.#free) return;
    this.#order.shift();
    this.#wake();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const go of waiting) go();
  }
}

function bigints(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value;
}
