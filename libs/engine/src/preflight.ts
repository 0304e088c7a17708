import { accessSync, constants, readFileSync } from 'node:fs';
import { cidrsOverlap, formatCidr, parseCidr, type Cidr } from '@sallyport/protocol';
import { ROUTE_PROTOCOL } from './device.tuntap.ts';
import { hostRoutes, interfaceAddresses, type HostRoute, type InterfaceAddress } from './ip-command.ts';

export interface PreflightSettings {
  device: string;
  /** CIDRs of all pools. */
  pools: readonly string[];
}

/** What keeps the gateway from starting: one sentence that says what to do. */
export interface Problem {
  kind: 'not-root' | 'no-tun' | 'pool-invalid' | 'pool-overlap';
  text: string;
}

/** Looks, changes nothing. An empty list: the gateway can start here. */
export async function preflight(settings: PreflightSettings, tunPath = '/dev/net/tun'): Promise<Problem[]> {
  const problems: Problem[] = [];
  if (!mayChangeNetwork(readFileSync('/proc/self/status', 'latin1'))) {
    problems.push({
      kind: 'not-root',
      text: 'The gateway must change the network of this machine: start it as root, for example with sudo.',
    });
  }
  const tun = tunProblem(tunPath);
  if (tun) problems.push(tun);
  const pools: Cidr[] = [];
  for (const text of settings.pools) {
    const pool = parseCidr(text);
    if (pool) pools.push(pool);
    else
      problems.push({
        kind: 'pool-invalid',
        text: `The address pool ${JSON.stringify(text)} is not an address with a prefix length, like 10.90.0.0/16.`,
      });
  }
  problems.push(...overlaps(settings.device, pools, await interfaceAddresses(), await hostRoutes()));
  return problems;
}

/** Pools that meet an address or a route of this machine. At most one problem per pool. */
export function overlaps(
  device: string,
  pools: readonly Cidr[],
  addresses: readonly InterfaceAddress[],
  routes: readonly HostRoute[],
): Problem[] {
  const problems: Problem[] = [];
  for (const pool of pools) {
    const name = formatCidr(pool);
    const address = addresses.find((entry) => entry.device !== device && cidrsOverlap(pool, entry.cidr));
    const route = routes.find(
      (entry) => entry.device !== device && isForeign(entry) && cidrsOverlap(pool, entry.destination),
    );
    if (address) {
      const text = `The address pool ${name} overlaps ${formatCidr(address.cidr)} on the interface ${address.device}: choose another ipv4-network or ipv6-network.`;
      problems.push({ kind: 'pool-overlap', text });
    } else if (route) {
      const text = `The address pool ${name} overlaps the route ${formatCidr(route.destination)} on the interface ${route.device}: choose another ipv4-network or ipv6-network, or remove the route.`;
      problems.push({ kind: 'pool-overlap', text });
    }
  }
  return problems;
}

/** Not the default route (in one piece or in two halves), ours, or one of a routing daemon. */
function isForeign(route: HostRoute): boolean {
  if (route.destination.prefixLength <= 1) return false;
  return route.protocol !== String(ROUTE_PROTOCOL) && !DAEMONS.has(route.protocol);
}

/** CAP_NET_ADMIN is what counts, with or without root. */
function mayChangeNetwork(status: string): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  return effective !== undefined && ((BigInt(`0x${effective}`) >> CAP_NET_ADMIN) & 1n) === 1n;
}

function tunProblem(path: string): Problem | undefined {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return undefined;
  } catch (error) {
    const missing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    const text = missing
      ? `There is no ${path}: run \`modprobe tun\`, or give the device to the container.`
      : `${path} cannot be opened: start the gateway as root.`;
    return { kind: 'no-tun', text };
  }
}

const CAP_NET_ADMIN = 12n;
/** rt_protos of routing daemons, by name and by number (rtnetlink). */
const DAEMONS = new Set([
  ...[
    'gated',
    'ra',
    'mrt',
    'zebra',
    'bird',
    'dnrouted',
    'xorp',
    'ntk',
    'mrouted',
    'keepalived',
    'babel',
    'openr',
  ],
  ...['bgp', 'isis', 'ospf', 'rip', 'eigrp', 'nhrp', 'pbr', 'sharp', 'openfabric'],
  ...['8', '10', '11', '12', '13', '14', '15', '17', '18', '42', '99'],
  ...['186', '187', '188', '189', '191', '192', '193', '194', '195', '196', '197'],
]);
