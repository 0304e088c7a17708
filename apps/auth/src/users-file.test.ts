import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, readdir, rm, stat, symlink, writeFile, chmod } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { groupNameProblem, MAX_NAME_LENGTH, userNameProblem } from './names.ts';
import {
  changeText,
  changeUsersFile,
  parseUsers,
  readUsers,
  UserChangeRefused,
  UsersFileError,
} from './users-file.ts';

const HASH = '$5$qLHDxtQTYQfZIAPE$nSHqzROz/3LqFIvQJQNFdIJKzXKrhbVDMtlMuFWPHR0';
const OTHER = '$scrypt$ln=4,r=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA';

test('lines as ocpasswd writes them', () => {
  const text = `# ours\nalice:staff,ops:${HASH}\n\nbob:*:!${HASH}\nsp@c/al::${HASH}`;
  const { users, warnings } = parseUsers(text, 'users');
  assert.deepEqual(
    [...users.values()],
    [
      { name: 'alice', groups: ['staff', 'ops'], locked: false, hash: HASH },
      { name: 'bob', groups: [], locked: true, hash: HASH },
      { name: 'sp@c/al', groups: [], locked: false, hash: HASH },
    ],
  );
  assert.deepEqual(warnings, []);
});

test('all problems at once, with file and line, and no hash in the text', () => {
  const text = [
    `alice:*:${HASH}`,
    'bob',
    `../x:*:${HASH}`,
    `alice:ops:${HASH}`,
    'carl:*:',
    `dora:a/b:${HASH}`,
    `e:*:${HASH}:x`,
  ];
  assert.throws(
    () => parseUsers(text.join('\n'), '/etc/users'),
    (error) => {
      assert.ok(error instanceof UsersFileError);
      assert.deepEqual(
        error.problems.map((problem) => problem.replace(/: .*/, '')),
        [2, 3, 4, 5, 6, 7].map((number) => `/etc/users:${number}`),
      );
      assert.match(error.message, /:4: user 'alice' stands here twice/);
      assert.ok(!error.message.includes('$5$'));
      return true;
    },
  );
});

test('a hash that nobody can verify warns with file and line; the user stays so that he can get a new one', () => {
  const { users, warnings } = parseUsers(`old:*:$1$abcdefgh$abcdefghijklmnopqrstuv\n`, 'users');
  assert.equal(users.size, 1);
  assert.match(warnings[0] ?? '', /^users:1: the hash is MD5 \(\$1\$\)/);
  assert.equal(changeText('old:*:$1$a$b\n', { verb: 'passwd', name: 'old', hash: HASH }), `old:*:${HASH}\n`);
});

test('what is no name', () => {
  const bad = [
    '',
    '.',
    '..',
    '../../etc/passwd',
    'a/../b',
    '/a',
    'a/',
    'a//b',
    'a:b',
    'a\0',
    'a\nb',
    '\x7f',
    '\u0085',
  ];
  const odd = [
    '#a',
    ' a',
    'a ',
    'a\\b',
    '\u202ealice',
    '\ud800',
    'x'.repeat(MAX_NAME_LENGTH + 1),
    'x'.repeat(300),
  ];
  for (const name of [...bad, ...odd]) assert.notEqual(userNameProblem(name), '', JSON.stringify(name));
  const good = [
    'alice',
    'sp@c/al',
    'Жанна',
    "o'brien",
    'a b',
    'a.b',
    '__proto__',
    'x'.repeat(MAX_NAME_LENGTH),
  ];
  for (const name of good) assert.equal(userNameProblem(name), '', name);
  for (const name of ['*', 'a,b', 'a/b', '..', '']) assert.notEqual(groupNameProblem(name), '', name);
});

test('add, passwd, lock, unlock, delete change one line and leave the others as they are', () => {
  const text = `# keep\nalice:staff:${HASH}\nbob:*:${HASH}\n`;
  const steps = [
    [{ verb: 'lock', name: 'alice' }, text.replace('staff:', 'staff:!')],
    [{ verb: 'unlock', name: 'alice' }, text],
    [{ verb: 'passwd', name: 'bob', hash: OTHER }, text.replace(`bob:*:${HASH}`, `bob:*:${OTHER}`)],
    [{ verb: 'delete', name: 'alice' }, `# keep\nbob:*:${HASH}\n`],
    [{ verb: 'add', name: 'carl', groups: ['a', 'b'], hash: OTHER }, `${text}carl:a,b:${OTHER}\n`],
  ] as const;
  for (const [change, after] of steps) assert.equal(changeText(text, change), after, change.verb);
  const locked = changeText(text, { verb: 'lock', name: 'bob' });
  assert.equal(changeText(locked, { verb: 'lock', name: 'bob' }), locked, 'twice is once');
  assert.match(
    changeText(locked, { verb: 'passwd', name: 'bob', hash: OTHER }),
    /bob:\*:!/,
    'a new password unlocks nobody',
  );

  const refused = [
    { verb: 'add', name: 'bob', groups: [], hash: HASH },
    { verb: 'add', name: '../x', groups: [], hash: HASH },
    { verb: 'add', name: 'dora', groups: ['a,b'], hash: HASH },
    { verb: 'lock', name: 'nobody' },
    { verb: 'delete', name: '# keep' },
  ] as const;
  for (const change of refused)
    assert.throws(() => changeText(text, change), UserChangeRefused, JSON.stringify(change));
});

test('ocpasswd reads what we write, and we what it writes', async (t) => {
  const file = await usersFile(t, '');
  if (spawnSync('ocpasswd', ['--version']).error) return t.skip('no ocpasswd here');
  const byOcpasswd = (...args: string[]) =>
    assert.equal(
      spawnSync('ocpasswd', ['-c', file, ...args], { input: 'secret\nsecret\n' }).status,
      0,
      args.join(' '),
    );
  byOcpasswd('-g', 'staff', 'alice');
  await changeUsersFile(file, { verb: 'add', name: 'bob', groups: ['ops'], hash: HASH });
  byOcpasswd('-l', 'bob');
  await changeUsersFile(file, { verb: 'lock', name: 'alice' });
  byOcpasswd('-u', 'alice');
  const { users } = await readUsers(file);
  assert.equal(users.get('bob')?.locked, true);
  assert.equal(users.get('bob')?.hash, HASH);
  assert.deepEqual(users.get('alice')?.groups, ['staff']);
  assert.equal(users.get('alice')?.locked, false);
});

test('the file is private, its link stays, nothing is left beside it, and a lock of a dead process does not hold', async (t) => {
  const file = await usersFile(t, `alice:*:${HASH}\n`);
  const dir = join(file, '..');
  await chmod(file, 0o644);
  await symlink('users', join(dir, 'link'));
  const { pid } = spawnSync('true');
  await writeFile(`${file}.lock`, `${pid}\n`);
  await changeUsersFile(join(dir, 'link'), { verb: 'lock', name: 'alice' });
  assert.match(await readFile(file, 'utf8'), /^alice:\*:!/);
  await writeFile(`${file}.lock`, `${process.pid} 1\n`);
  await changeUsersFile(file, { verb: 'unlock', name: 'alice' });
  for (const rest of ['', `${process.pid}\n`, 'torn']) {
    await writeFile(`${file}.lock`, rest);
    await changeUsersFile(file, { verb: 'unlock', name: 'alice' });
  }
  assert.match(await readFile(file, 'utf8'), /^alice:\*:\$/, 'the id of its process was given away again');
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  assert.deepEqual((await readdir(dir)).sort(), ['link', 'users']);
});

test('many changes at once lose none', async (t) => {
  const file = await usersFile(t, '');
  const names = Array.from({ length: 20 }, (_, number) => `u${number}`);
  await Promise.all(
    names.map((name) => changeUsersFile(file, { verb: 'add', name, groups: [], hash: HASH })),
  );
  assert.deepEqual([...(await readUsers(file)).users.keys()].sort(), names.sort());
});

test('a file that is wrong or missing is not changed, and a missing one is no empty one; add makes it', async (t) => {
  const file = await usersFile(t, 'nonsense\n');
  await assert.rejects(
    changeUsersFile(file, { verb: 'add', name: 'a', groups: [], hash: HASH }),
    UsersFileError,
  );
  assert.equal(await readFile(file, 'utf8'), 'nonsense\n');
  const missing = join(file, '..', 'missing');
  await assert.rejects(readUsers(missing), UsersFileError);
  await assert.rejects(changeUsersFile(missing, { verb: 'lock', name: 'a' }));
  await changeUsersFile(missing, { verb: 'add', name: 'a', groups: [], hash: HASH });
  assert.equal((await readUsers(missing)).users.size, 1);
});

async function usersFile(t: TestContext, text: string): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'sallyport-users-'));
  t.after(() => rm(dir, { recursive: true }));
  await writeFile(join(dir, 'users'), text);
  return join(dir, 'users');
}
