import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PolicyKeys, Settings } from '@sallyport/cluster';
import { DEFAULT_GRANT } from '@sallyport/cluster';
import { Policies, resolvePolicy } from './policy.ts';
import { fakeProfile, fakeSettings } from './settings.fake.ts';

const SCOPES = ['global', 'profile', 'group', 'user'] as const;

test('the narrowest scope that sets a key wins, and the origin says which: all 16 combinations', () => {
  for (let set = 0; set < 16; set++) {
    const has = (scope: (typeof SCOPES)[number]) => (set & (1 << SCOPES.indexOf(scope))) !== 0;
    const at = (scope: (typeof SCOPES)[number], value: number): PolicyKeys =>
      has(scope) ? { dpdSeconds: value } : {};
    const settings = fakeSettings({
      policy: at('global', 1),
      profiles: { staff: fakeProfile('staff', { policy: at('profile', 2) }) },
      groups: { ops: at('group', 3) },
      users: { alice: at('user', 4) },
    });
    const { grant, origins } = resolved(settings, 'alice', ['ops']);
    const winner = [...SCOPES].reverse().find(has);
    const value = { global: 1, profile: 2, group: 3, user: 4 };
    const name = { global: '', profile: 'staff', group: 'ops', user: 'alice' };
    assert.equal(grant.dpdSeconds, winner ? value[winner] : 20);
    assert.deepEqual(
      origins.dpdSeconds,
      winner ? { scope: winner, name: name[winner] } : { scope: 'default', name: '' },
    );
    assert.deepEqual(origins.keepaliveSeconds, { scope: 'default', name: '' });
  }
});

test('a list replaces that of a wider scope wholly, an empty one takes it away', () => {
  const settings = fakeSettings({
    policy: { routes: ['10.0.0.0/8'], dns: ['10.0.0.1'] },
    groups: { ops: { routes: ['10.1.0.0/16', '10.2.0.0/16'], dns: [] } },
  });
  const { grant } = resolved(settings, 'alice', ['ops']);
  assert.deepEqual(grant.routes, ['10.1.0.0/16', '10.2.0.0/16']);
  assert.deepEqual(grant.dns, []);
});

test('the group of the profile counts before the own group of the user; without either there is none', () => {
  const groups = { ops: { mtuBytes: 1300 }, vip: { mtuBytes: 1350 } };
  const own = fakeSettings({ groups });
  assert.equal(resolved(own, 'alice', ['ops', 'vip']).grant.mtuBytes, 1300);
  assert.equal(resolved(own, 'alice', ['unlisted']).grant.group, 'unlisted');
  assert.equal(resolved(own, 'alice', []).grant.group, '');
  const fixed = fakeSettings({ groups, profiles: { staff: fakeProfile('staff', { group: 'vip' }) } });
  const { grant, origins } = resolved(fixed, 'alice', ['ops']);
  assert.equal(grant.group, 'vip');
  assert.deepEqual(origins.group, { scope: 'profile', name: 'staff' });
});

test('what is missing refuses', () => {
  const settings = fakeSettings({
    profiles: {
      staff: fakeProfile('staff', { allowGroups: ['ops'] }),
      broken: fakeProfile('broken', { group: 'gone' }),
    },
  });
  const reason = (profile: string, groups: string[]) => {
    const result = resolvePolicy(settings, profile, 'alice', groups);
    return result.ok ? 'ok' : result.reason;
  };
  assert.equal(reason('staff', ['ops']), 'ok');
  assert.equal(reason('staff', ['Ops']), 'profile-forbidden');
  assert.equal(reason('staff', []), 'profile-forbidden');
  assert.equal(reason('broken', []), 'policy-unreadable');
  for (const name of ['', 'nix', '__proto__', 'constructor', 'toString'])
    assert.equal(reason(name, []), 'profile-unknown');
});

test('names that every object has are no users and no groups', () => {
  const { grant } = resolved(fakeSettings(), 'constructor', ['__proto__']);
  assert.deepEqual({ ...grant, group: '' }, DEFAULT_GRANT);
});

test('the defaults are those of the decision', () => {
  const { dpdSeconds, keepaliveSeconds, mobileDpdSeconds, rekeySeconds } = DEFAULT_GRANT;
  assert.deepEqual([dpdSeconds, keepaliveSeconds, mobileDpdSeconds, rekeySeconds], [20, 20, 1800, 86_400]);
  const { cookieTimeoutSeconds, disconnectedTimeoutSeconds, maxSameClients, onLimit } = DEFAULT_GRANT;
  assert.deepEqual(
    [cookieTimeoutSeconds, disconnectedTimeoutSeconds, maxSameClients, onLimit],
    [300, 1800, 3, 'refuse'],
  );
});

test('users without policy of their own share one frozen Grant, until the configuration changes', () => {
  const policies = new Policies();
  const settings = fakeSettings({ users: { carl: { mtuBytes: 1200 } } });
  const of = (from: Settings, user: string, groups: string[]) => {
    const result = policies.resolve(from, 'staff', user, groups);
    assert.ok(result.ok);
    return result.grant;
  };
  assert.equal(of(settings, 'alice', ['ops']), of(settings, 'bob', ['ops']));
  assert.notEqual(of(settings, 'alice', ['ops']), of(settings, 'bob', []));
  assert.equal(of(settings, 'carl', ['ops']).mtuBytes, 1200);
  assert.equal(of({ ...settings, policy: { mtuBytes: 1100 } }, 'alice', ['ops']).mtuBytes, 1100);
  assert.throws(() => of(settings, 'alice', ['ops']).routes.push('0.0.0.0/0'), TypeError);
  assert.ok(!Object.isFrozen(settings.policy), 'the configuration itself is left alone');
});

function resolved(settings: Settings, user: string, groups: string[]) {
  const result = resolvePolicy(settings, 'staff', user, groups);
  assert.ok(result.ok);
  return result;
}
