import assert from 'node:assert/strict';
import { test } from 'node:test';
import { evaluate, spread, table, type Measured } from './outages.ts';

const well: Measured = {
  ...{ client: 0, affected: true, outage: 1, otherFamily: undefined, prompted: false },
  ...{ sameAddress: true, idle: true, busy: true },
};

test('percentiles are by nearest rank, in any order', () => {
  const values = Array.from({ length: 100 }, (_, index) => 100 - index);
  assert.deepEqual(spread(values), { count: 100, p50: 50, p95: 95, max: 100 });
  assert.deepEqual(spread([3, undefined]), { count: 1, p50: 3, p95: 3, max: 3 });
  assert.equal(spread([undefined]), undefined);
});

test('only those that were hit count for the outage, everybody for prompts and addresses', () => {
  const found = evaluate([
    { ...well, outage: 2 },
    { ...well, idle: false },
    { ...well, affected: false, outage: 9, busy: false, prompted: true, sameAddress: false },
  ]);
  assert.deepEqual(found, {
    clients: 3,
    affected: 2,
    outage: { count: 2, p50: 1, p95: 2, max: 2 },
    otherFamily: undefined,
    bystanders: { count: 1, p50: 9, p95: 9, max: 9 },
    lost: 0,
    prompts: 1,
    sameAddress: 2,
    idleSurvivors: 1,
    busySurvivors: 2,
    reached: undefined,
  });
});

test('an aim is missed by its percentile, by its maximum, by one that never came back, and by nobody to measure', () => {
  assert.equal(evaluate([well], { p95: 1, max: 1 }).reached, true);
  assert.equal(evaluate([well], { p95: 0.9 }).reached, false);
  assert.equal(evaluate([well], { max: 0.9 }).reached, false);
  const lost = evaluate([well, { ...well, outage: undefined }], { p95: 1 });
  assert.deepEqual([lost.lost, lost.reached], [1, false]);
  assert.equal(evaluate([{ ...well, affected: false }], { p95: 1 }).reached, false);
});

test('the table has a row for each scenario, and a dash for what was not measured', () => {
  const rows = [
    { server: 'ours', scenario: 'kill', ...evaluate([well], { p95: 2 }) },
    { server: 'peer', scenario: 'kill', ...evaluate([{ ...well, outage: undefined }]), note: 'a word' },
  ];
  assert.deepEqual(table(rows).split('\n').slice(2), [
    '| ours | kill | 1 | 1.00 | 1.00 | 1.00 | reached | – | 0 | 1 of 1 | 1 of 1 | 1 of 1 |  |',
    '| peer | kill | 1, 1 lost | – | – | – | – | – | 0 | 1 of 1 | 1 of 1 | 1 of 1 | a word |',
  ]);
});
