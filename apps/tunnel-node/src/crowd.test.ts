import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Crowd, CROWD_CONNECTIONS, CROWD_PER_ADDRESS } from './crowd.ts';

test('tells once, and names the busiest address, when many connections share few addresses', () => {
  const crowd = new Crowd();
  const open = new Map([
    ['192.0.2.9', 3],
    ['192.0.2.1', 97],
  ]);
  assert.equal(crowd.handleTick(open, CROWD_CONNECTIONS - 1), undefined);
  assert.deepEqual(crowd.handleTick(open, CROWD_CONNECTIONS), { address: '192.0.2.1', connections: 97 });
  assert.equal(crowd.handleTick(open, 10_000), undefined);
});

test('does not take many small offices for a balancer', () => {
  const offices = CROWD_CONNECTIONS / CROWD_PER_ADDRESS + 1;
  const open = new Map(Array.from({ length: offices }, (_, at) => [`192.0.2.${at}`, 20]));
  assert.equal(new Crowd().handleTick(open, CROWD_CONNECTIONS), undefined);
});
