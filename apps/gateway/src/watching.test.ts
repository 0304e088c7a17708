import assert from 'node:assert/strict';
import { test } from 'node:test';
import { exampleSettings, parseSettings } from '@sallyport/cluster';
import { configuredPools } from './watching.ts';

test('every configured pool has its size before anybody has an address of it', () => {
  const more = 'ipv6-network: fd90:1::/126\nusers: { alice: { ipv4-network: 10.91.0.0/29 } }\n';
  const read = parseSettings(exampleSettings() + more, '/x/sallyport.yaml');
  assert.ok('settings' in read);
  assert.deepEqual(
    configuredPools(read.settings).map(({ pool, size, used }) => [pool, size, used]),
    [
      ['10.90.0.0/16', 65_533n, 0],
      ['fd90:1::/126', 2n, 0],
      ['10.91.0.0/29', 5n, 0],
    ],
  );
});
