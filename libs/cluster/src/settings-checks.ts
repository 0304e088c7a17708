import { stat } from 'node:fs/promises';
import type { ConfigDocument, Problem } from '@sallyport/chassis';
import {
  cidrContains,
  cidrsOverlap,
  gatewayOf,
  parseAddress,
  parseCidr,
  parseRange,
  toBigint,
} from '@sallyport/protocol';
import type { Cidr } from '@sallyport/protocol';
import { loadPeerMaterial, type PeerRole } from './peers.ts';
import { profileOfPath } from './routes.ts';
import { checkCluster } from './settings-cluster.ts';
import type { PolicyValues, SETTINGS_KEYS, TlsValues } from './settings-keys.ts';
import { policyScopes, scopesOf } from './settings.ts';
import type { Settings, TlsSettings } from './settings.ts';
import { readNamed, readTlsFiles } from './tls-files.ts';

type SettingsDocument = ConfigDocument<typeof SETTINGS_KEYS>;
type Report = (message: string, ...path: string[]) => void;

/** What no key can know alone. Values that were refused are absent here and bring no second error. */
export function checkAcrossKeys(document: SettingsDocument, role?: PeerRole): Problem[] {
  const problems: Problem[] = [];
  const report: Report = (message, ...path) => problems.push({ line: document.line(...path), message });
  if (uses(role, 'tunnel-node')) {
    checkTls(document, report);
    checkNodeName(document, report);
  }
  checkProfiles(document, report);
  checkPools(document, report);
  checkExplicit(document, report);
  checkTranslation(document, report);
  const refused = (key: string) => document.problems.some(({ message }) => message.startsWith(`${key} `));
  checkCluster(document.values, refused, report);
  return problems;
}

/** A default would be the name of all of them, and of two nodes of one name the older one ends. */
function checkNodeName({ values, problems }: SettingsDocument, report: Report): void {
  if (!values.redis || values.node?.name !== undefined || wasRefused(problems, 'name')) return;
  report(
    'node: name is missing, and in a cluster it has no default: each node needs one of its own',
    'redis',
  );
}

function checkTls({ values, problems }: SettingsDocument, report: Report): void {
  const one = (tls: TlsValues, ...path: string[]) => {
    const certs = tls['server-cert'] ?? [];
    const keys = tls['server-key'] ?? [];
    if (certs.length !== keys.length) {
      report(
        `server-cert names ${certs.length} files and server-key ${keys.length}; each certificate needs its key`,
        ...path,
        'server-cert',
      );
    }
    if (tls.crl && !tls['ca-cert'] && !values['ca-cert']) report('crl needs ca-cert', ...path, 'crl');
    const min = tls['tls-min-version'] ?? values['tls-min-version'] ?? 'TLSv1.2';
    const max = tls['tls-max-version'] ?? values['tls-max-version'] ?? 'TLSv1.3';
    if (min > max) report('tls-min-version is newer than tls-max-version', ...path, 'tls-min-version');
  };
  one(values);
  const given = values['server-cert'] ?? values['server-key'];
  if (!given && !wasRefused(problems, 'server-cert', 'server-key')) {
    report('server-cert and server-key are missing; without a certificate no client can connect');
  }
  for (const [name, vhost] of values.vhosts ?? []) one(vhost, 'vhosts', name);
}

/** Has one of these keys a value that is no good? Then it is not missing. */
function wasRefused(problems: readonly Problem[], ...keys: string[]): boolean {
  return problems.some(({ key }) => key !== undefined && keys.includes(key));
}

function checkProfiles({ values, line }: SettingsDocument, report: Report): void {
  const profiles = values.profiles ?? new Map();
  const names = new Map<string, string>();
  const paths = new Map<string, string>();
  let chosen: string | undefined;
  for (const [name, profile] of values.profiles ?? []) {
    const path = ['profiles', name];
    if (profile.methods?.length === 0) report('methods is empty; nobody could log in', ...path, 'methods');
    if (new Set(profile.methods).size !== (profile.methods?.length ?? 0))
      report('methods names one twice', ...path, 'methods');
    if (profile.group && !values.groups?.has(profile.group)) {
      report(`group "${profile.group}" does not stand in groups`, ...path, 'group');
    }
    if (profile.methods?.includes('certificate') && !certificatesAsked({ values })) {
      report('the method certificate needs ca-cert', ...path, 'methods');
    }
    if (profileOfPath(`/${name}`) !== name)
      report(`"${name}" is a path of the protocol; choose another name`, ...path);
    const twin = paths.get(name.toLowerCase());
    if (twin !== undefined)
      report(`"${name}" and ${twin} have the same path /${twin.toLowerCase()}`, ...path);
    paths.set(name.toLowerCase(), name);
    for (const shown of new Set([name, profile.label || name])) {
      const other = names.get(shown);
      if (other !== undefined)
        report(`"${shown}" already is the name or label of profile ${other}`, ...path, 'label');
      names.set(shown, name);
    }
    if (!profile.default) continue;
    if (chosen !== undefined)
      report(
        `profile ${chosen} is the default already (line ${line('profiles', chosen, 'default')})`,
        ...path,
        'default',
      );
    chosen ??= name;
  }
  for (const [host, vhost] of values.vhosts ?? []) {
    for (const name of vhost.profiles ?? []) {
      if (!profiles.has(name))
        report(`profile "${name}" does not stand in profiles`, 'vhosts', host, 'profiles');
    }
  }
}

function certificatesAsked({ values }: Pick<SettingsDocument, 'values'>): boolean {
  return Boolean(values['ca-cert']) || [...(values.vhosts ?? [])].some(([, vhost]) => vhost['ca-cert']);
}

function policies({ values }: SettingsDocument): { path: string[]; policy: PolicyValues }[] {
  const { profiles, groups, users } = values;
  return scopesOf<PolicyValues>(values, { profiles, groups, users });
}

function checkPools(document: SettingsDocument, report: Report): void {
  const seen = new Map<string, Cidr>();
  let any = wasRefused(document.problems, 'ipv4-network', 'ipv6-network');
  for (const { path, policy } of policies(document)) {
    for (const key of ['ipv4-network', 'ipv6-network'] as const) {
      for (const text of policy[key] ?? []) {
        any = true;
        const pool = parseCidr(text);
        if (!pool || seen.has(text)) continue;
        for (const [other, cidr] of seen) {
          if (cidrsOverlap(pool, cidr))
            report(`${key} ${text} overlaps the pool ${other}; write the same pool or another`, ...path, key);
        }
        seen.set(text, pool);
        const client = policy['ipv6-subnet-prefix'] ?? document.values['ipv6-subnet-prefix'] ?? 128;
        if (pool.family === 'ipv6' && client <= pool.prefixLength) {
          report(
            `ipv6-subnet-prefix ${client} does not fit into the pool ${text} more than once`,
            ...path,
            key,
          );
        }
      }
    }
  }
  if (!any) report('ipv4-network is missing; clients would get no address');
}

function checkExplicit(document: SettingsDocument, report: Report): void {
  const pools = policies(document)
    .flatMap(({ policy }) => [...(policy['ipv4-network'] ?? []), ...(policy['ipv6-network'] ?? [])])
    .flatMap((text) => parseCidr(text) ?? []);
  const owners = new Map<string, string>();
  for (const [user, policy] of document.values.users ?? []) {
    for (const key of ['explicit-ipv4', 'explicit-ipv6'] as const) {
      const text = policy[key];
      const address = text ? parseAddress(text) : undefined;
      if (!text || !address) continue;
      const pool = pools.find((one) => cidrContains(one, address));
      if (!pool) report(`${key} ${text} lies in no pool`, 'users', user, key);
      else if (isReserved(pool, address)) {
        report(`${key} ${text} is the network, broadcast or gateway address of its pool`, 'users', user, key);
      }
      const owner = owners.get(text);
      if (owner !== undefined) report(`${key} ${text} belongs to user ${owner} already`, 'users', user, key);
      owners.set(text, user);
    }
  }
}

function checkTranslation({ values }: SettingsDocument, report: Report): void {
  const ranges = values['nat-addresses'] ?? [];
  if (ranges.length > 0 && (values['return-path'] ?? 'nat') !== 'nat')
    report('nat-addresses needs return-path: nat', 'nat-addresses');
  if (values.node?.slices && values['return-path'] !== 'routed')
    report('slices needs return-path: routed', 'node', 'slices');
  for (const family of ['ipv4', 'ipv6'] as const) {
    if (ranges.filter((text) => parseRange(text)?.family === family).length > 1)
      report(`nat-addresses names more than one range of ${FAMILIES[family]}`, 'nat-addresses');
  }
}

/** What no client gets (addresses.ts). */
function isReserved(pool: Cidr, address: Uint8Array): boolean {
  const host = toBigint(address) - toBigint(pool.network);
  const gateway = gatewayOf(pool);
  if (host === 0n || (gateway && toBigint(gateway) === toBigint(address))) return true;
  return pool.family === 'ipv4' && host === (1n << BigInt(32 - pool.prefixLength)) - 1n;
}

/** Looks at every file that the settings name: there, readable, and certificates that load and fit their keys. */
export async function checkFiles(
  document: SettingsDocument,
  settings: Settings,
  role?: PeerRole,
): Promise<Problem[]> {
  const { values } = document;
  const problems: Problem[] = [];
  const report: Report = (message, ...path) => {
    // A vhost takes from the top level what it does not name: the same file is wrong once.
    if (!problems.some((problem) => problem.message === message))
      problems.push({ line: document.line(...path), message });
  };
  const usesPasswords = Object.values(settings.profiles).some((profile) => profile.methods.includes('local'));
  if (usesPasswords && uses(role, 'auth')) await checkReadable('users-file', settings.usersFile, report, []);
  if (settings.packagesDir && uses(role, 'downloader') && !(await isFolder(settings.packagesDir))) {
    report(`packages-dir ${settings.packagesDir} is no folder`, 'packages-dir');
  }
  for (const { path, policy } of policyScopes(settings)) {
    const { profileFile } = policy;
    if (profileFile && uses(role, 'downloader'))
      await checkReadable('profile-file', profileFile, report, path);
  }
  await checkClusterFiles(settings, report);
  if (!uses(role, 'tunnel-node')) return problems;
  await checkTlsFiles(settings.tls, report, []);
  for (const [name, vhost] of values.vhosts ?? []) {
    const tls = settings.vhosts[name]?.tls;
    const own = vhost['server-cert'] ?? vhost['server-key'] ?? vhost['ca-cert'] ?? vhost.crl;
    if (tls && own) await checkTlsFiles(tls, report, ['vhosts', name]);
  }
  return problems;
}

/** undefined = one process is all of them. */
function uses(role: PeerRole | undefined, one: PeerRole): boolean {
  return role === undefined || role === one;
}

async function checkClusterFiles({ pki, redis, kafka }: Settings, report: Report): Promise<void> {
  if (pki && Object.values(pki).every((file) => file !== '')) {
    await loadPeerMaterial(pki).catch((error: unknown) =>
      report(error instanceof Error ? error.message : String(error), 'pki'),
    );
  }
  const secrets: [string, string, string][] = [
    ['redis', 'password-file', redis?.passwordFile ?? ''],
    ['redis', 'sentinel-password-file', redis?.sentinelPasswordFile ?? ''],
    ['kafka', 'password-file', kafka?.sasl?.passwordFile ?? ''],
  ];
  for (const [section, key, file] of secrets)
    if (file !== '') await checkReadable(key, file, report, [section]);
}

async function checkTlsFiles(tls: TlsSettings, report: Report, path: string[]): Promise<void> {
  const read = await readTlsFiles(tls);
  if ('files' in read) return;
  for (const { key, message } of read.problems) report(message, ...path, key);
}

async function checkReadable(key: string, file: string, report: Report, path: string[]): Promise<void> {
  const read = await readNamed(file);
  if (typeof read === 'string') report(`${key} ${file} ${read}`, ...path, key);
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

const FAMILIES = { ipv4: 'IPv4', ipv6: 'IPv6' };
