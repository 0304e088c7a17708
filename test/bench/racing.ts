/**
 * `npm run bench -- racing`: many CONNECTs with one cookie at the same moment, spread over all nodes, again and again.
 * Exactly one tunnel may be left each time.
 */
import { appendFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { Cluster } from '../cluster/cluster.ts';
import { MAX_NODES } from '../cluster/network.ts';
import { countOf, optionsOf, print, runBench, say } from './options.ts';
import { Race, RACING_SETTINGS, type Raced } from './race.ts';

async function main(argv: readonly string[]): Promise<void> {
  const given = optionsOf(argv, DEFAULTS);
  const nodes = countOf('nodes', given.nodes, MAX_NODES);
  const connects = countOf('connects', given.connects, 1000);
  const runs = countOf('runs', given.runs, 10_000);
  const cluster = await Cluster.open({ nodes, clients: 2, settings: RACING_SETTINGS, say });
  const raced: Raced[] = [];
  try {
    await cluster.probe();
    const race = await Race.open(cluster, 0);
    for (let run = 1; run <= runs; run++) {
      const result = await race.run(connects);
      raced.push(result);
      if (given.out !== '')
        appendFileSync(
          given.out,
          `${JSON.stringify({ bench: 'racing', run, nodes, connects, ...result })}\n`,
        );
      if (run % 10 === 0) say(`run ${run} of ${runs}`);
    }
  } finally {
    await cluster.close();
  }
  const good = raced.filter(
    ({ alive, records, tunnels }) => alive === 1 && records === 1 && tunnels === 1,
  ).length;
  const statuses = new Map<string, number>();
  for (const { answers } of raced)
    for (const [status, count] of Object.entries(answers))
      statuses.set(status, (statuses.get(status) ?? 0) + count);
  print(`\n| figure | measured | aim |\n| --- | --- | --- |`);
  print(`| runs with exactly one tunnel | ${good} of ${runs} | all |`);
  print(
    `| CONNECTs, ${connects} a run over ${nodes} nodes, by answer | ${[...statuses].map(([status, count]) => `${count} × ${status}`).join(', ')} | |`,
  );
  print(
    `| longest time until one was left | ${Math.max(...raced.map(({ seconds }) => seconds)).toFixed(2)} s | |`,
  );
  print(`| load, cores | ${loadavg()[0]?.toFixed(1)}, ${cpus().length} | |`);
  if (good !== runs) throw new Error(`${runs - good} of ${runs} runs did not end with exactly one tunnel`);
}

const DEFAULTS = { nodes: '3', connects: '100', runs: '100', out: '' };
const LIMIT_MINUTES = 45;

runBench(main, LIMIT_MINUTES);
