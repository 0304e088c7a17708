import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MAX_SHOWN_LENGTH, parseConnect } from './connect.ts';
import { ProtocolError } from './errors.ts';

const OPENCONNECT: [string, string][] = [
  ['Host', 'vpn.example.test'],
  ['User-Agent', 'Open AnyConnect VPN Agent v9.01-3'],
  ['Cookie', 'webvpn=c2VjcmV0'],
  ['X-CSTP-Version', '1'],
  ['X-CSTP-Hostname', 'laptop17'],
  ['X-AnyConnect-STRAP-Verify', 'MEUCI'],
  ['X-AnyConnect-STRAP-Pubkey', 'MFkwE'],
  ['X-CSTP-Accept-Encoding', 'oc-lz4,lzs'],
  ['X-CSTP-Base-MTU', '1500'],
  ['X-CSTP-MTU', '1390'],
  ['X-CSTP-Address-Type', 'IPv6,IPv4'],
  ['X-CSTP-Full-IPv6-Capability', 'true'],
  ['X-DTLS-Master-Secret', 'AB'.repeat(48)],
  ['X-DTLS-CipherSuite', 'PSK-NEGOTIATE:OC-DTLS1_2-AES256-GCM:AES128-SHA'],
  ['X-DTLS12-CipherSuite', 'ECDHE-RSA-AES256-GCM-SHA384:AES128-SHA'],
];

test('reads the request of openconnect', () => {
  const { client, ...request } = parse(OPENCONNECT);
  assert.equal(client.family, 'openconnect');
  assert.deepEqual(request, {
    token: 'c2VjcmV0',
    hostname: 'laptop17',
    userAgent: 'Open AnyConnect VPN Agent v9.01-3',
    platform: '',
    mobile: false,
    baseMtuBytes: 1500,
    mtuBytes: 1390,
    wantIpv4: true,
    wantIpv6: true,
    fullIpv6: true,
    strapVerify: 'MEUCI',
    strapPubkey: 'MFkwE',
    dtls: {
      masterSecret: 'AB'.repeat(48),
      cipherSuites: ['PSK-NEGOTIATE', 'OC-DTLS1_2-AES256-GCM', 'AES128-SHA'],
      cipherSuites12: ['ECDHE-RSA-AES256-GCM-SHA384', 'AES128-SHA'],
    },
  });
});

test('only the tunnel can be reached by CONNECT (P5.1)', () => {
  assert.equal(parseConnect('CSCOSSLC/tunnel', []).token, '');
  const others = [
    'example.org:443',
    '/CSCOSSLC/tunnel/',
    '/CSCOSSLC/tunnel?x',
    '/cscosslc/tunnel',
    '//CSCOSSLC/tunnel',
    '/',
    '',
  ];
  for (const target of others) {
    assert.throws(
      () => parseConnect(target, []),
      (error) => error instanceof ProtocolError && error.status === 404,
    );
  }
});

test('of a header that comes twice the first counts', () => {
  const request = parse([
    ['x-cstp-base-mtu', '1400'],
    ['X-CSTP-Base-MTU', '1500'],
    ['COOKIE', 'webvpn=first'],
    ['Cookie', 'webvpn=second'],
  ]);
  assert.equal(request.baseMtuBytes, 1400);
  assert.equal(request.token, 'first');
});

test('an MTU that is not a number in range is as good as none (V13)', () => {
  for (const value of [
    '0',
    '1',
    '500',
    '799',
    '9217',
    '65535',
    '-1',
    '1e9',
    '',
    '+1400',
    '1400.5',
    '0x578',
    '99999999999999999999',
  ]) {
    assert.equal(parse([['X-CSTP-Base-MTU', value]]).baseMtuBytes, 0, value);
  }
  for (const value of ['0', '575', '65535', '-1', '1e3', ''])
    assert.equal(parse([['X-CSTP-MTU', value]]).mtuBytes, 0, value);
  assert.equal(parse([['X-CSTP-Base-MTU', '800']]).baseMtuBytes, 800);
  assert.equal(parse([['X-CSTP-MTU', '576']]).mtuBytes, 576);
});

test('asks for the address families that it names, and for IPv4 when it names none', () => {
  const families = (value?: string) => {
    const { wantIpv4, wantIpv6 } = parse(value === undefined ? [] : [['X-CSTP-Address-Type', value]]);
    return [wantIpv4, wantIpv6];
  };
  assert.deepEqual(families(), [true, false]);
  assert.deepEqual(families('IPv4'), [true, false]);
  assert.deepEqual(families('ipv6'), [false, true]);
  assert.deepEqual(families('IPv6, IPv4'), [true, true]);
});

test('a client without a master secret wants no DTLS', () => {
  const request = parse(OPENCONNECT.filter(([name]) => name !== 'X-DTLS-Master-Secret'));
  assert.equal(request.dtls, undefined);
});

test('knows a phone by its license, its platform or its agent', () => {
  assert.equal(parse([['X-CSTP-License', 'mobile']]).mobile, true);
  assert.equal(parse([['User-Agent', 'AnyConnect Android 4.10.05111']]).mobile, true);
  assert.equal(parse([['User-Agent', 'Cisco AnyConnect VPN Agent for Apple iPhone 4.10.5']]).mobile, true);
  assert.equal(parse([['User-Agent', 'AnyConnect Windows 4.10.07061']]).mobile, false);
});

test('texts for operators hold no control characters and are not too long', () => {
  const request = parse([['X-CSTP-Hostname', `a\x1b[31m\x00b\x9f${'c'.repeat(1000)}`]]);
  assert.equal(request.hostname, `a[31mb${'c'.repeat(1000)}`.slice(0, MAX_SHOWN_LENGTH));
});

function parse(headers: [string, string][]) {
  return parseConnect('/CSCOSSLC/tunnel', headers.flat());
}
