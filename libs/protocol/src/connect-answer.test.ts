import assert from 'node:assert/strict';
import { test } from 'node:test';
import { identifyClient } from './client.ts';
import {
  channelTimers,
  connectAnswer,
  MAX_HEADER_LINE,
  MAX_REKEY_SECONDS,
  type ConnectAnswer,
} from './connect-answer.ts';
import type { Grant } from './grant.ts';

test('is a complete head with the names as openconnect compares them', () => {
  assert.equal(
    connectAnswer(ANSWER),
    [
      'HTTP/1.1 200 CONNECTED',
      'X-CSTP-Version: 1',
      'X-CSTP-Hostname: gw',
      'X-CSTP-Address: 10.90.0.17',
      'X-CSTP-Netmask: 255.255.0.0',
      'X-CSTP-Address-IP6: fd00:90::11/128',
      'X-CSTP-DNS: 10.0.0.53',
      'X-CSTP-DNS: fd00::53',
      'X-CSTP-NBNS: 10.0.0.54',
      'X-CSTP-Default-Domain: example.test',
      'X-CSTP-Split-DNS: example.test',
      'X-CSTP-Split-DNS: corp.example.test',
      'X-CSTP-Tunnel-All-DNS: false',
      'X-CSTP-Split-Include: 10.0.0.0/255.0.0.0',
      'X-CSTP-Split-Include: 192.0.2.1/255.255.255.255',
      'X-CSTP-Split-Include-IP6: fd00::/8',
      'X-CSTP-Split-Exclude: 10.9.0.0/255.255.0.0',
      'X-CSTP-Session-Timeout: 43000',
      'X-CSTP-Session-Timeout-Remaining: 43000',
      'X-CSTP-Session-Timeout-Alert-Interval: 60',
      'X-CSTP-Idle-Timeout: 1800',
      'X-CSTP-Disconnected-Timeout: 1800',
      'X-CSTP-Rekey-Time: 86400',
      'X-CSTP-Rekey-Method: new-tunnel',
      'X-CSTP-DPD: 20',
      'X-CSTP-Keepalive: 20',
      'X-CSTP-Keep: true',
      'X-CSTP-TCP-Keepalive: true',
      'X-CSTP-License: accept',
      'X-CSTP-Smartcard-Removal-Disconnect: true',
      'X-CSTP-MSIE-Proxy-Lockdown: true',
      'X-CSTP-Routing-Filtering-Ignore: false',
      'X-CSTP-Quarantine: false',
      'X-CSTP-Disable-Always-On-VPN: false',
      'X-CSTP-Client-Bypass-Protocol: false',
      'X-CSTP-Base-MTU: 1500',
      'X-CSTP-MTU: 1418',
      '',
      '',
    ].join('\r\n'),
  );
});

test('an address family that was not given out leaves no header', () => {
  const four = lines({ ...ANSWER, ipv6: '' });
  assert.ok(!four.some((line) => /IP6|:.*:.*:/.test(line)));
  const six = lines({ ...ANSWER, ipv4: '' });
  assert.ok(!six.some((line) => /^X-CSTP-(Address|Netmask):/.test(line)));
  assert.ok(six.includes('X-CSTP-Address-IP6: fd00:90::11/128'));
});

test('a client without the full IPv6 capability gets the old form', () => {
  const old = lines({ ...ANSWER, fullIpv6: false, grant: { ...GRANT, ipv6SubnetPrefix: 64 } });
  assert.deepEqual(
    old.filter((line) => /^X-CSTP-(Address|Netmask)/.test(line)),
    [
      'X-CSTP-Address: 10.90.0.17',
      'X-CSTP-Netmask: 255.255.0.0',
      'X-CSTP-Address: fd00:90::11',
      'X-CSTP-Netmask: fd00:90::/64',
    ],
  );
  assert.ok(old.includes('X-CSTP-Split-Include: fd00::/8'));
  assert.ok(!old.some((line) => line.includes('-IP6')));
});

test('a family without a route of its own gets its own address, never everything', () => {
  const split = lines({ ...ANSWER, grant: { ...GRANT, routes: ['10.0.0.0/8'] } });
  assert.deepEqual(includes(split), [
    'X-CSTP-Split-Include: 10.0.0.0/255.0.0.0',
    'X-CSTP-Split-Include-IP6: fd00:90::11/128',
  ]);
  const other = lines({ ...ANSWER, grant: { ...GRANT, routes: ['fd00::/8'] } });
  assert.deepEqual(includes(other), [
    'X-CSTP-Split-Include-IP6: fd00::/8',
    'X-CSTP-Split-Include: 10.90.0.17/255.255.255.255',
  ]);
});

test('a full tunnel has no split route, but iOS needs one for IPv6', () => {
  const full = { ...ANSWER, grant: { ...GRANT, routes: [] } };
  assert.deepEqual(includes(lines(full)), []);
  const ios = { ...full, client: client('Cisco AnyConnect VPN Agent for Apple iPhone 4.10.5') };
  assert.deepEqual(includes(lines(ios)), ['X-CSTP-Split-Include-IP6: 2000::/3']);
  assert.deepEqual(includes(lines({ ...ios, ipv6: '' })), []);
});

test("Cisco's client gets IPv6 name servers and the agent's document in headers of their own", () => {
  const windows = lines({ ...ANSWER, client: client('AnyConnect Windows 4.10.07061') });
  assert.ok(windows.includes('X-CSTP-DNS-IP6: fd00::53') && !windows.includes('X-CSTP-DNS: fd00::53'));
  const document = windows.filter((line) =>
    line.startsWith('X-CSTP-Post-Auth-XML: <?xml version="1.0" encoding="UTF-8"?><config-auth '),
  );
  assert.equal(document.length, 1);
  const phone = lines({ ...ANSWER, client: client('AnyConnect Android 4.10.05111') });
  assert.ok(!phone.some((line) => line.startsWith('X-CSTP-Post-Auth-XML')));
});

test('phones have timers of their own, the same as in the channel', () => {
  const phone = lines({ ...ANSWER, client: client('AnyConnect Android 4.10.05111') });
  assert.ok(phone.includes('X-CSTP-DPD: 1800') && phone.includes('X-CSTP-Idle-Timeout: 7200'));
  assert.deepEqual(channelTimers(GRANT, true), {
    dpdSeconds: 1800,
    keepaliveSeconds: 20,
    idleTimeoutSeconds: 7200,
  });
});

test('what is off is said so, and a rekey is always named', () => {
  const off = {
    ...GRANT,
    dpdSeconds: 0,
    keepaliveSeconds: 0,
    idleTimeoutSeconds: 0,
    disconnectedTimeoutSeconds: 0,
    rekeySeconds: 0,
  };
  const head = lines({ ...ANSWER, grant: off, sessionRemainingSeconds: 0 });
  for (const name of [
    'Session-Timeout',
    'Session-Timeout-Remaining',
    'Idle-Timeout',
    'Disconnected-Timeout',
  ]) {
    assert.ok(head.includes(`X-CSTP-${name}: none`), name);
  }
  assert.ok(!head.some((line) => /^X-CSTP-(DPD|Keepalive|Session-Timeout-Alert)/.test(line)));
  assert.ok(head.includes(`X-CSTP-Rekey-Time: ${MAX_REKEY_SECONDS}`));
});

test('nothing is compressed and no DTLS is offered', () => {
  assert.doesNotMatch(connectAnswer(ANSWER), /Encoding|X-DTLS/);
});

test('openconnect gets the banner on one line; Cisco’s clients show that of the success document', () => {
  const grant = { ...GRANT, banner: 'Grüße.\n  Be good.\r\nX-Evil: 1\u0007\u0085' };
  const banner = (agent: string) =>
    lines({ ...ANSWER, grant, client: client(agent) }).filter((line) => /banner|evil/i.test(line));
  assert.deepEqual(banner('Open AnyConnect VPN Agent v9.01'), [
    'X-CSTP-Banner: Gr\u00c3\u00bc\u00c3\u009fe. Be good. X-Evil: 1',
  ]);
  for (const agent of ['AnyConnect Windows 4.10.07061', 'AnyConnect Linux_64 5.1.2', 'Something else'])
    assert.deepEqual(banner(agent), []);
  assert.doesNotMatch(
    connectAnswer({ ...ANSWER, client: client('Open AnyConnect VPN Agent v9.01') }),
    /Banner/,
  );
});

test('no value can end a line or begin another (V25)', () => {
  const evil = 'a\r\nX-Evil: 1\n\0é\tb';
  const grant = {
    ...GRANT,
    defaultDomain: evil,
    splitDns: [evil],
    dns: [evil],
    nbns: [evil],
    routes: [evil, '10.0.0.0/8'],
    noRoutes: [evil],
  };
  const head = connectAnswer({ ...ANSWER, grant, gatewayName: evil });
  assert.doesNotMatch(head, /^X-Evil/m);
  assert.match(head, /^[\x20-\x7e\r\n]*$/);
  assert.match(head, /^X-CSTP-Default-Domain: aX-Evil: 1b\r$/m);
  assert.equal(head.split('\r\n').length, head.split('\n').length);
});

test('a line that clients cannot hold is left out; many routes are not', () => {
  const routes = Array.from({ length: 500 }, (_, at) => `10.${at >> 8}.${at & 0xff}.0/24`);
  const grant = { ...GRANT, routes, defaultDomain: 'x'.repeat(9000) };
  const head = lines({ ...ANSWER, ipv6: '', grant });
  assert.equal(includes(head).length, 500);
  assert.ok(head.every((line) => line.length <= MAX_HEADER_LINE));
  assert.ok(!head.some((line) => line.startsWith('X-CSTP-Default-Domain')));
});

test('an address outside of all pools has a mask of its own', () => {
  assert.ok(lines({ ...ANSWER, ipv4: '10.99.1.1' }).includes('X-CSTP-Netmask: 255.255.255.255'));
});

function lines(answer: ConnectAnswer): string[] {
  return connectAnswer(answer).split('\r\n');
}

function includes(head: string[]): string[] {
  return head.filter((line) => line.startsWith('X-CSTP-Split-Include'));
}

function client(agent: string) {
  return identifyClient({ 'user-agent': agent });
}

const GRANT: Grant = {
  group: 'staff',
  ipv4Pools: ['10.91.0.0/24', '10.90.0.0/16'],
  ipv6Pools: ['fd00:90::/48'],
  ipv6SubnetPrefix: 128,
  explicitIpv4: '',
  explicitIpv6: '',
  routes: ['10.0.0.0/8', '192.0.2.1', 'fd00::/8'],
  noRoutes: ['10.9.0.0/255.255.0.0'],
  dns: ['10.0.0.53', 'fd00::53'],
  nbns: ['10.0.0.54'],
  defaultDomain: 'example.test',
  splitDns: ['example.test', 'corp.example.test'],
  tunnelAllDns: false,
  clientBypassProtocol: false,
  mtuBytes: 0,
  dpdSeconds: 20,
  mobileDpdSeconds: 1800,
  keepaliveSeconds: 20,
  idleTimeoutSeconds: 1800,
  mobileIdleTimeoutSeconds: 7200,
  sessionTimeoutSeconds: 43200,
  cookieTimeoutSeconds: 300,
  disconnectedTimeoutSeconds: 1800,
  rekeySeconds: 86400,
  maxSameClients: 3,
  onLimit: 'refuse',
  banner: '',
  noUdp: false,
  profileFile: '',
};

const ANSWER: ConnectAnswer = {
  grant: GRANT,
  ipv4: '10.90.0.17',
  ipv6: 'fd00:90::11',
  mtuBytes: 1418,
  baseMtuBytes: 1500,
  fullIpv6: true,
  client: client('AnyLink Secure Client 0.9'),
  gatewayName: 'gw',
  sessionRemainingSeconds: 43000,
};
