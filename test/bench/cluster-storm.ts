/**
 * `npm run bench -- cluster-storm`: scripted clients (bench/tools/vpnsess.c), spread over client namespaces, have all their
 * tunnels on one node, and it dies. How long until the last is back, whether anybody's password was looked at, and what a
 * resume costs Redis.
 */
import { appendFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { Cluster, type ClusterUser } from '../cluster/cluster.ts';
import { GATEWAY, MAX_CLIENTS, MAX_NODES } from '../cluster/network.ts';
import { GATEWAY_PORT } from '../cluster/services.ts';
import { eventually, ROOT, run, sleep, type Spawned } from '../harness/index.ts';
import { countOf, oneOf, optionsOf, print, runBench, say } from './options.ts';
import { commandCalls, metricSum, workOf } from './statistics.ts';

interface Plan {
  sessions: number;
  namespaces: number;
  nodes: number;
  kill: 'node' | 'serving';
  out: string;
}

/** The second line of vpnsess; times are CLOCK_MONOTONIC. */
interface StormLine {
  storm_lost: number;
  back: number;
  with_cookie: number;
  with_login: number;
  attempts: number;
  first_lost: number;
  t_50: number;
  t_95: number;
  t_last: number;
}

async function main(argv: readonly string[]): Promise<void> {
  const plan = planOf(argv);
  await run(['gcc', '-O2', '-w', '-o', VPNSESS, SOURCE, '-lgnutls', '-lpthread']);
  const groups = groupsOf(plan);
  const users = groups.flatMap((size, group) =>
    Array.from({ length: size }, (_, index) => userOf(group, index)),
  );
  const { nodes, namespaces: clients } = plan;
  const cluster = await Cluster.open({ nodes, clients, users, settings: UNLIMITED, say });
  try {
    await cluster.probe();
    const row = await storm(cluster, plan, groups);
    if (plan.out !== '') appendFileSync(plan.out, `${JSON.stringify(row)}\n`);
    print(`\n| figure | measured | aim |\n| --- | --- | --- |`);
    for (const [label, value, aim] of tableOf(row)) print(`| ${label} | ${value} | ${aim} |`);
    const missed = !(row.back === plan.sessions && row.passwordChecks === 0);
    if (missed) throw new Error('not all are back with their cookie');
  } finally {
    await cluster.close();
  }
}

async function storm(cluster: Cluster, plan: Plan, groups: readonly number[]) {
  const [first, ...others] = cluster.nodes;
  if (first === undefined || others.length === 0) throw new Error('a storm needs two nodes');
  say(`${plan.sessions} logins, all to ${first.name}: the others drain meanwhile`);
  for (const node of others) await cluster.cli(['drain', 'node', node.name]);
  await cluster.balancer.whenReady(1);
  const generators = groups.map((size, group) => generator(cluster, group, size));
  await eventually('all logins', () => generators.every((one) => linesOf(one).length >= 1), LOGINS_MS, 250);
  for (const node of others) await cluster.cli(['undrain', 'node', node.name]);
  await cluster.balancer.whenReady(cluster.nodes.length);
  const before = await cluster.show('sessions');
  const there = before.filter((session) => session['Node'] === first.name).length;
  if (there !== plan.sessions)
    throw new Error(`${there} of ${plan.sessions} have their tunnel on ${first.name}`);

  say('a quiet time, to know what Redis does anyway');
  const attempts = await attemptsSoFar(cluster);
  const looks = [await commandStatistics(cluster)];
  const quiet = monotonic();
  await sleep(QUIET_MS);
  looks.push(await commandStatistics(cluster));
  const killed = monotonic();
  const load = loadavg()[0];
  if (plan.kill === 'node') await first.kill();
  else first.crash();
  say(`${first.name}: ${plan.kill} killed`);
  await eventually('all are back', () => generators.every((one) => linesOf(one).length >= 2), BACK_MS, 100);
  looks.push(await commandStatistics(cluster));
  const over = monotonic();
  const after = await attemptsSoFar(cluster);
  const sessions = await cluster.show('sessions');
  for (const one of generators) one.child.kill('SIGTERM');

  const lines = generators.map((one) => stormLine(linesOf(one)[1] ?? ''));
  const sum = (of: (line: StormLine) => number) => lines.reduce((total, line) => total + of(line), 0);
  const latest = (of: (line: StormLine) => number) => Math.max(...lines.map(of)) - killed;
  const [a, b, c] = looks;
  if (a === undefined || b === undefined || c === undefined) throw new Error('no look at Redis');
  const work = workOf([a, b, c], killed - quiet, over - killed);
  const back = sum((line) => line.back);
  return {
    ...{ bench: 'cluster-storm', ...plan, machine: { cpus: cpus().length, load } },
    ...{ back, withCookie: sum((line) => line.with_cookie), withLogin: sum((line) => line.with_login) },
    attempts: sum((line) => line.attempts),
    firstLost: Math.min(...lines.map((line) => line.first_lost)) - killed,
    // Of the slowest namespace: an upper bound of the share of all.
    half: latest((line) => line.t_50),
    share95: latest((line) => line.t_95),
    last: latest((line) => line.t_last),
    passwordChecks: after - attempts,
    scriptsPerResume: work.scripts / back,
    commandsPerResume: work.commands / back,
    sameAddress: sameAddresses(before, sessions),
  };
}

type Row = Awaited<ReturnType<typeof storm>>;

function tableOf(row: Row): [label: string, value: string, aim: string][] {
  const seconds = (value: number) => `${value.toFixed(2)} s`;
  return [
    ['sessions lost at once', String(row.sessions), ''],
    ['all are back after', seconds(row.last), '≤ 20 s'],
    ['95 % of the slowest namespace', seconds(row.share95), ''],
    ['half of the slowest namespace', seconds(row.half), ''],
    ['back with their cookie', `${row.withCookie} of ${row.sessions}`, 'all'],
    ['password checks', String(row.passwordChecks), '0'],
    ['same addresses', `${row.sameAddress} of ${row.sessions}`, 'all'],
    ['connection attempts', String(row.attempts), ''],
    ['Redis operations (scripts) per resume', row.scriptsPerResume.toFixed(2), '≤ 3'],
    ['commands inside them per resume', row.commandsPerResume.toFixed(1), ''],
    ['load before, cores', `${row.machine.load?.toFixed(1)}, ${row.machine.cpus}`, ''],
  ];
}

function generator({ lab }: Cluster, group: number, size: number): Spawned {
  const argv = [VPNSESS, GATEWAY.ipv4, String(GATEWAY_PORT), String(size), LOGIN_THREADS, '0', HOLD_SECONDS];
  const { name } = userOf(group, 0);
  return lab.spawn(lab.client(group), [...argv, PASSWORD, name.slice(0, -1)], {
    env: { STORM: '1', STORM_ALL: '1', STORM_STAY: '1', STORM_THREADS: String(Math.min(size, MOST_THREADS)) },
  });
}

function linesOf(one: Spawned): string[] {
  if (one.child.exitCode !== null) throw new Error(`vpnsess ended:\n${one.output()}`);
  return one
    .output()
    .split('\n')
    .filter((line) => line.startsWith('{') && line.endsWith('}'));
}

/** vpnsess wrote it. */
function stormLine(text: string): StormLine {
  const line: StormLine = JSON.parse(text);
  return line;
}

async function commandStatistics({ services: { redis }, lab }: Cluster): Promise<Map<string, number>> {
  const { stdout } = await lab.exec(redis.namespace, [
    'redis-cli',
    '-p',
    portOf(redis.argv),
    'INFO',
    'commandstats',
  ]);
  return commandCalls(stdout);
}

function portOf(argv: readonly string[]): string {
  return argv[argv.indexOf('--port') + 1] ?? '';
}

/** Login steps that any auth replica judged so far. */
async function attemptsSoFar({ services, lab }: Cluster): Promise<number> {
  const texts = await Promise.all(
    services.auth.map(async (_, index) => {
      const url = `http://127.0.0.1:${FIRST_AUTH_ADMIN_PORT + ADMIN_PORT_STEP * index}/metrics`;
      return (await lab.exec(lab.namespace('core'), ['curl', '-sSf', url])).stdout;
    }),
  );
  return texts.reduce((total, text) => total + metricSum(text, 'sallyport_auth_attempts_total'), 0);
}

function sameAddresses(before: Record<string, unknown>[], after: Record<string, unknown>[]): number {
  const key = (session: Record<string, unknown>) =>
    `${String(session['Username'])} ${String(session['IPv4'])} ${String(session['IPv6'])}`;
  const known = new Set(before.map(key));
  return after.filter((session) => known.has(key(session))).length;
}

function groupsOf({ sessions, namespaces }: Plan): number[] {
  return Array.from(
    { length: namespaces },
    (_, group) => Math.floor(sessions / namespaces) + (group < sessions % namespaces ? 1 : 0),
  );
}

/** As vpnsess numbers them: prefix and a number from 0. */
function userOf(group: number, index: number): ClusterUser {
  return { name: `storm${group}-${index}`, password: PASSWORD };
}

/** Seconds of CLOCK_MONOTONIC, as vpnsess has them. */
function monotonic(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

function planOf(argv: readonly string[]): Plan {
  const given = optionsOf(argv, DEFAULTS);
  const plan = {
    sessions: countOf('sessions', given.sessions, 20_000),
    namespaces: countOf('namespaces', given.namespaces, MAX_CLIENTS),
    nodes: countOf('nodes', given.nodes, MAX_NODES),
    kill: oneOf('kill', given.kill, ['node', 'serving'] as const),
    out: given.out,
  };
  if (plan.namespaces > plan.sessions) throw new Error('--namespaces: more than sessions');
  return plan;
}

const DEFAULTS = { sessions: '2000', namespaces: '20', nodes: '3', kill: 'node', out: '' };
const VPNSESS = `${ROOT}bench/build/vpnsess`;
const SOURCE = `${ROOT}bench/tools/vpnsess.c`;
const PASSWORD = 'storm-password';
/** One address has a hundred users here. */
const UNLIMITED = { 'max-connections-per-address': 0, 'max-logins-per-address': 0 };
const LOGIN_THREADS = '1';
const MOST_THREADS = 200;
const HOLD_SECONDS = '1200';
const LOGINS_MS = 600_000;
const QUIET_MS = 5_000;
const BACK_MS = 180_000;
const FIRST_AUTH_ADMIN_PORT = 9501;
const ADMIN_PORT_STEP = 100;
const LIMIT_MINUTES = 20;

runBench(main, LIMIT_MINUTES);
