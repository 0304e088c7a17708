import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import {
  costOf,
  hashPassword,
  hashProblem,
  HASH_CONCURRENCY,
  MAX_CRYPT_ROUNDS,
  MAX_PASSWORD_LENGTH,
  MAX_HASH_WAIT_MS,
  MAX_WAITING_HASHES,
  Passwords,
} from './passwords.ts';

// Made with `openssl passwd -5 -salt saltsalt` and `-6`.
const CRYPT: [string, string][] = [
  ['secret', '$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA'],
  ['пароль€', '$5$saltsalt$Lcm/KHcD3YoQJ7kD8v1DFJmftQd4tX0P2S/LKdLgY64'],
  [
    'secret',
    '$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1',
  ],
];

test('each kind of hash takes the right password and no other', async (t) => {
  const passwords = started(t);
  const hashes: [string, string][] = [
    ...CRYPT,
    ['pä$$:word', await hashPassword('pä$$:word')],
    ['pä$$:word', await hashPassword('pä$$:word', { kind: 'scrypt', logN: 10, blockSize: 8, passes: 1 })],
  ];
  for (const [password, hash] of hashes) {
    assert.equal(hashProblem(hash), '', hash);
    assert.equal(await passwords.verify(password, hash), 'right', hash);
    assert.equal(await passwords.verify(`${password}x`, hash), 'wrong', hash);
    assert.equal(await passwords.verify('', hash), 'wrong', hash);
    assert.ok(!hash.includes(':'), 'a hash fits into a line with colons');
  }
});

test('two hashes of one password differ', async () => {
  for (const recipe of [undefined, { kind: 'scrypt', logN: 4, blockSize: 1, passes: 1 } as const]) {
    assert.notEqual(await hashPassword('secret', recipe), await hashPassword('secret', recipe));
  }
});

test('hashes that are weak, unknown, broken or too costly are refused with a text that does not repeat them', async (t) => {
  const passwords = started(t);
  const salt = 'AAAAAAAAAAAAAAAAAAAAAA';
  const digest = 'A'.repeat(43);
  const bad: [string, RegExp][] = [
    ['$1$saltsalt$xxxxxxxxxxxxxxxxxxxxxx', /MD5/],
    ['secret', /no kind/],
    ['$2b$10$abcdefghijklmnopqrstuv', /no kind/],
    [`$5$rounds=${MAX_CRYPT_ROUNDS + 1}$salt$${digest}`, /rounds/],
    [`$6$rounds=999999999$salt$${'A'.repeat(86)}`, /rounds/],
    [`$argon2id$v=19$m=4194304,t=2,p=1$${salt}$${digest}`, /costs more/],
    [`$argon2id$v=19$m=19456,t=9999,p=1$${salt}$${digest}`, /costs more/],
    ['$argon2id$v=19$m=19456', /malformed/],
    [`$scrypt$ln=25,r=8,p=1$${salt}$${digest}`, /costs more/],
    [`$scrypt$ln=99,r=8,p=1$${salt}$${digest}`, /malformed/],
    ['$scrypt$', /malformed/],
  ];
  for (const [hash, text] of bad) {
    assert.match(hashProblem(hash), text, hash);
    assert.ok(!hashProblem(hash).includes(hash));
  }
  assert.equal(hashProblem(`$5$rounds=${MAX_CRYPT_ROUNDS}$salt$${digest}`), '');
  assert.equal(await passwords.verify('secret', 'secret'), 'wrong', 'a password in clear is no hash');
});

test('a password that is too long, empty or holds a NUL is never right', async (t) => {
  const passwords = started(t);
  const longest = 'x'.repeat(MAX_PASSWORD_LENGTH);
  const hash = await hashPassword(longest, { kind: 'scrypt', logN: 4, blockSize: 1, passes: 1 });
  assert.equal(await passwords.verify(longest, hash), 'right');
  assert.equal(await passwords.verify(`${longest}x`, hash), 'wrong');
  for (const password of ['', `${longest}x`, 'a\0b']) await assert.rejects(hashPassword(password));
});

test('nobody is never right and meets the cost of some user, always the same for one name', async (t) => {
  const passwords = started(t);
  const hash = await hashPassword('secret', { kind: 'scrypt', logN: 14, blockSize: 8, passes: 1 });
  const costs = [costOf(hash)];
  assert.equal(costs[0], '$scrypt$ln=14,r=8,p=1');
  assert.equal(await passwords.verifyNobody('x', 'secret', costs), 'wrong');
  assert.equal(await passwords.verifyNobody('x', 'secret', []), 'wrong');
  const verify = t.mock.method(passwords, 'verify');
  assert.equal(await passwords.verifyNobody('x', 'secret', costs), 'wrong');
  assert.deepEqual(
    verify.mock.calls.map(({ arguments: [, checked] }) => costOf(checked)),
    costs,
  );

  const known: number[] = [];
  const unknown: number[] = [];
  for (let round = 0; round < 7; round++) {
    known.push(await spent(() => passwords.verify('wrong', hash)));
    unknown.push(await spent(() => passwords.verifyNobody(`n${round}`, 'wrong', costs)));
  }
  const ratio = median(unknown) / median(known);
  t.diagnostic(`an unknown name costs ${ratio.toFixed(2)} of a known one`);
  assert.ok(ratio > 0.1 && ratio < 10, 'one of them is not computed');
});

test('the costs of all kinds', () => {
  assert.equal(costOf(`$5$salt$${'A'.repeat(43)}`), '$5');
  assert.equal(costOf(`$6$rounds=7000$salt$${'A'.repeat(86)}`), '$6$rounds=7000');
  assert.equal(costOf('$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$AAAA'), '$argon2id$v=19$m=19456,t=2,p=1');
});

test('checks are few at a time, the queue is bounded, and the event loop goes on meanwhile', async (t) => {
  const passwords = started(t);
  const hash = await hashPassword('secret', { kind: 'scrypt', logN: 4, blockSize: 1, passes: 1 });
  const all = MAX_WAITING_HASHES + HASH_CONCURRENCY;
  const verdicts = await Promise.all(Array.from({ length: all + 5 }, () => passwords.verify('secret', hash)));
  assert.equal(verdicts.filter((verdict) => verdict === 'right').length, all);
  assert.equal(verdicts.filter((verdict) => verdict === 'busy').length, 5);
  assert.equal(await passwords.verify('secret', hash), 'right', 'and it recovers');

  let turns = 0;
  const ticker = setInterval(() => (turns += 1), 1);
  const [, , sha512 = ''] = CRYPT.map(([, text]) => text);
  await Promise.all(
    Array.from({ length: 6 }, () => passwords.verify('secret', sha512.replace('$6$', '$6$rounds=50000$'))),
  );
  clearInterval(ticker);
  assert.ok(turns > 5, `${turns} turns of the loop while hashes were computed`);
});

test('a check that waited too long is given up, whatever the queue holds', async (t) => {
  const clock = { now: 0 };
  const passwords = started(t, () => clock.now);
  const hash = await hashPassword('secret', { kind: 'scrypt', logN: 10, blockSize: 8, passes: 1 });
  const early = Array.from({ length: HASH_CONCURRENCY + 3 }, () => passwords.verify('secret', hash));
  clock.now += 1;
  const late = Array.from({ length: 2 }, () => passwords.verify('secret', hash));
  clock.now += MAX_HASH_WAIT_MS - 1;
  const verdicts = await Promise.all([...early, ...late]);
  assert.deepEqual(verdicts, ['right', 'right', 'busy', 'busy', 'busy', 'right', 'right']);
  assert.equal(await passwords.verify('secret', hash), 'right', 'and it recovers');
});

function started(t: TestContext, now?: () => number): Passwords {
  const passwords = new Passwords(now);
  t.after(() => passwords.close());
  return passwords;
}

/** CPU of all threads of this process, µs: what others do on the machine does not count. */
async function spent(work: () => Promise<unknown>): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1] ?? 0;
}
