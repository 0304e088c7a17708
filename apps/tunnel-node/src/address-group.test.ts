import assert from 'node:assert/strict';
import { it } from 'node:test';
import { addressGroup } from './address-group.ts';

it('takes an IPv4 address, or a /64 of IPv6, for one client', () => {
  assert.equal(addressGroup('192.0.2.1'), '192.0.2.1');
  assert.equal(addressGroup('2001:db8:1:2:3:4:5:6'), '2001:db8:1:2::/64');
  assert.equal(addressGroup('2001:db8:1:2::9'), addressGroup('2001:db8:1:2:ffff::'));
  assert.notEqual(addressGroup('2001:db8:1:2::9'), addressGroup('2001:db8:1:3::9'));
  assert.equal(addressGroup('::1'), '::/64');
});
