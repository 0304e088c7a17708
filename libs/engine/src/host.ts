import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { parseCidr } from '@sallyport/protocol';
import { CommandFailed, run } from './commands.ts';
import { Conntrack } from './conntrack.ts';
import { DEVICE_ALIAS } from './device.tuntap.ts';
import { devicesWithAlias, isRecord } from './ip-command.ts';
import { natRanges, NAT_PATH, translationTable } from './return-path.nat.ts';
import { RoutedPath } from './return-path.routed.ts';
import { NO_RETURN_PATH, type ReturnPath } from './return-path.ts';

/**
 * What the gateway does to its host besides the TUN device, and how it is undone:
 *
 *   return-path: nat    one nftables table of our own, `inet sallyport_DEVICE`, that translates the pools' addresses
 *   IP forwarding       switched on, IPv6 only with an IPv6 pool
 *
 * `return-path: routed` sets routes on the TUN device, which go with it (return-path.routed.ts).
 *
 * Every change is written to `host.json` in the state folder before it is made. `close` puts everything back; after a
 * kill the next start with the same state folder does so first, unless the machine was started anew since.
 */
export async function prepareHost(settings: HostSettings): Promise<Host> {
  const file = join(settings.stateDir, 'host.json');
  await recoverHost(settings.stateDir);
  const table = tableName(settings.device);
  const ranges = natRanges(settings.natAddresses ?? []);
  const pools = settings.pools.map(parseCidr).filter((pool) => pool !== undefined);
  const sysctls = wantedSysctls(
    settings.device,
    pools.some((pool) => pool.family === 'ipv6'),
  );
  const changes: HostChanges = {
    v: 1,
    boot: bootId(),
    table: settings.returnPath === 'nat' ? table : '',
    sysctls: formerValues(sysctls),
  };
  await writeChanges(file, changes);
  try {
    for (const [name, value] of sysctls) setSysctl(name, value);
    if (settings.returnPath === 'nat')
      await run(
        'nft',
        ['-f', '-'],
        freshTable(table, translationTable(table, settings.device, pools, ranges)),
      );
  } catch (error) {
    await undo(file, changes, settings.device);
    throw error;
  }
  const returnPath = openReturnPath(settings);
  let closing: Promise<void> | undefined;
  return {
    warnings: await forwardWarnings(settings.device),
    returnPath,
    close: () => (closing ??= returnPath.close().then(() => undo(file, changes, settings.device))),
  };
}

export interface HostSettings {
  device: string;
  returnPath: 'nat' | 'none' | 'routed';
  /** CIDRs of all pools. */
  pools: readonly string[];
  /** With `nat`: what it translates to, one address or FIRST-LAST per family. Default: the address of the way out. */
  natAddresses?: readonly string[];
  /** Folder that outlives the process. */
  stateDir: string;
  /** Something that is tried again keeps failing: one sentence or the words of a program. */
  onProblem?: (problem: string) => void;
  /** Somebody had taken away so many routes of `return-path: routed`; they are set again. */
  onRestored?: (count: number) => void;
}

export interface Host {
  /** Sentences for the operator about what may keep packets from passing. */
  readonly warnings: readonly string[];
  readonly returnPath: ReturnPath;
  /** Puts everything back. Idempotent. */
  close(): Promise<void>;
}

/** Undoes what a killed process left behind. @returns whether there was anything. */
export async function recoverHost(stateDir: string): Promise<boolean> {
  const file = join(stateDir, 'host.json');
  const changes = await readChanges(file);
  if (changes && changes.boot !== '' && changes.boot !== bootId()) {
    // The kernel began anew since: its settings are the administrator's, and the table is gone.
    await rm(file, { force: true });
    return false;
  }
  if (changes) await undo(file, changes);
  return changes !== undefined;
}

interface HostChanges {
  v: 1;
  /** The run of the kernel that was changed; '' = not known. */
  boot: string;
  /** '' = none. */
  table: string;
  /** Path under /proc/sys and its former value. */
  sysctls: [name: string, former: string][];
}

/**
 * Forwarding that another gateway needs stays on: it did not switch it on itself, so nobody else would keep it.
 * @param own device of this gateway; absent = it is gone.
 */
async function undo(file: string, changes: HostChanges, own?: string): Promise<void> {
  // `add` first, so that a table that is gone is no error.
  if (changes.table !== '') {
    const { table } = changes;
    await run('nft', ['-f', '-'], `add table inet ${table}\ndelete table inet ${table}\n`);
  }
  const shared = changes.sysctls.length > 0 && (await otherGateways(own)) > 0;
  for (const [name, former] of shared ? [] : changes.sysctls.toReversed()) {
    try {
      setSysctl(name, former);
    } catch (error) {
      // The interface of an accept_ra may be gone.
      if (!name.includes('accept_ra')) throw error;
    }
  }
  await rm(file, { force: true });
}

/** Forwarding stops a host from taking router advertisements unless accept_ra is 2: it would lose its own IPv6 route. */
function wantedSysctls(device: string, ipv6: boolean): [name: string, value: string][] {
  const wanted: [string, string][] = [['net/ipv4/ip_forward', '1']];
  if (ipv6 && getSysctl('net/ipv6/conf/all/forwarding') !== undefined) {
    for (const link of readdirSync('/proc/sys/net/ipv6/conf')) {
      const name = `net/ipv6/conf/${link}/accept_ra`;
      if (!['all', 'default', 'lo', device].includes(link) && getSysctl(name) === '1')
        wanted.push([name, '2']);
    }
    wanted.push(['net/ipv6/conf/all/forwarding', '1']);
  }
  return wanted.filter(([name, value]) => getSysctl(name) !== value);
}

async function otherGateways(own: string | undefined): Promise<number> {
  return (await devicesWithAlias(DEVICE_ALIAS)).filter((device) => device !== own).length;
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}

function formerValues(sysctls: readonly [name: string, value: string][]): [string, string][] {
  return sysctls.map(([name]) => [name, getSysctl(name) ?? '']);
}

function getSysctl(name: string): string | undefined {
  try {
    return readFileSync(join('/proc/sys', name), 'latin1').trim();
  } catch {
    return undefined;
  }
}

function setSysctl(name: string, value: string): void {
  try {
    writeFileSync(join('/proc/sys', name), value);
  } catch (error) {
    const text = `${name.replaceAll('/', '.')} could not be set to ${value}: set it with sysctl before the gateway starts.`;
    throw new Error(text, { cause: error });
  }
}

function openReturnPath(settings: HostSettings): ReturnPath {
  const { returnPath, device, onProblem = () => undefined, onRestored = () => undefined } = settings;
  if (returnPath === 'none') return NO_RETURN_PATH;
  if (returnPath === 'nat') return NAT_PATH;
  return new RoutedPath({ device, conntrack: new Conntrack(), onProblem, onRestored });
}

/** One transaction: what a former process left in the table is replaced. */
function freshTable(table: string, text: string): string {
  return `add table inet ${table}\ndelete table inet ${table}\n${text}`;
}

/** @throws Error if the name is none of a device: it goes into nftables' own language (S15). */
function tableName(device: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$/.test(device))
    throw new Error('The key device is not the name of a network interface.');
  return `sallyport_${device.replace(/[^A-Za-z0-9]/g, '_')}`;
}

/** Chains of others that drop what is forwarded and not named: Docker sets such a policy. */
export async function forwardWarnings(device: string): Promise<string[]> {
  const chains = await droppingChains();
  return chains.map((chain) => {
    const program = chain.includes('ip6') ? 'ip6tables' : 'iptables';
    return (
      `${chain} drops forwarded packets by default (Docker sets this): let those of the clients pass, for example with ` +
      `\`${program} -I FORWARD -i ${device} -j ACCEPT\` and \`${program} -I FORWARD -o ${device} -j ACCEPT\`.`
    );
  });
}

async function droppingChains(): Promise<string[]> {
  const found: string[] = [];
  try {
    const listed: unknown = JSON.parse(await run('nft', ['-j', 'list', 'chains']));
    for (const entry of isRecord(listed) && Array.isArray(listed['nftables']) ? listed['nftables'] : []) {
      const chain: unknown = isRecord(entry) ? entry['chain'] : undefined;
      if (!isRecord(chain) || chain['hook'] !== 'forward' || chain['policy'] !== 'drop') continue;
      found.push(
        `The chain ${String(chain['name'])} of the nftables table ${String(chain['family'])} ${String(chain['table'])}`,
      );
    }
  } catch (error) {
    if (!(error instanceof CommandFailed)) throw error;
  }
  for (const program of ['iptables-legacy', 'ip6tables-legacy']) {
    if (await legacyDrops(program)) found.push(`The chain FORWARD of ${program}`);
  }
  return found;
}

/** The old iptables are asked only where their table exists: asking would create it. */
async function legacyDrops(program: string): Promise<boolean> {
  const names = program.startsWith('ip6') ? '/proc/net/ip6_tables_names' : '/proc/net/ip_tables_names';
  try {
    if (!readFileSync(names, 'latin1').split('\n').includes('filter')) return false;
    return (await run(program, ['-S', 'FORWARD'])).startsWith('-P FORWARD DROP');
  } catch {
    return false;
  }
}

async function readChanges(file: string): Promise<HostChanges | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
  const changes = parseChanges(text);
  if (!changes)
    throw new Error(`${file} is not readable: put the host's settings back by hand, then delete the file.`);
  return changes;
}

/** Only what we would have written: the file decides what is written to /proc/sys. */
function parseChanges(text: string): HostChanges | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (
    !isRecord(value) ||
    value['v'] !== 1 ||
    typeof value['table'] !== 'string' ||
    !Array.isArray(value['sysctls'])
  )
    return undefined;
  if (value['table'] !== '' && !/^sallyport_[A-Za-z0-9_]{1,15}$/.test(value['table'])) return undefined;
  const sysctls: [string, string][] = [];
  for (const pair of value['sysctls'] as unknown[]) {
    if (!Array.isArray(pair)) return undefined;
    const [name, former] = pair as unknown[];
    if (typeof name !== 'string' || typeof former !== 'string' || !SYSCTL.test(name) || !/^\d$/.test(former))
      return undefined;
    sysctls.push([name, former]);
  }
  const boot = typeof value['boot'] === 'string' ? value['boot'] : '';
  return { v: 1, boot, table: value['table'], sysctls };
}

async function writeChanges(file: string, changes: HostChanges): Promise<void> {
  await mkdir(join(file, '..'), { recursive: true, mode: 0o700 });
  const temporary = `${file}.new`;
  const handle = await open(temporary, 'w', 0o600);
  try {
    await handle.writeFile(`${JSON.stringify(changes)}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, file);
}

const SYSCTL = /^net\/(ipv4\/ip_forward|ipv6\/conf\/all\/forwarding|ipv6\/conf\/[^/]{1,15}\/accept_ra)$/;
