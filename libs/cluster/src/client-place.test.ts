import assert from 'node:assert/strict';
import { it } from 'node:test';
import { clientPlace } from './client-place.ts';

it('counts an IPv4 address alone and IPv6 addresses by their /64', () => {
  const cases = [
    ['192.0.2.7', '192.0.2.7'],
    ['::ffff:192.0.2.7', '192.0.2.7'],
    ['2001:db8:0:1::1', '2001:db8:0:1::/64'],
    ['2001:DB8:0:1:ffff:ffff:ffff:ffff', '2001:db8:0:1::/64'],
    ['2001:db8:0:2::1', '2001:db8:0:2::/64'],
    ['', ''],
    ['unix', 'unix'],
  ] as const;
  for (const [address, place] of cases) assert.equal(clientPlace(address), place);
});
