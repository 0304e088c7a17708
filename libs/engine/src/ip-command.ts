import { parseCidr, type Cidr } from '@sallyport/protocol';
import { run } from './commands.ts';

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
