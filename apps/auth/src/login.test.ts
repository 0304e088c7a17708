import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  beginLogin,
  confirmsGrant,
  formatHandle,
  grantLogin,
  handleReply,
  handleVerified,
  isProven,
  MAX_REPLIES,
  parseHandle,
  type Login,
} from './login.ts';
import type { MethodResult } from './method.ts';

const LIMITS = { authTimeoutSeconds: 240, maxLoginTries: 3 };
const PROVEN: MethodResult = { type: 'proven', user: 'alice', mark: 'm' };
const WRONG: MethodResult = { type: 'refused', reason: 'login-failed', user: 'alice' };
const ASK: MethodResult = { type: 'challenge', message: 'code?', fields: [], state: 's' };

test('every path of three replies: granted only when each method in turn was proven by the same user', () => {
  const results: MethodResult[] = [PROVEN, WRONG, ASK, { ...PROVEN, user: 'bob' }];
  for (const count of [1, 2, 3]) {
    for (const path of pathsOf(results, 3)) {
      let login = started(count);
      const users: string[] = [];
      for (const result of path) {
        const step = login.step;
        const counted = verifying(login);
        if (!counted) break;
        login = handleVerified(counted, result, true, LIMITS);
        if (result.type === 'proven') users.push(result.user);
        assert.ok(
          login.state === 'refused' || isProven(login) || login.step === step + 1,
          'a new form has a new handle',
        );
        if (isProven(login)) break;
      }
      const expected = users.length === count && users.every((user) => user === users[0]);
      assert.equal(isProven(login), expected, JSON.stringify(path));
      assert.deepEqual(
        login.proven.map((proof) => proof.method),
        login.methods.slice(0, login.proven.length),
        'in order',
      );
    }
  }
});

test('no chain of challenges is without end', () => {
  let login = started(1);
  let replies = 0;
  for (let counted = verifying(login); counted; counted = verifying(login)) {
    replies += 1;
    login = handleVerified(counted, ASK, true, LIMITS);
  }
  assert.equal(replies, MAX_REPLIES);
  assert.deepEqual(handleReply(login, login.step, LIMITS, 0), {
    next: 'refuse',
    reason: 'login-tries-exhausted',
  });
});

test('a wrong answer to a challenge begins with the first form of that method, and counts', () => {
  const asked = handleVerified(counted(started(2)), ASK, true, LIMITS);
  assert.equal(asked.tries, 0, 'a challenge is no wrong answer');
  const wrong = handleVerified(counted(asked), WRONG, true, LIMITS);
  assert.equal(wrong.state, 'form');
  assert.equal(wrong.challenge, undefined);
  assert.equal(wrong.error, 'login-failed');
  assert.equal(wrong.tries, 1);
});

test('too much work for the gateway is not a mistake of the user', () => {
  let login = started(1);
  for (let round = 0; round < 5; round++) {
    login = handleVerified(
      counted(login),
      { type: 'refused', reason: 'login-limit', user: '' },
      true,
      LIMITS,
    );
  }
  assert.equal(login.state, 'form');
  assert.equal(login.tries, 0);
});

test('a method without a form has one try', () => {
  const login = handleVerified(
    started(1),
    { type: 'refused', reason: 'certificate-invalid', user: '' },
    false,
    LIMITS,
  );
  assert.equal(login.state, 'refused');
  assert.equal(login.reason, 'certificate-invalid');
  assert.equal(isProven(login), false);
  assert.equal(isProven(beginLogin({ ...START, methods: [] }, LIMITS, 0)), false, 'no method proves nothing');
});

test('a granted login is confirmed by the same proof of the same user only, and by the last form only', () => {
  const first = counted(started(2));
  const second = counted(handleVerified(first, PROVEN, true, LIMITS));
  const granted = grantLogin(handleVerified(second, PROVEN, true, LIMITS), 'session', 0);
  assert.equal(confirmsGrant(granted, PROVEN), true);
  assert.equal(confirmsGrant(granted, { ...PROVEN, user: 'bob' }), false);
  assert.equal(confirmsGrant(granted, WRONG), false);
  assert.equal(confirmsGrant(granted, ASK), false);
  assert.equal(handleReply(granted, granted.step, LIMITS, 0).next, 'verify');
  assert.deepEqual(handleReply(granted, granted.step - 1, LIMITS, 0), {
    next: 'refuse',
    reason: 'login-expired',
  });
});

test('past its time nothing is verified, in any state', () => {
  const login = started(1);
  assert.equal(handleReply(login, 1, LIMITS, login.expiresAt - 1).next, 'verify');
  for (const state of ['form', 'challenge', 'granted', 'refused'] as const) {
    const decision = handleReply({ ...login, state }, 1, LIMITS, login.expiresAt);
    assert.deepEqual(decision, { next: 'refuse', reason: 'login-expired' });
  }
});

test('handles go round, and nothing else is one', () => {
  assert.deepEqual(parseHandle(formatHandle(started(1))), { id: START.id, step: 1 });
  for (const text of [
    '',
    START.id,
    `${START.id}.`,
    `${START.id}.01`,
    `${START.id}.99999`,
    ` ${START.id}.1`,
    `${START.id}.1\n`,
  ]) {
    assert.equal(parseHandle(text), undefined, JSON.stringify(text));
  }
});

const START = {
  id: 'x'.repeat(22),
  profile: 'staff',
  profileFixed: false,
  methods: ['a'],
  address: '',
  tries: 0,
};

function started(methods: number): Login {
  return beginLogin({ ...START, methods: ['a', 'b', 'c'].slice(0, methods) }, LIMITS, 0);
}

function verifying(login: Login): Login | undefined {
  const decision = handleReply(login, login.step, LIMITS, 0);
  return decision.next === 'verify' ? decision.login : undefined;
}

function counted(login: Login): Login {
  const next = verifying(login);
  assert.ok(next);
  return next;
}

function pathsOf<T>(choices: readonly T[], length: number): T[][] {
  if (length === 0) return [[]];
  return pathsOf(choices, length - 1).flatMap((path) => choices.map((choice) => [...path, choice]));
}
