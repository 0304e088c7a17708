/* `npm run model -- [--seed S] [--runs N] [--steps N]`: one seed, or as many as wanted from a random one on. */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { RedisServer } from '@sallyport/cluster/testing';
import { report } from './report.ts';
import { runModel } from './run.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    runs: { type: 'string', default: '200' },
    steps: { type: 'string', default: '250' },
    trace: { type: 'boolean', default: false },
  },
});

const first = values.seed === undefined ? randomInt(2 ** 31) : Number(values.seed);
const runs = values.seed === undefined ? Number(values.runs) : 1;
const steps = Number(values.steps);
const server = await RedisServer.start('--databases', '4', '--appendonly', 'no');
let found = 0;
try {
  for (let run = 0; run < runs; run++) {
    const result = await runModel({ server, seed: first + run, steps });
    if (values.trace) console.log(result.trace.join('\n'));
    if (result.violation !== undefined) {
      found += 1;
      console.log(report(first + run, steps, result));
    }
  }
} finally {
  await server.stop();
}
console.log(`model: ${runs} runs of ${steps} steps from seed ${first}, ${found} with a violation`);
process.exitCode = found === 0 ? 0 : 1;
