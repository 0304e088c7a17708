import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  cidrContains,
  cidrsOverlap,
  dottedMask,
  formatAddress,
  formatCidr,
  formatRange,
  fromBigint,
  gatewayOf,
  parseAddress,
  parseCidr,
  parseRange,
  toBigint,
} from './ip.ts';

test('reads and writes addresses in one form', () => {
  const forms = {
    '10.0.0.1': '10.0.0.1',
    '255.255.255.255': '255.255.255.255',
    '::1': '::1',
    '::': '::',
    '1::': '1::',
    '::1.2.3.4': '::102:304',
    '::ffff:10.0.0.1': '::ffff:a00:1',
    '64:ff9b::192.0.2.1': '64:ff9b::c000:201',
    '1:2:3:4:5:6:1.2.3.4': '1:2:3:4:5:6:102:304',
    '2001:db8:0:0:1:0:0:1': '2001:db8::1:0:0:1',
    '2001:db8:0:1:1:1:1:1': '2001:db8:0:1:1:1:1:1',
    'FD00:0:0:0:0:0:0:00a1': 'fd00::a1',
    '2001:db8:0:1:0:0:0:1': '2001:db8:0:1::1',
  };
  for (const [text, form] of Object.entries(forms))
    assert.equal(formatAddress(parseAddress(text) ?? new Uint8Array(4)), form);
});

test('refuses what only looks like an address', () => {
  for (const text of [
    '',
    '10.1',
    '0x0a.0.0.1',
    '10.0.0.256',
    '010.0.0.1',
    '::1.2.3.400',
    '::01.2.3.4',
    '::0x1.2.3.4',
    '1.2.3.4::',
    '1:2:3:4:5:6:7:1.2.3.4',
    '10.0.0.1 ',
    'fe80::1%eth0',
    '1::2::3',
    'fd00::/8',
    'host',
    '12345',
  ]) {
    assert.equal(parseAddress(text), undefined, text);
  }
});

test('reads CIDRs with a length or a mask, and clears the host bits', () => {
  const forms = {
    '10.90.3.7/16': '10.90.0.0/16',
    '10.90.3.7/255.255.255.0': '10.90.3.0/24',
    '10.90.3.7': '10.90.3.7/32',
    '0.0.0.0/0': '0.0.0.0/0',
    'fd00:90::7/65': 'fd00:90::/65',
    'fd00::ff/125': 'fd00::f8/125',
    '::1.2.3.4/96': '::/96',
    '10.0.0.0/0.0.0.0': '0.0.0.0/0',
  };
  for (const [text, form] of Object.entries(forms)) {
    const cidr = parseCidr(text);
    assert.equal(cidr && formatCidr(cidr), form);
  }
  for (const text of [
    '10.0.0.0/33',
    '10.0.0.0/-1',
    '10.0.0.0/',
    '10.0.0.0/8/8',
    '10.0.0.0/255.0.255.0',
    'fd00::/129',
    'fd00::/255.0.0.0',
    '10.0.0.0/8;id',
  ]) {
    assert.equal(parseCidr(text), undefined, text);
  }
});

test('knows what lies in a CIDR, and which two meet', () => {
  const [wide, inside, beside, six] = ['10.90.0.0/16', '10.90.128.0/17', '10.91.0.0/16', 'fd00::/8'].map(
    cidr,
  );
  assert.ok(wide && inside && beside && six);
  assert.ok(cidrsOverlap(wide, inside) && cidrsOverlap(inside, wide));
  assert.ok(!cidrsOverlap(wide, beside) && !cidrsOverlap(wide, six));
  assert.ok(
    cidrContains(inside, Uint8Array.of(10, 90, 128, 1)) &&
      !cidrContains(inside, Uint8Array.of(10, 90, 127, 255)),
  );
});

test('reads ranges of addresses, and single ones', () => {
  const read = (text: string) => {
    const range = parseRange(text);
    return range && `${range.family} ${formatRange(range)}`;
  };
  assert.equal(read('192.0.2.8-192.0.2.15'), 'ipv4 192.0.2.8-192.0.2.15');
  assert.equal(read('192.0.2.8'), 'ipv4 192.0.2.8');
  assert.equal(read('192.0.2.8-192.0.2.8'), 'ipv4 192.0.2.8');
  assert.equal(read('FD00::1-fd00:0::ff'), 'ipv6 fd00::1-fd00::ff');
  const wrong = [
    '',
    '-',
    '192.0.2.8-',
    '192.0.2.9-192.0.2.8',
    '192.0.2.8-fd00::1',
    '192.0.2.0/24',
    '::1-::2-::3',
  ];
  for (const text of wrong) assert.equal(read(text), undefined, text);
});

test('names the gateway of a pool', () => {
  const gateways = {
    '10.90.0.0/16': '10.90.0.1',
    '10.90.3.7/16': '10.90.0.1',
    '10.90.0.4/30': '10.90.0.5',
    '10.90.0.2/31': '10.90.0.2',
    'fd00:90::/64': 'fd00:90::1',
    'fd00:90::2/127': 'fd00:90::2',
  };
  for (const [pool, gateway] of Object.entries(gateways))
    assert.equal(formatAddress(gatewayOf(cidr(pool)) ?? new Uint8Array(4)), gateway, pool);
  assert.equal(gatewayOf(cidr('10.90.0.4/32')), undefined);
  assert.equal(gatewayOf(cidr('fd00:90::4/128')), undefined);
});

test('an address is a number and back', () => {
  for (const text of ['0.0.0.0', '10.90.255.1', '255.255.255.255', '::', 'fd00:90::ff', 'ffff::ffff']) {
    const bytes = parseAddress(text) ?? new Uint8Array(0);
    assert.deepEqual(fromBigint(toBigint(bytes), bytes.length), bytes, text);
  }
  assert.equal(toBigint(Uint8Array.of(10, 90, 0, 1)), 0x0a_5a_00_01n);
  assert.equal(toBigint(cidr('fd00::1').network), (0xfd00n << 112n) + 1n);
});

test('gives the mask', () => {
  assert.deepEqual([0, 1, 17, 24, 32].map(dottedMask), [
    '0.0.0.0',
    '128.0.0.0',
    '255.255.128.0',
    '255.255.255.0',
    '255.255.255.255',
  ]);
});

function cidr(text: string) {
  const parsed = parseCidr(text);
  assert.ok(parsed);
  return parsed;
}
