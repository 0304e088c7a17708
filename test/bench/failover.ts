/**
 * `npm run bench -- failover`: real clients from as many addresses over several nodes, each with pings and two TCP
 * connections inside, while nodes die, freeze, stop and come back; Debian's ocserv killed and started again beside it.
 * Half of the clients reach the gateway over IPv6, and half ping the LAN over IPv6.
 */
import { appendFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { BALANCER_KINDS, type BalancerKind } from '../cluster/balancer.ts';
import { Cluster } from '../cluster/cluster.ts';
import { GATEWAY, LAN, MAX_CLIENTS, MAX_NODES } from '../cluster/network.ts';
import { sleep } from '../harness/index.ts';
import { Fleet } from './fleet.ts';
import { countOf, oneOf, optionsOf, print, runBench, say } from './options.ts';
import { evaluate, table, type Row } from './outages.ts';
import { killedPeer } from './peer.ts';
import { MOVE_MS, READY_MS, SCENARIOS, type Scene, type ScenarioName } from './scenarios.ts';

interface Plan {
  clients: number;
  nodes: number;
  rounds: number;
  balancer: BalancerKind;
  returnPath: 'routed' | 'nat';
  scenarios: readonly ScenarioName[];
  withPeer: boolean;
  out: string;
}

async function main(argv: readonly string[]): Promise<void> {
  const plan = planOf(argv);
  const rows: Row[] = [];
  const take = (row: Row) => {
    rows.push(row);
    const { clients: _, ...rest } = plan;
    const machine = { cpus: cpus().length, load: loadavg()[0] };
    if (plan.out !== '')
      appendFileSync(plan.out, `${JSON.stringify({ bench: 'failover', ...rest, machine, ...row })}\n`);
    say(table([row]).split('\n')[2] ?? '');
  };
  await measureCluster(plan, take);
  if (plan.withPeer) {
    say("Debian's ocserv");
    for (let round = 0; round < plan.rounds; round++) take(await killedPeer(plan.clients));
  }
  print(`\n${plan.clients} clients, ${plan.nodes} nodes, ${plan.balancer}, return path ${plan.returnPath}, `);
  print(`load ${loadavg()[0]?.toFixed(1)} on ${cpus().length} cores\n\n${table(rows)}`);
  const broken = rows.filter(
    (row) => row.server === OURS && (row.lost > 0 || row.prompts > 0 || row.sameAddress < row.clients),
  );
  if (broken.length > 0)
    throw new Error(`not all came back as they were: ${broken.map(({ scenario }) => scenario).join(', ')}`);
}

async function measureCluster(plan: Plan, take: (row: Row) => void): Promise<void> {
  const { clients, nodes, balancer, returnPath } = plan;
  const cluster = await Cluster.open({ nodes, clients, balancer, returnPath, say });
  try {
    await cluster.probe();
    say(`logging ${clients} clients in`);
    const fleet = await Fleet.open({
      ...{ lab: cluster.lab, clients, lan: LAN },
      client: (index) => cluster.client(index, index % 2 === 1 ? { url: `https://[${GATEWAY.ipv6}]` } : {}),
    });
    let turn = 0;
    for (let round = 0; round < plan.rounds; round++) {
      for (const name of plan.scenarios) {
        say(`round ${round + 1}, ${name}: ${SCENARIOS[name].about}`);
        take(await measure(cluster, fleet, name, turn++ % nodes, balancer));
      }
    }
  } finally {
    await cluster.close();
  }
}

async function measure(
  cluster: Cluster,
  fleet: Fleet,
  name: ScenarioName,
  index: number,
  balancer: BalancerKind,
): Promise<Row> {
  const scenario = SCENARIOS[name];
  const node = cluster.nodes[index];
  if (node === undefined) throw new Error(`there is no node ${index}`);
  await fleet.whenSteady();
  const own = await clientsOf(cluster, node.name);
  if (own.length === 0) throw new Error(`${node.name} has no client: take more clients or fewer nodes`);
  const scene: Scene = { cluster, node, index, fleet, own };
  await scenario.prepare?.(scene);
  const before = await fleet.before(own);
  await scenario.fault(scene);
  if (!(await fleet.whenBack(before, MOVE_MS))) say('not all came back in time');
  await sleep(SETTLE_MS);
  const addresses = await addressesOf(cluster);
  const measured = await fleet.measure(before, (client) => addresses.get(cluster.users[client]?.name ?? ''));
  await scenario.heal?.(scene);
  await cluster.balancer.whenReady(cluster.nodes.length, READY_MS);
  await goHome(scene, balancer);
  const dpd = dpdSeconds(fleet);
  const note = name === 'cut' ? { note: `the client's own DPD: ${dpd} s, gives up after ${2 * dpd} s` } : {};
  return { server: OURS, scenario: name, ...evaluate(measured, scenario.aim(balancer)), ...note };
}

/** Those that fled come home, so that the next scenario finds all nodes filled. A balancer of chance knows no home. */
async function goHome({ cluster, node, fleet, own }: Scene, balancer: BalancerKind): Promise<void> {
  if (balancer !== 'redispatch') return;
  const there = new Set(await clientsOf(cluster, node.name));
  const away = own.filter((client) => !there.has(client) && fleet.clients[client]?.alive === true);
  const before = await fleet.before(away);
  for (const client of away) fleet.clients[client]?.signal('SIGUSR2');
  await fleet.whenBack(before, MOVE_MS);
}

async function clientsOf(cluster: Cluster, node: string): Promise<number[]> {
  const users = await cluster.show('users');
  const names = new Set(users.filter((user) => user['Node'] === node).map((user) => user['Username']));
  return cluster.users.flatMap(({ name }, index) => (names.has(name) ? [index] : []));
}

/** User to inner addresses, as Fleet.addresses has them. */
async function addressesOf(cluster: Cluster): Promise<Map<string, string>> {
  const users = await cluster.show('users');
  return new Map(
    users.map((user) => [String(user['Username']), `${String(user['IPv4'])} ${String(user['IPv6'])}`]),
  );
}

function dpdSeconds({ clients }: Fleet): number {
  return Number(/DPD (\d+)/.exec(clients[0]?.output ?? '')?.[1] ?? NaN);
}

function planOf(argv: readonly string[]): Plan {
  const given = optionsOf(argv, DEFAULTS);
  const known = Object.keys(SCENARIOS).filter((name): name is ScenarioName => name in SCENARIOS);
  return {
    clients: countOf('clients', given.clients, MAX_CLIENTS),
    nodes: countOf('nodes', given.nodes, MAX_NODES),
    rounds: countOf('rounds', given.rounds, 100),
    balancer: oneOf('balancer', given.balancer, BALANCER_KINDS),
    returnPath: oneOf('return-path', given['return-path'], ['routed', 'nat'] as const),
    scenarios:
      given.scenarios === 'all'
        ? known
        : given.scenarios.split(',').map((name) => oneOf('scenarios', name, known)),
    withPeer: oneOf('ocserv', given.ocserv, ['yes', 'no'] as const) === 'yes',
    out: given.out,
  };
}

const DEFAULTS = {
  clients: '100',
  nodes: '3',
  rounds: '1',
  balancer: 'redispatch',
  'return-path': 'routed',
  scenarios: 'all',
  /** Debian's ocserv beside it. */
  ocserv: 'yes',
  /** File that each row is added to as a line of JSON. */
  out: '',
};
const OURS = 'ours';
const SETTLE_MS = 2_000;
const LIMIT_MINUTES = 60;

runBench(main, LIMIT_MINUTES);
