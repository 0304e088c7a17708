/** What a node may suffer in the failover bench, and how it is healed. */
import type { Cluster } from '../cluster/cluster.ts';
import type { NodeMember } from '../cluster/member.ts';
import { setNodeLinks } from '../cluster/network.ts';
import type { BalancerKind } from '../cluster/balancer.ts';
import type { Fleet } from './fleet.ts';
import type { Aim } from './outages.ts';

export interface Scene {
  cluster: Cluster;
  node: NodeMember;
  /** Number of the node from 0. */
  index: number;
  fleet: Fleet;
  /** Numbers of the clients that have their tunnel on the node: those that are hit. */
  own: readonly number[];
}

export interface Scenario {
  /** For people. */
  about: string;
  /** Not measured: what must be so before. */
  prepare?: (scene: Scene) => Promise<void>;
  fault: (scene: Scene) => void | Promise<void>;
  /** Makes the node whole again, where it does not do that by itself. */
  heal?: (scene: Scene) => void | Promise<void>;
  /** Of the outage of those that were hit; {} = it is printed for what it is. */
  aim: (kind: BalancerKind) => Aim;
}

export type ScenarioName =
  | 'kill-serving'
  | 'freeze'
  | 'planned-renewal'
  | 'planned-stop'
  | 'kill-node'
  | 'fail-back'
  | 'drain'
  | 'cut';

export const SCENARIOS: Readonly<Record<ScenarioName, Scenario>> = {
  'kill-serving': {
    about: 'kill -9 of the serving process; its supervisor lives',
    fault: ({ node }) => node.crash(),
    aim: () => ({ p95: 1.5 }),
  },
  freeze: {
    about: 'SIGSTOP of the serving process; the watchdog gives it 2 s',
    fault: ({ node }) => void process.kill(node.servingPid, 'SIGSTOP'),
    aim: () => ({ p95: 3.5 }),
  },
  'planned-renewal': {
    about: 'the supervisor starts another serving process (SIGUSR2), as after an upgrade',
    fault: ({ node }) => node.signal('SIGUSR2'),
    aim: () => ({ p95: 1 }),
  },
  'planned-stop': {
    about: 'SIGTERM of the whole node',
    fault: ({ node }) => node.signal('SIGTERM'),
    heal: startAgain,
    aim: (kind) => (kind === 'redispatch' ? { p95: 1 } : {}),
  },
  'kill-node': {
    about: 'kill -9 of the node with its supervisor',
    fault: ({ node }) => node.kill(),
    heal: startAgain,
    aim: (kind) => (kind === 'redispatch' ? { p95: 3, max: 6 } : {}),
  },
  'fail-back': {
    about: 'a lost node is there again, and its clients come home with their next reconnect',
    async prepare(scene) {
      const { cluster, node, fleet, own } = scene;
      const before = await fleet.before(own);
      await node.kill();
      if (!(await fleet.whenBack(before, MOVE_MS)))
        throw new Error(`${node.name} was lost, and not all came back`);
      await startAgain(scene);
      await cluster.balancer.whenReady(cluster.nodes.length, READY_MS);
      await fleet.whenSteady();
    },
    fault: ({ fleet, own }) => own.forEach((index) => fleet.clients[index]?.signal('SIGUSR2')),
    aim: () => ({ p95: 1 }),
  },
  drain: {
    about: 'sallyport drain node: its tunnels move in waves',
    fault: async ({ cluster, node }) => void (await cluster.cli(['drain', 'node', node.name])),
    heal: async ({ cluster, node }) => void (await cluster.cli(['undrain', 'node', node.name])),
    aim: () => ({ p95: 1 }),
  },
  cut: {
    about: 'no packet reaches the node and none leaves it',
    fault: ({ cluster, index }) => setNodeLinks(cluster.lab, index, 'down'),
    heal: ({ cluster, index }) => setNodeLinks(cluster.lab, index, 'up'),
    aim: () => ({}),
  },
};

async function startAgain({ node }: Scene): Promise<void> {
  if (node.running) await node.stop();
  await node.start();
}

export const READY_MS = 60_000;
/** openconnect's longest sleeps (10, 20, 30 s) and its DPD (2 × 20 s) fit in. */
export const MOVE_MS = 120_000;
