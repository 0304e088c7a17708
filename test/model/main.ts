/*
 * `npm run model -- [--seed S] [--runs N] [--steps N]`: runs from this seed on, or from a random one. `--trace` prints all that
 * happened. `--mutation N` takes one safety out of the scripts (mutations.ts): the first run that finds it ends it.
 */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { RedisServer } from '@sallyport/cluster/testing';
import { MUTATIONS, mutate } from './mutations.ts';
import { report } from './report.ts';
import { runModel } from './run.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    runs: { type: 'string' },
    steps: { type: 'string', default: '250' },
    mutation: { type: 'string' },
    trace: { type: 'boolean', default: false },
  },
});

const RUNS = 200;
const first = values.seed === undefined ? randomInt(2 ** 31) : Number(values.seed);
const runs = Number(values.runs ?? (values.seed === undefined ? RUNS : 1));
const mutation = values.mutation === undefined ? undefined : MUTATIONS[Number(values.mutation)];
const steps = Number(values.steps);
const server = await RedisServer.start('--databases', '4', '--appendonly', 'no');
let found = 0;

try {
  for (let run = 0; run < runs; run++) {
    const result = await runModel({
      server,
      seed: first + run,
      steps,
      ...(mutation && { mutate: mutate(mutation) }),
    });
    if (values.trace) console.log(result.trace.join('\n'));
    if (result.violation !== undefined) {
      found += 1;
      console.log(report(first + run, steps, result));
      if (mutation !== undefined) break;
    }
  }
} finally {
  await server.stop();
}
console.log(`model: ${runs} runs of ${steps} steps from seed ${first}, ${found} with a violation`);
process.exitCode = found === 0 ? 0 : 1;
