import { formatAddress, parseAddress, parseCidr, type Cidr } from '@sallyport/protocol';
import { attempt, CommandFailed, run } from './commands.ts';

/** Address on an interface, from `ip -json address`. */
export interface InterfaceAddress {
  device: string;
  cidr: Cidr;
}

/** From `ip -json route` and `ip -json -6 route`, main table. */
export interface HostRoute {
  device: string;
  destination: Cidr;
  /** Name or number. */
  protocol: string;
}

export async function interfaceAddresses(): Promise<InterfaceAddress[]> {
  const found: InterfaceAddress[] = [];
  for (const link of records(await ipJson(['address', 'show']))) {
    for (const entry of records(link['addr_info'])) {
      const cidr = parseCidr(`${text(entry['local'])}/${text(entry['prefixlen'])}`);
      if (cidr) found.push({ device: text(link['ifname']), cidr });
    }
  }
  return found;
}

/** Addresses of a device, as `formatAddress` writes them; none while it is down. */
export async function upAddresses(device: string): Promise<string[]> {
  const found: string[] = [];
  for (const link of records(await ipJson(['address', 'show', 'dev', device, 'up']))) {
    for (const entry of records(link['addr_info'])) {
      const address = parseAddress(text(entry['local']));
      if (address) found.push(formatAddress(address));
    }
  }
  return found;
}

/** @param only of one family and one device. */
export async function hostRoutes(only?: 'ipv4' | 'ipv6', device?: string): Promise<HostRoute[]> {
  const found: HostRoute[] = [];
  const families = only === undefined ? ['-4', '-6'] : [only === 'ipv4' ? '-4' : '-6'];
  for (const family of families) {
    const where = device === undefined ? [] : ['dev', device];
    for (const route of records(await ipJson([family, 'route', 'show', ...where]))) {
      const destination = parseCidr(text(route['dst']));
      if (destination)
        found.push({ device: device ?? text(route['dev']), destination, protocol: text(route['protocol']) });
    }
  }
  return found;
}

/**
 * Routes of one protocol on one device. The kernel picks them out, and the text is taken as it is: there may be very many.
 * @param protocol number of rtnetlink(7).
 * @returns each as `PREFIX METRIC`, a prefix as `formatCidr` writes it.
 * @throws CommandFailed
 */
export async function deviceRoutes(device: string, protocol: number): Promise<string[]> {
  const found: string[] = [];
  for (const [family, bits, defaultMetric] of [
    ['-4', 32, 0],
    ['-6', 128, 1024],
  ] as const) {
    const shown = await run('ip', [family, 'route', 'show', 'dev', device, 'proto', String(protocol)]);
    for (const [, address = '', length = bits, metric = defaultMetric] of shown.matchAll(ROUTE_LINE))
      found.push(`${address}/${length} ${metric}`);
  }
  return found;
}

export async function devicesWithAlias(alias: string): Promise<string[]> {
  const links = records(await ipJson(['link', 'show']));
  return links.filter((link) => link['ifalias'] === alias).map((link) => text(link['ifname']));
}

/**
 * Runs lines of `ip -batch`; one that fails does not keep the others from running.
 * @param lines without the word `ip`.
 * @returns by its index what was said about each line that failed.
 * @throws CommandFailed when it is unknown which lines were done.
 */
export async function ipBatch(lines: readonly string[]): Promise<Map<number, string>> {
  const input = lines.map((line) => `${line}\n`).join('');
  const { code, stderr } = await attempt('ip', ['-force', '-batch', '-'], input);
  const failed = new Map<number, string>();
  let said = '';
  for (const line of stderr.split('\n')) {
    const number = /^Command failed -:(\d+)$/.exec(line)?.[1];
    if (number === undefined) {
      if (line !== '') said = line;
      continue;
    }
    failed.set(Number(number) - 1, said);
    said = '';
  }
  // 1 = some lines failed. It ends early with others when it cannot read a line at all.
  if (code > 1 || (code === 1) !== failed.size > 0)
    throw new CommandFailed(`ip -batch failed: ${said || `exit code ${code}`}`);
  return failed;
}

async function ipJson(args: readonly string[]): Promise<unknown> {
  const output = await run('ip', ['-json', ...args]);
  return output.trim() === '' ? [] : JSON.parse(output);
}

function records(value: unknown): Record<string, unknown>[] {
  const items: unknown[] = Array.isArray(value) ? value : [];
  return items.filter(isRecord);
}

function text(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

const ROUTE_LINE = /^([0-9a-f.:]+)(?:\/(\d+))? (?:.*?metric (\d+))?/gm;
