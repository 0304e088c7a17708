import type { RunResult } from './run.ts';

/** What was found, how to see it again, and what happened last. */
export function report(seed: number, steps: number, { violation, steps: taken, trace }: RunResult): string {
  return [
    `seed ${seed}: ${violation?.message ?? 'nothing found'}`,
    `after ${taken} of ${steps} steps; again: npm run model -- --seed ${seed} --steps ${steps} --trace`,
    ...trace.slice(-TRACE_LINES).map((line) => `  ${line}`),
  ].join('\n');
}

const TRACE_LINES = 40;
