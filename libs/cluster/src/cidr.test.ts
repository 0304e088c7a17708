import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cidrContains, cidrsOverlap, formatAddress, formatCidr, parseAddress, parseCidr } from './cidr.ts';

test('addresses are written in their normal form', () => {
  const forms: [string, string | undefined][] = [
    ['10.0.0.1', '10.0.0.1'],
    ['255.255.255.255', '255.255.255.255'],
    ['FD00:0:0:0:0:0:0:1', 'fd00::1'],
    ['::', '::'],
    ['1::', '1::'],
    ['::ffff:10.0.0.1', '::ffff:a00:1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['10.0.0.256', undefined],
    ['010.0.0.1', undefined],
    ['fe80::1%eth0', undefined],
    ['', undefined],
  ];
  for (const [text, normal] of forms) {
    const found = parseAddress(text);
    assert.equal(found && formatAddress(found.family, found.value), normal, text);
  }
});

test('networks take a prefix length or a dotted mask, and lose the bits after it', () => {
  const forms: [string, string | undefined][] = [
    ['10.1.2.3/8', '10.0.0.0/8'],
    ['10.0.0.0/255.255.0.0', '10.0.0.0/16'],
    ['10.0.0.0/0.0.0.0', '0.0.0.0/0'],
    ['10.0.0.1', '10.0.0.1/32'],
    ['fd00:1:2::/33', 'fd00:1::/33'],
    ['10.0.0.0/255.0.255.0', undefined],
    ['10.0.0.0/33', undefined],
    ['10.0.0.0/', undefined],
    ['fd00::/129', undefined],
    ['fd00::/255.0.0.0', undefined],
    ['10.0.0.0/8/8', undefined],
  ];
  for (const [text, normal] of forms) {
    const found = parseCidr(text);
    assert.equal(found && formatCidr(found), normal, text);
  }
});

test('networks contain and overlap each other within a family only', () => {
  const [wide, narrow, other, six] = ['10.0.0.0/8', '10.9.0.0/16', '11.0.0.0/8', '::/0'].map(parseCidr);
  assert.ok(wide && narrow && other && six);
  assert.ok(cidrContains(wide, narrow) && !cidrContains(narrow, wide) && !cidrContains(six, narrow));
  assert.ok(cidrsOverlap(wide, narrow) && cidrsOverlap(narrow, wide));
  assert.ok(!cidrsOverlap(wide, other) && !cidrsOverlap(six, wide));
});
