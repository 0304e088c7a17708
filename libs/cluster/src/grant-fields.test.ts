import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEFAULT_GRANT, forGrantFields, isGrantValue, policyFields } from './grant-fields.ts';
import { sampleGrant } from './session.fake.ts';
import { POLICY_KEYS } from './settings-keys.ts';

test('each policy key of the configuration sets one field of a Grant, in the order of its fields', () => {
  const names = Object.keys(POLICY_KEYS);
  // The names stand for the values, to see where each goes.
  const policy = policyFields(Object.fromEntries(names.map((name) => [name, name])));
  const set = Object.values<unknown>(policy);
  assert.deepEqual(set.toSorted(), names.filter((name) => name !== 'rekey-method').toSorted());
  assert.deepEqual(['group', ...Object.keys(policy)], Object.keys(DEFAULT_GRANT));
  assert.deepEqual(Object.keys(forGrantFields(() => 0)), Object.keys(DEFAULT_GRANT));
});

test('keys that are absent leave no field, and an empty list is a value', () => {
  assert.deepEqual(policyFields({ dns: [], mtu: 1400, 'rekey-method': 'new-tunnel' }), {
    dns: [],
    mtuBytes: 1400,
  });
});

test('knows by its kind what cannot be the value of a field', () => {
  const grant = sampleGrant({ onLimit: 'replace-oldest', explicitIpv4: '10.90.0.9' });
  forGrantFields((field) => assert.ok(isGrantValue(field, grant[field]), field));
  const wrong = {
    group: [[], null, 1],
    ipv4Pools: ['10.0.0.0/8', [1], {}, null],
    mtuBytes: ['1400', -1, 1.5, 2 ** 60, null],
    noUdp: [0, 'false', null],
    onLimit: ['maybe', '', null],
  } as const;
  for (const [field, values] of Object.entries(wrong) as [keyof typeof wrong, readonly unknown[]][]) {
    for (const value of values) assert.equal(isGrantValue(field, value), false, `${field} ${String(value)}`);
  }
});
