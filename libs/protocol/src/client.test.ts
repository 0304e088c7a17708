import assert from 'node:assert/strict';
import { test } from 'node:test';
import { identifyClient } from './index.ts';

const agent = (userAgent: string, more: Record<string, string> = {}) =>
  identifyClient({ 'user-agent': userAgent, ...more });

test('each agent string falls into its family, in any case', () => {
  const cases: [string, string, string, string][] = [
    ['Open AnyConnect VPN Agent v9.01-3', 'openconnect', '9.01-3', ''],
    ['Open AnyConnect VPN Agent v3.20', 'openconnect-old', '3.20', ''],
    ['Open AnyConnect VPN Agent v1.0', 'openconnect-old', '1.0', ''],
    ['AnyConnect-compatible OpenConnect VPN Agent v9.12', 'openconnect', '9.12', ''],
    ['OpenConnect VPN Agent v9.12', 'openconnect', '9.12', ''],
    ['AnyConnect Windows 4.10.07061', 'anyconnect', '4.10.07061', 'win'],
    ['anyconnect windows 4.10.07061', 'anyconnect', '4.10.07061', 'win'],
    ['AnyConnect Darwin_i386 4.8.03036', 'anyconnect', '4.8.03036', 'mac-intel'],
    ['AnyConnect Linux_64 4.7.00136', 'anyconnect', '4.7.00136', 'linux-64'],
    ['AnyConnect Windows 5.1.2.42', 'secure-client', '5.1.2.42', 'win'],
    ['Cisco AnyConnect VPN Agent for Windows 4.10.07061', 'anyconnect', '4.10.07061', 'win'],
    ['Cisco AnyConnect VPN Agent for Apple iPhone 4.10.03104', 'anyconnect-ios', '4.10.03104', 'apple-ios'],
    ['Clavister OneConnect VPN', 'clavister', '', ''],
    ['AnyLink Secure Client v0.9', 'anylink', '0.9', ''],
    ['Cisco SVC IPPhone Client v1.0', 'ip-phone', '1.0', ''],
    ['curl/7.88.1', 'unknown', '', ''],
    ['', 'unknown', '', ''],
  ];
  for (const [userAgent, family, version, platform] of cases) {
    const client = agent(userAgent);
    assert.deepEqual(
      [client.family, client.version, client.platform],
      [family, version, platform],
      userAgent,
    );
  }
});

test('only old openconnect gets bare documents, only iOS the IPv6 route', () => {
  assert.equal(agent('Open AnyConnect VPN Agent v3.20').quirks.bareAuth, true);
  assert.equal(agent('Open AnyConnect VPN Agent v4.00').quirks.bareAuth, false);
  assert.equal(agent('Cisco AnyConnect VPN Agent for Apple iPhone 4.10').quirks.needsIpv6Route, true);
  assert.equal(agent('AnyConnect Windows 4.10.07061').quirks.needsIpv6Route, false);
  assert.equal(agent('AnyConnect Windows 4.10.07061').quirks.dnsIpv6Header, 'X-CSTP-DNS-IP6');
  assert.equal(agent('Open AnyConnect VPN Agent v9.01').quirks.dnsIpv6Header, 'X-CSTP-DNS');
});

test('a mobile client is known by its platform or licence and gets no post-auth document', () => {
  assert.deepEqual(
    [
      agent('AnyConnect Android 4.10.02000').mobile,
      agent('AnyConnect Android 4.10.02000').quirks.postAuthXml,
    ],
    [true, false],
  );
  const byHeader = agent('Open AnyConnect VPN Agent v9.01', {
    'x-anyconnect-identifier-platform': 'apple-ios',
  });
  assert.deepEqual(
    [byHeader.mobile, byHeader.platform, byHeader.quirks.postAuthXml],
    [true, 'apple-ios', false],
  );
  assert.equal(agent('x', { 'x-cstp-license': 'mobile' }).mobile, true);
  assert.equal(agent('AnyConnect Windows 4.10.07061').mobile, false);
});

test('a platform name that is not one is ignored, and a huge agent costs nothing', () => {
  assert.equal(agent('x', { 'x-anyconnect-identifier-platform': '<b>"' }).platform, '');
  assert.equal(agent('1.'.repeat(50_000)).family, 'unknown');
});
