import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  cidrContains,
  cidrsOverlap,
  dottedMask,
  firstHost,
  formatAddress,
  formatCidr,
  parseAddress,
  parseCidr,
} from './ip.ts';

test('reads and writes addresses in one form', () => {
  const forms = {
    '10.0.0.1': '10.0.0.1',
    '::1': '::1',
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

test('gives the first host and the mask', () => {
  assert.equal(formatAddress(firstHost(cidr('10.90.0.0/16'))), '10.90.0.1');
  assert.equal(formatAddress(firstHost(cidr('10.90.0.4/32'))), '10.90.0.4');
  assert.equal(formatAddress(firstHost(cidr('fd00:90::/64'))), 'fd00:90::1');
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
