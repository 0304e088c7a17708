import assert from 'node:assert/strict';
import { appendFile, readFile, rm, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { test, type TestContext } from 'node:test';
import { createLog, Metrics } from '@sallyport/chassis';
import { StoreUnavailable } from '@sallyport/cluster';
import { begin, client, fakeAuth, formOf, grantedOf, line, PASSWORD, reply } from './auth.fake.ts';
import { openAuth } from './auth.module.ts';
import { fakeProfile } from './settings.fake.ts';
import { UserChangeRefused, UsersFileError } from './users-file.ts';

test('an edit by hand is noticed: who was locked, changed, deleted or left the group loses his sessions, others do not', async (t) => {
  const names = ['alice', 'bob', 'carl', 'dora', 'eve'];
  const before = await Promise.all(names.map((name) => line(name, 'ops')));
  const settings = { profiles: { staff: fakeProfile('staff', { allowGroups: ['ops'] }) } };
  const { auth, parts, sessions, usersFile } = await started(t, { users: before.join(''), settings });
  const ids = new Map<string, string>();
  for (const name of names) ids.set(name, await loggedIn(auth, name));

  const after = [
    await line('alice', 'ops', { locked: true }),
    await line('bob', 'ops', { password: 'another' }),
    await line('dora', 'other'),
    await line('eve', 'ops,more'),
  ];
  await writeFile(usersFile, after.join(''));
  await until(() => parts.directory.find('alice')?.locked === true);
  await until(async () => (await sessions.list()).length === 1);
  const reasons = await Promise.all([...ids.values()].map(async (id) => (await sessions.get(id))?.endReason));
  assert.deepEqual(reasons, ['user-locked', 'password-changed', 'user-deleted', 'profile-forbidden', '']);
});

test('a file that becomes bad or vanishes changes nothing, until it is good again', async (t) => {
  const { auth, parts, sessions, usersFile } = await started(t);
  await loggedIn(auth, 'alice');
  const good = await readFile(usersFile, 'utf8');
  await appendFile(usersFile, 'nonsense\n');
  await assert.rejects(parts.directory.reload(), UsersFileError);
  await rm(usersFile);
  await assert.rejects(parts.directory.reload(), UsersFileError);
  await loggedIn(auth, 'alice');
  assert.equal((await sessions.list()).length, 2);
  await writeFile(usersFile, good + (await line('bob', '*')));
  await parts.directory.reload();
  await loggedIn(auth, 'bob');
  assert.equal((await sessions.list()).length, 3);
});

test('a file that is emptied is an error, whoever did it, unless a line says that nobody is meant to stand there', async (t) => {
  const look = looks(t);
  const { auth, parts, sessions, usersFile } = await started(t);
  const id = await loggedIn(auth, 'alice');
  for (const text of ['', '\n', '# header\n']) {
    await writeFile(usersFile, text);
    await assert.rejects(parts.directory.reload(), /nobody stands here .*'# no users'/);
    await assert.rejects(parts.directory.prepare(true), UsersFileError);
    await look();
    await look();
    assert.equal((await sessions.get(id))?.state, 'authed');
  }
  await writeFile(usersFile, '# header\n# no users\n');
  await look();
  await look();
  assert.equal((await sessions.get(id))?.endReason, 'user-deleted');
  await parts.directory.apply({ verb: 'add', name: 'alice', groups: [], password: PASSWORD });
  await parts.directory.apply({ verb: 'delete', name: 'alice' });
  assert.equal(await readFile(usersFile, 'utf8'), '# header\n# no users\n');
  assert.deepEqual(parts.directory.list(), []);
});

test('who is missing, or has half a hash, while the file is being written keeps his sessions', async (t) => {
  const look = looks(t);
  const users = (await line('alice', '*')) + (await line('bob', '*')) + (await line('carl', '*'));
  const { auth, parts, sessions, usersFile } = await started(t, { users });
  for (const name of ['alice', 'bob', 'carl']) await loggedIn(auth, name);
  const names = () =>
    parts.directory
      .list()
      .map(({ name }) => name)
      .join();
  for (const length of [users.indexOf('bob') + 60, users.indexOf('carl')]) {
    await writeFile(usersFile, users.slice(0, length));
    await look();
    await writeFile(usersFile, users + (await line('dora', '*')));
    await look();
    assert.equal(names(), 'alice,bob,carl,dora', 'who is added counts at once');
    assert.equal((await sessions.list()).length, 3);
    await writeFile(usersFile, users);
    await look();
    assert.equal(names(), 'alice,bob,carl,dora', 'gone perhaps');
    await look();
    assert.equal(names(), 'alice,bob,carl');
  }
});

test('without a profile for passwords the file may be missing, and is read when it comes', async (t) => {
  const settings = { profiles: { staff: fakeProfile('staff', { methods: ['certificate'] }) } };
  const fake = await started(t, { settings, users: '' });
  await rm(fake.usersFile);
  const log = createLog({ name: 'auth', level: 'silent' });
  const { state, sessions, events } = fake;
  const open = () =>
    openAuth({ settings: () => state.settings, sessions, events, metrics: new Metrics(), log });
  const auth = await open();
  t.after(() => auth.close());
  await auth.directory.reload();
  await auth.directory.apply({ verb: 'add', name: 'alice', groups: [], password: PASSWORD });
  assert.equal(auth.directory.list().length, 1);

  await rm(fake.usersFile);
  await assert.rejects(auth.directory.reload(), UsersFileError);
  assert.equal(auth.directory.list().length, 1);
  state.settings = { ...state.settings, profiles: { staff: fakeProfile('staff') } };
  await assert.rejects(open(), UsersFileError);
});

test('sessions that a restart brought back end if their users were locked or deleted meanwhile', async (t) => {
  const users = (await line('alice', '*')) + (await line('bob', '*')) + (await line('carl', '*'));
  const fake = await started(t, { users });
  const ids = [];
  for (const name of ['alice', 'bob', 'carl']) ids.push(await loggedIn(fake.auth, name));
  await writeFile(fake.usersFile, (await line('alice', '*', { locked: true })) + (await line('carl', '*')));
  fake.parts.directory.close();
  const { state, sessions, events } = fake;
  const log = createLog({ name: 'auth', level: 'silent' });
  const again = await openAuth({
    settings: () => state.settings,
    sessions,
    events,
    metrics: new Metrics(),
    log,
  });
  t.after(() => again.close());
  const reasons = await Promise.all(ids.map(async (id) => (await sessions.get(id))?.endReason));
  assert.deepEqual(reasons, ['user-locked', 'user-deleted', '']);
});

test('a store that does not answer is asked again: the lock holds at once, the session ends later', async (t) => {
  const { auth, parts, sessions } = await started(t);
  const id = await loggedIn(auth, 'alice');
  const endOfUser = sessions.endOfUser.bind(sessions);
  sessions.endOfUser = () => Promise.reject(new StoreUnavailable('away'));
  await assert.rejects(parts.directory.apply({ verb: 'lock', name: 'alice' }), StoreUnavailable);
  assert.equal(parts.directory.find('alice')?.locked, true);
  sessions.endOfUser = endOfUser;
  await until(async () => (await sessions.get(id))?.state === 'closed');
});

test('what was prepared is taken over whatever becomes of file and store, unless the file was read again', async (t) => {
  const { auth, parts, sessions, usersFile } = await started(t);
  const id = await loggedIn(auth, 'alice');
  await writeFile(usersFile, await line('bob', '*'));
  const takeOver = await parts.directory.prepare(true);
  await writeFile(usersFile, 'nonsense\n');
  await assert.rejects(parts.directory.prepare(true), UsersFileError);
  const endOfUser = sessions.endOfUser.bind(sessions);
  sessions.endOfUser = () => Promise.reject(new StoreUnavailable('away'));
  await takeOver();
  assert.deepEqual(
    parts.directory.list().map(({ name }) => name),
    ['bob'],
  );
  sessions.endOfUser = endOfUser;
  await until(async () => (await sessions.get(id))?.endReason === 'user-deleted');

  await writeFile(usersFile, await line('carl', '*'));
  const late = await parts.directory.prepare(true);
  await parts.directory.apply({ verb: 'add', name: 'dora', groups: [], password: PASSWORD });
  await late();
  assert.deepEqual(
    parts.directory.list().map(({ name }) => name),
    ['carl', 'dora'],
  );
});

test('orders that make no sense are refused with a text for the operator', async (t) => {
  const { parts, usersFile, events } = await started(t);
  const before = await readFile(usersFile, 'utf8');
  const orders = [
    { verb: 'add', name: 'alice', groups: [], password: 'x' },
    { verb: 'add', name: 'a:b', groups: [], password: 'x' },
    { verb: 'add', name: 'new', groups: [], password: '' },
    { verb: 'passwd', name: 'nobody', password: 'x' },
    { verb: 'passwd', name: 'alice', password: 'x'.repeat(257) },
    { verb: 'unlock', name: 'nobody' },
  ] as const;
  for (const order of orders)
    await assert.rejects(parts.directory.apply(order), UserChangeRefused, JSON.stringify(order));
  assert.equal(await readFile(usersFile, 'utf8'), before);
  await parts.directory.apply({ verb: 'add', name: 'new', groups: ['ops'], password: PASSWORD });
  assert.match(await readFile(usersFile, 'utf8'), /\nnew:ops:\$argon2id\$/, 'new hashes are argon2id');
  const facts = events.recent(10).flatMap((fact) => (fact.type === 'admin.changed' ? [fact] : []));
  assert.deepEqual(
    facts.map(({ verb, subject }) => `${verb} ${subject}`),
    ['user-add new'],
    'only what was done is a fact',
  );
});

type Fake = Awaited<ReturnType<typeof fakeAuth>>;

async function started(t: TestContext, options: Parameters<typeof fakeAuth>[0] = {}): Promise<Fake> {
  const fake = await fakeAuth(options);
  t.after(() => fake.close());
  return fake;
}

async function loggedIn(auth: Fake['auth'], username: string): Promise<string> {
  const form = formOf(await auth.begin(begin({ client: client() })));
  return grantedOf(await auth.reply(reply(form, { username, password: PASSWORD }))).sessionId;
}

/** In place of the timer. @returns one look, done. */
function looks(t: TestContext): () => Promise<void> {
  t.mock.timers.enable({ apis: ['setInterval'] });
  return async () => {
    t.mock.timers.tick(1000);
    // Done when for some turns, as long as a look takes, nobody else has asked the file system for anything.
    for (let idle = 0; idle < 10; idle += 1) {
      if (process.getActiveResourcesInfo().some((name) => name.startsWith('FSReq'))) idle = 0;
      await readFile('/dev/null');
    }
  };
}

/** The file is looked at once a second, by the machine's clock. */
async function until(done: () => boolean | Promise<boolean>): Promise<void> {
  for (let round = 0; round < 1200; round++) {
    if (await done()) return;
    await sleep(50);
  }
  assert.fail('it did not come to pass within a minute');
}
