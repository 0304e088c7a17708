/**
 * `npm run bench -- scale`: Redis servers with tables of several sizes, made by the real code, and what each step of a
 * session's life costs in each of them. The sizes take turns in every round, so that what else runs on the machine meets
 * them all. Progress on stderr; tables on stdout.
 */
import { appendFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { longestScripts, type LongestScript } from './blocking.ts';
import { median } from './probe.ts';
import { STEPS, Table, type Cost, type FillReport, type Step } from './table.ts';

export interface ScaleOptions {
  /** Of the largest table. The others have a tenth of it, and a thousand. */
  sizes: readonly number[];
  workers: number;
  rounds: number;
  /** Calls of each step, in each round and table. */
  calls: number;
  /** Longest time of making the sessions, ms: then it goes on with what is there. Also that of the rounds. */
  limitMillis: number;
  say: (line: string) => void;
}

export interface ScaleReport {
  fills: FillReport[];
  /** Of the largest table. */
  bytesPerSession: number;
  /** Medians over the rounds; in the order of the sizes. */
  costs: Record<Step, Cost[]>;
  longest: LongestScript[];
}

export async function measureScale(options: ScaleOptions): Promise<ScaleReport> {
  const { sizes, workers, rounds, calls, limitMillis, say } = options;
  const tables: Table[] = [];
  try {
    for (const size of sizes) tables.push(await Table.open(size));
    const stopAt = performance.now() + limitMillis;
    const fills = await Promise.all(tables.map((table) => table.fill(workers, stopAt, say)));
    const largest = tables.at(-1);
    if (largest === undefined) throw new Error('there is no size');
    const bytesPerSession = await largest.bytesPerSession(say);
    const deadline = performance.now() + limitMillis;
    const seen: Record<Step, Cost>[][] = tables.map(() => []);
    for (let round = 1; round <= rounds && performance.now() < deadline; round++) {
      say(`round ${round} of ${rounds}`);
      // Each size is first, second and third in turn.
      for (let i = 0; i < tables.length; i++) {
        const at = (i + round) % tables.length;
        const costs = await tables[at]?.measure(calls);
        if (costs !== undefined) seen[at]?.push(costs);
      }
    }
    const costs = Object.fromEntries(
      STEPS.map((step) => [
        step,
        seen.map((ofRounds) => ({
          micros: median(ofRounds.map((costs) => costs[step].micros)),
          latencyMicros: median(ofRounds.map((costs) => costs[step].latencyMicros)),
        })),
      ]),
    ) as Record<Step, Cost[]>;
    say('the longest scripts');
    return { fills, bytesPerSession, costs, longest: await longestScripts(largest, say) };
  } finally {
    for (const table of tables) await table.close();
  }
}

export function printReport(report: ScaleReport): string {
  const { fills, bytesPerSession, costs, longest } = report;
  const sizes = fills.map(({ sessions }) => sessions);
  const row = (cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`;
  const head = (cells: readonly string[]) => [row(cells), row(cells.map(() => '---'))];
  const last = fills.at(-1);
  return [
    `bytes per session: ${bytesPerSession.toFixed(0)}`,
    `fill of ${last?.sessions}: ${last?.seconds.toFixed(0)} s, ${((last?.sessions ?? 0) / (last?.seconds ?? 1)).toFixed(0)} logins and claims per second, ${last?.serverMicros.toFixed(0)} µs of Redis for both`,
    '',
    ...head([
      'step, Redis CPU µs per call',
      ...sizes.map((size) => `${size} sessions`),
      'largest / smallest',
      'latency µs',
    ]),
    ...STEPS.map((step) => {
      const micros = costs[step].map((cost) => cost.micros);
      const ratio = (micros.at(-1) ?? NaN) / (micros[0] ?? NaN);
      const latencies = costs[step].map((cost) => cost.latencyMicros.toFixed(0)).join(' / ');
      return row([step, ...micros.map((value) => value.toFixed(0)), ratio.toFixed(2), latencies]);
    }),
    '',
    ...head(['longest script', 'what it had to do', 'calls', 'CPU ms, longest', 'CPU ms, median']),
    ...longest.map(({ script, what, calls, longestMillis, medianMillis }) =>
      row([script, what, calls, longestMillis.toFixed(2), medianMillis.toFixed(2)]),
    ),
  ].join('\n');
}

async function main(argv: readonly string[]): Promise<void> {
  const { values } = parseArgs({ args: [...argv], options: OPTIONS });
  const sessions = numberOf('--sessions', values.sessions, 10_000, 10_000_000);
  const sizes = [1000, ...(sessions >= 100_000 ? [sessions / 10] : []), sessions].map(Math.round);
  const report = await measureScale({
    sizes,
    workers: numberOf('--workers', values.workers, 1, 64),
    rounds: numberOf('--rounds', values.rounds, 1, 1000),
    calls: numberOf('--calls', values.calls, 1, 1000),
    limitMillis: numberOf('--minutes', values.minutes, 1, 600) * 60_000,
    say: (line) => void process.stderr.write(`${line}\n`),
  });
  if (values.out !== '') appendFileSync(values.out, `${JSON.stringify(report)}\n`);
  process.stdout.write(`${printReport(report)}\n`);
}

const OPTIONS = {
  out: { type: 'string', default: '' },
  sessions: { type: 'string', default: '1000000' },
  workers: { type: 'string', default: '2' },
  rounds: { type: 'string', default: '15' },
  calls: { type: 'string', default: '200' },
  minutes: { type: 'string', default: '45' },
} as const;

function numberOf(option: string, text: string, least: number, most: number): number {
  const number = Number(text);
  if (Number.isInteger(number) && number >= least && number <= most) return number;
  throw new Error(`${option} is a whole number from ${least} to ${most}`);
}

if (process.argv[1] === import.meta.filename) await main(process.argv.slice(2));
