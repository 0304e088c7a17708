/**
 * The wires of a local cluster, every box a network namespace:
 *
 *   client 0 … 99 ── 198.18.0.0/16 ──┐
 *   2001:db8:18::/64                 │ balancer ── 10.30.0.0/24 ──┬── core: Redis, Kafka, auth, portal, downloader
 *                                    │ 192.0.2.1  2001:db8:30::/64├── n1 ──┐
 *                                    │ 2001:db8:1::1              ├── n2 ──┼── 198.51.100.0/24 ── lan
 *                                    └────────────────────────────└── n3 ──┘   2001:db8:2::/64
 *
 * Clients reach the balancer by its own address, and each node by the node's. Nodes answer by way of the balancer, and
 * everything else that they send leaves by the LAN.
 */
import { each, ipBatch, Lab, run } from '../harness/index.ts';

export interface Place {
  ipv4: string;
  ipv6: string;
}

/** What clients connect to. */
export const GATEWAY: Place = { ipv4: '192.0.2.1', ipv6: '2001:db8:1::1' };
/** The balancer towards nodes and services. */
export const BALANCER: Place = { ipv4: '10.30.0.1', ipv6: '2001:db8:30::1' };
export const CORE: Place = { ipv4: '10.30.0.2', ipv6: '2001:db8:30::2' };
export const LAN: Place = { ipv4: '198.51.100.2', ipv6: '2001:db8:2::2' };
/** Addresses inside the tunnels. */
export const POOL: Place = { ipv4: '10.77.0.0/16', ipv6: 'fd00:77::/64' };
export const LAN_NETWORKS = ['198.51.100.0/24', '2001:db8:2::/64'];

/** @param index from 0 */
export function nodeName(index: number): string {
  return `n${index + 1}`;
}
/** A node, on the side of the balancer. */
export function nodePlace(index: number): Place {
  return { ipv4: `10.30.0.${FIRST_NODE + index}`, ipv6: `2001:db8:30::${FIRST_NODE + index}` };
}
/** A node, on the side of the LAN. */
export function nodeOnLan(index: number): Place {
  return { ipv4: `198.51.100.${FIRST_NODE + index}`, ipv6: `2001:db8:2::${FIRST_NODE + index}` };
}
export function clientPlace(index: number): Place {
  const [high, low] = [1 + Math.floor(index / 250), 1 + (index % 250)];
  return { ipv4: `198.18.${high}.${low}`, ipv6: `2001:db8:18::${high}:${low}` };
}

/** Makes the namespaces and joins them. */
export async function openNetwork(nodes: number, clients: number): Promise<Lab> {
  const names = Array.from({ length: nodes }, (_, index) => nodeName(index));
  const lab = await Lab.open({ clients, roles: ['balancer', 'core', 'lan', ...names] });
  try {
    await wire(lab, nodes, clients);
    return lab;
  } catch (error) {
    await lab.close();
    throw error;
  }
}

async function wire(lab: Lab, nodes: number, clients: number): Promise<void> {
  const [balancer, core, lan] = [lab.namespace('balancer'), lab.namespace('core'), lab.namespace('lan')];
  const veth = (device: string, near: string, peer: string, far: string) =>
    `link add ${device} netns ${near} type veth peer name ${peer} netns ${far}`;
  const all = (count: number) => Array.from({ length: count }, (_, index) => index);
  await ipBatch([
    veth('core', balancer, 'eth0', core),
    ...all(nodes).flatMap((index) => {
      const [name, node] = [nodeName(index), lab.namespace(nodeName(index))];
      return [veth(name, balancer, 'eth0', node), veth(name, lan, 'lan', node)];
    }),
    ...all(clients).map((index) => veth(`c${index}`, balancer, 'eth0', lab.client(index))),
  ]);
  const names = all(nodes).map(nodeName);
  await ipBatch(
    [
      ...bridge('clients', all(clients).map((index) => `c${index}`)), // prettier-ignore
      ...bridge('cluster', ['core', ...names]),
      ...[`${CLIENT_GATEWAY.ipv4}/16`, `${CLIENT_GATEWAY.ipv6}/64`].map((on) => address(on, 'clients')),
      ...[`${BALANCER.ipv4}/24`, `${BALANCER.ipv6}/64`].map((on) => address(on, 'cluster')),
      ...[`${GATEWAY.ipv4}/32`, `${GATEWAY.ipv6}/128`].map((on) => address(on, 'lo')),
    ],
    balancer,
  );
  await ipBatch(
    [...bridge('lan', names), ...[`${LAN.ipv4}/24`, `${LAN.ipv6}/64`].map((on) => address(on, 'lan'))],
    lan,
  );
  // The LAN's host is its router, too: from a client of one node to one of another.
  for (const router of [balancer, lan]) await lab.exec(router, ['sysctl', '-qw', ...FORWARDING]);
  const inside = (place: Place, prefix: number) => [
    address(`${place.ipv4}/${prefix}`, 'eth0'),
    address(`${place.ipv6}/64`, 'eth0'),
    'link set eth0 up',
  ];
  const route = (to: Place, via: Place) => [
    `route add ${to.ipv4} via ${via.ipv4}`,
    `route add ${to.ipv6} via ${via.ipv6}`,
  ];
  await ipBatch([...inside(CORE, 24), ...route(EVERYTHING, BALANCER)], core);
  for (const index of all(nodes)) {
    const on = nodeOnLan(index);
    const lines = ['link set lan up', address(`${on.ipv4}/24`, 'lan'), address(`${on.ipv6}/64`, 'lan')];
    // Clients of other nodes are somewhere behind, too.
    lines.push(...route(CLIENTS, BALANCER), ...route(EVERYTHING, LAN));
    await ipBatch([...inside(nodePlace(index), 24), ...lines], lab.namespace(nodeName(index)));
  }
  await each(all(clients), (index) =>
    ipBatch([...inside(clientPlace(index), 16), ...route(EVERYTHING, CLIENT_GATEWAY)], lab.client(index)),
  );
}

function bridge(name: string, ports: readonly string[]): string[] {
  return [
    `link add ${name} type bridge`,
    `link set ${name} up`,
    ...ports.flatMap((port) => [`link set ${port} master ${name}`, `link set ${port} up`]),
  ];
}

function address(on: string, device: string): string {
  return `addr add ${on} dev ${device}${on.includes(':') ? ' nodad' : ''}`;
}

/** Takes a node off the net: no packet comes and none goes, on both sides. */
export async function setNodeLinks(lab: Lab, index: number, state: 'up' | 'down'): Promise<void> {
  for (const box of ['balancer', 'lan'])
    await run(['ip', '-n', lab.namespace(box), 'link', 'set', nodeName(index), state]);
}

/** Cuts a node off from one port of the core, or takes that back: its packets there are lost, all others pass. */
export async function setNodePort(
  lab: Lab,
  index: number,
  port: number,
  state: 'open' | 'cut',
): Promise<void> {
  const chain = (hook: string, what: string) =>
    ` chain ${hook} {\n  type filter hook ${hook} priority filter;\n  tcp ${what} ${port} drop\n }\n`;
  const rules = `table inet cut {\n${chain('output', 'dport')}${chain('input', 'sport')}}\n`;
  const table = `add table inet cut\ndelete table inet cut\n${state === 'cut' ? rules : ''}`;
  await lab.exec(lab.namespace(nodeName(index)), ['nft', '-f', '-'], { input: table });
}

const EVERYTHING: Place = { ipv4: '0.0.0.0/0', ipv6: '::/0' };
const CLIENTS: Place = { ipv4: '198.18.0.0/16', ipv6: '2001:db8:18::/64' };
const CLIENT_GATEWAY: Place = { ipv4: '198.18.0.1', ipv6: '2001:db8:18::ffff' };
const FORWARDING = ['net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'];
const FIRST_NODE = 11;
/** More do not fit on one bridge of the kernel. */
export const MAX_CLIENTS = 1000;
export const MAX_NODES = 16;
