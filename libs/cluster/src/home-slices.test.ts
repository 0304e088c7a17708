import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cidrsOverlap, parseCidr } from '@sallyport/protocol';
import { homeOf, homePlanOf, MAX_SLICES } from './home-slices.ts';

test('a number of nodes that is a power of two gives each one aggregate of each pool', () => {
  const homes = [1, 2, 3, 4].map((number) => homeOf(['10.77.0.0/16', 'fd00:77::/64'], number, 4));
  assert.deepEqual(homes, [
    ['10.77.0.0/18', 'fd00:77::/66'],
    ['10.77.64.0/18', 'fd00:77:0:0:4000::/66'],
    ['10.77.128.0/18', 'fd00:77:0:0:8000::/66'],
    ['10.77.192.0/18', 'fd00:77:0:0:c000::/66'],
  ]);
});

test('three nodes have a few aggregates each, and one slice is all of the pool', () => {
  assert.deepEqual(homeOf(['10.77.0.0/16'], 1, 3), ['10.77.0.0/18', '10.77.64.0/20']);
  assert.deepEqual(homeOf(['10.77.0.0/16'], 2, 3), ['10.77.80.0/20', '10.77.96.0/19', '10.77.128.0/19']);
  assert.deepEqual(homeOf(['10.77.0.0/16'], 3, 3), ['10.77.160.0/19', '10.77.192.0/18']);
  assert.deepEqual(homeOf(['10.77.0.0/16'], 1, 1), ['10.77.0.0/16']);
});

test('any number of nodes share all of a pool, evenly, with few aggregates', () => {
  for (let slices = 1; slices <= MAX_SLICES; slices += 1) {
    const homes = Array.from({ length: slices }, (_, index) => homeOf(['10.0.0.0/8'], index + 1, slices));
    const sizes = homes.map((home) =>
      home.reduce((sum, cidr) => sum + 2 ** (32 - Number(cidr.split('/')[1])), 0),
    );
    assert.equal(
      sizes.reduce((sum, size) => sum + size, 0),
      2 ** 24,
      `${slices}`,
    );
    assert.ok(Math.min(...sizes) >= (0.75 * 2 ** 24) / slices, `${slices}`);
    assert.ok(Math.max(...homes.map((home) => home.length)) <= 4, `${slices}`);
    const blocks = homes.flat().map((cidr) => parseCidr(cidr) ?? assert.fail(cidr));
    blocks.sort((a, b) => Buffer.compare(a.network, b.network));
    for (const [at, block] of blocks.slice(1).entries())
      assert.ok(!cidrsOverlap(blocks[at] ?? assert.fail(), block), `${slices}`);
  }
});

test('nobody has a home above the number of slices or without slices, and tiny pools end in single addresses', () => {
  assert.deepEqual(homeOf(['10.77.0.0/16'], 5, 4), []);
  assert.deepEqual(homeOf(['10.77.0.0/16'], 1, 0), []);
  assert.deepEqual(homeOf(['10.77.0.0/31', '10.78.0.7/32'], 1, 2), ['10.77.0.0/32']);
  assert.deepEqual(homeOf(['10.77.0.0/31', '10.78.0.7/32'], 2, 2), ['10.77.0.1/32', '10.78.0.7/32']);
});

test('of pools in each other the outer one is cut, and each once', () => {
  const pools = ['10.77.3.0/24', '10.77.0.0/16', '10.77.0.0/16', '10.77.9.9/16'];
  assert.deepEqual(homeOf(pools, 2, 2), ['10.77.128.0/17']);
});

test('a plan is what nodes must have in common, in any order and spelling', () => {
  assert.equal(homePlanOf(['10.2.0.0/16', '10.1.0.0/16'], 3), homePlanOf(['10.1.9.9/16', '10.2.0.0/16'], 3));
  assert.notEqual(homePlanOf(['10.1.0.0/16'], 3), homePlanOf(['10.1.0.0/16'], 4));
  assert.equal(homePlanOf(['10.1.0.0/16'], 0), '');
});
