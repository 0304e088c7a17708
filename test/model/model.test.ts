import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { RedisServer } from '@sallyport/cluster/testing';
import { MUTATIONS, mutate } from './mutations.ts';
import { report } from './report.ts';
import { runModel } from './run.ts';

/** Steps of a run here: a few seconds. `npm run model` takes more. */
const STEPS = 60;
/** A run that shows each mutation, and the rule that it breaks. */
const FOUND = [
  { seed: 1, rule: 'R3', name: 'park, checkpoint and end by a node look at no lease' },
  { seed: 1, rule: 'R2', name: 'a claim does not raise the epoch' },
  { seed: 1, rule: 'R7', name: 'a new address is given while nodes assert' },
  { seed: 1, rule: 'R4', name: 'an assertion overrides the end of its session' },
];

let server: RedisServer;

before(async () => {
  server = await RedisServer.start('--databases', '4', '--appendonly', 'no');
});
after(() => server.stop());

describe('the model of the cluster (npm run model, in short)', () => {
  for (const seed of [1, 2]) {
    it(`finds nothing in the run of seed ${seed}`, () => checkRun(seed));
  }

  it('finds nothing in a run of a new seed', async (test) => {
    const seed = randomInt(2 ** 31);
    test.diagnostic(`seed ${seed}`);
    await checkRun(seed);
  });

  it('repeats a run by its seed', async () => {
    const [first, second] = [await run(3, 12), await run(3, 12)];
    assert.deepEqual(second.trace, first.trace);
    assert.ok(first.trace.length > 20);
  });
});

describe('the checker of the model', () => {
  for (const { seed, rule, name } of FOUND) {
    it(`notices that ${name}`, async () => {
      const mutation = MUTATIONS.find((each) => each.name === name);
      assert.ok(mutation);
      const { violation } = await runModel({ server, seed, steps: 60, mutate: mutate(mutation) });
      assert.equal(violation?.rule, rule);
    });
  }
});

async function checkRun(seed: number): Promise<void> {
  const result = await run(seed, STEPS);
  assert.equal(result.violation, undefined, report(seed, STEPS, result));
  assert.ok(result.sessions > 0);
}

function run(seed: number, steps: number) {
  return runModel({ server, seed, steps });
}
