import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { RESTORE_SCRIPT, SESSION_SCRIPTS } from '@sallyport/cluster';
import { RedisServer } from '@sallyport/cluster/testing';
import { MUTATIONS, mutate } from './mutations.ts';
import { report } from './report.ts';
import { runModel } from './run.ts';

/** Steps of a run here: a few seconds. `npm run model` takes more. */
const STEPS = 60;
/** Safeties whose absence shows early; `npm run model -- --mutation N` tries the others. */
const NOTICED = [
  'park, checkpoint and end by a node look at no lease',
  'a claim does not raise the epoch',
  'a new address is given while nodes assert',
  'a claim does not hold its address',
  'an end leaves its session alive',
];
/** Runs that each of them has to show. */
const SEEDS = 12;

let server: RedisServer;

before(async () => {
  server = await RedisServer.start('--databases', '4', '--appendonly', 'no');
});
after(() => server.stop());

describe('the model of the cluster (npm run model, in short)', () => {
  for (const seed of [1, 2, 4]) {
    it(`finds nothing in the run of seed ${seed}`, () => checkRun(seed));
  }

  it('repeats a run by its seed', async () => {
    const [first, second] = [await run(3, 12), await run(3, 12)];
    assert.deepEqual(second.trace, first.trace);
    assert.ok(first.trace.length > 20);
  });
});

describe('the checker of the model', () => {
  const scripts = [...Object.values(SESSION_SCRIPTS), RESTORE_SCRIPT];

  for (const mutation of MUTATIONS) {
    it(`can take out a safety, so that ${mutation.name}`, () => {
      const script = scripts.find(({ name }) => name === mutation.script);
      assert.ok(script, mutation.script);
      const mutant = mutate(mutation)(script);
      assert.notEqual(mutant.source, script.source);
      assert.notEqual(mutant.sha, script.sha);
    });
  }

  for (const name of NOTICED) {
    it(`notices that ${name}`, async (test) => {
      const mutation = MUTATIONS.find((each) => each.name === name);
      assert.ok(mutation);
      for (let seed = 1; seed <= SEEDS; seed++) {
        const { violation } = await runModel({ server, seed, steps: STEPS, mutate: mutate(mutation) });
        if (violation === undefined) continue;
        test.diagnostic(`seed ${seed}: ${violation.message}`);
        return;
      }
      assert.fail('the checker has not noticed it');
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
