/**
 * From one YAML file to `Settings`:
 * 1. read it against the keys of settings-keys.ts (unknown keys, wrong values);
 * 2. check what goes across keys (settings-checks.ts);
 * 3. look at the files that it names (settings-checks.ts; only `readSettings`);
 * 4. with no problem found: defaults in, paths absolute.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { problemTexts, readDocument, referenceMarkdown } from '@sallyport/chassis';
import type { ConfigDocument } from '@sallyport/chassis';
import { policyFields } from './grant-fields.ts';
import { checkAcrossKeys, checkFiles } from './settings-checks.ts';
import { kafkaProblems, type KafkaSettings } from './kafka-settings.ts';
import type { PeerRole } from './peers.ts';
import { clusterSettingsOf } from './settings-cluster.ts';
import { OCSERV_HINTS, SETTINGS_KEYS } from './settings-keys.ts';
import type { PolicyValues, SettingsValues, TlsValues } from './settings-keys.ts';
import { policyScopes } from './settings.ts';
import type { PolicyKeys, ProfileSettings, Settings, TlsSettings, VhostSettings } from './settings.ts';

export type SettingsResult = { settings: Settings } | { errors: string[] };

/**
 * Reads and checks one file, and the files that it names. Errors are `FILE:LINE: message`, all of them.
 * @param role only what this role of a cluster uses must be there: one file serves all roles, the files beside it do not.
 */
export async function readSettings(file: string, role?: PeerRole): Promise<SettingsResult> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    return { errors: [`${file}: cannot be read: ${error instanceof Error ? error.message : String(error)}`] };
  }
  const document = checkedDocument(text, role);
  const problems = [
    ...document.problems,
    ...(await checkFiles(document, settingsOf(document.values, text, file), role)),
  ];
  return problems.length > 0
    ? { errors: problemTexts(file, problems) }
    : { settings: settingsOf(document.values, text, file) };
}

/**
 * The section `kafka` alone: for who reads events, and has nothing else of a cluster on his machine.
 * @returns errors as of `readSettings`.
 */
export async function readKafkaSettings(
  file: string,
): Promise<{ kafka: KafkaSettings } | { errors: string[] }> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    return { errors: [`${file}: cannot be read: ${error instanceof Error ? error.message : String(error)}`] };
  }
  const document = readDocument(text, SETTINGS_KEYS, OCSERV_HINTS);
  const { kafka } = clusterSettingsOf(document.values, dirname(resolve(file)));
  const problems = [...document.problems];
  const report = (message: string) => problems.push({ line: document.line('kafka'), message });
  if (!kafka) report('there is no section kafka, which says where the events are');
  else if (problems.length === 0) kafkaProblems(kafka).forEach(report);
  return kafka && problems.length === 0 ? { kafka } : { errors: problemTexts(file, problems) };
}

/** The same for a text, without a look at the files that it names. `file` is for messages and relative paths. */
export function parseSettings(text: string, file: string, role?: PeerRole): SettingsResult {
  const document = checkedDocument(text, role);
  if (document.problems.length > 0) return { errors: problemTexts(file, document.problems) };
  return { settings: settingsOf(document.values, text, file) };
}

/** Has this text a section `redis`, whatever else is wrong with it? Then it is the configuration of a cluster. */
export function isClusterText(text: string): boolean {
  return readDocument(text, SETTINGS_KEYS, OCSERV_HINTS).values.redis !== undefined;
}

/**
 * What a reload takes: everything of `after` but the keys that need a new start, which stay as they were.
 * @returns the settings to use, and the names of the changed keys that wait for the next start.
 */
export function reloadSettings(before: Settings, after: Settings): { settings: Settings; waiting: string[] } {
  const settings = { ...after };
  const waiting: string[] = [];
  for (const [key, field] of Object.entries(START_ONLY)) {
    if (isDeepStrictEqual(written(before, field), written(after, field))) continue;
    Object.assign(settings, { [field]: before[field] });
    waiting.push(key);
  }
  return { settings, waiting };
}

/** A value without what it takes from other keys: they are named by themselves. */
function written(settings: Settings, field: keyof Settings): unknown {
  const { node, udpPort, listen } = settings;
  if (field !== 'node') return settings[field];
  return {
    ...node,
    advertisedUdpPort: node.advertisedUdpPort === udpPort ? 0 : node.advertisedUdpPort,
    address: node.address === listen.node ? '' : node.address,
  };
}

/** Networks of all scopes, each once: what the TUN device routes and `return-path: nat` covers. */
export function poolsOf(settings: Settings): { ipv4: string[]; ipv6: string[] } {
  const policies = policyScopes(settings).map(({ policy }) => policy);
  return {
    ipv4: [...new Set(policies.flatMap((policy) => policy.ipv4Pools ?? []))],
    ipv6: [...new Set(policies.flatMap((policy) => policy.ipv6Pools ?? []))],
  };
}

/** Line of the file where a key stands, or the nearest above it; 1 when the file cannot be read any more. */
export async function settingsLine(file: string, path: readonly string[]): Promise<number> {
  const text = await readFile(file, 'utf8').catch(() => '');
  return checkedDocument(text).line(...path);
}

/** Files that the settings name and that a reload reads anew. */
export function namedFiles(settings: Settings): string[] {
  const hosts = [settings.tls, ...Object.values(settings.vhosts).map(({ tls }) => tls)];
  const tls = hosts.flatMap(({ certFiles, keyFiles, caFile, crlFile }) => [
    ...certFiles,
    ...keyFiles,
    caFile,
    crlFile,
  ]);
  const profiles = policyScopes(settings).map(({ policy }) => policy.profileFile ?? '');
  return [...new Set([...tls, ...profiles])].filter((file) => file !== '');
}

/** docs/configuration.md. */
export function settingsReference(): string {
  return referenceMarkdown(SETTINGS_KEYS, 'Configuration', REFERENCE_INTRODUCTION);
}

function checkedDocument(text: string, role?: PeerRole): ConfigDocument<typeof SETTINGS_KEYS> {
  const document = readDocument(text, SETTINGS_KEYS, OCSERV_HINTS);
  return { ...document, problems: [...document.problems, ...checkAcrossKeys(document, role)] };
}

function settingsOf(values: SettingsValues, text: string, file: string): Settings {
  const base = dirname(resolve(file));
  const tls = tlsOf(values, base);
  const profiles = profilesOf(values, base);
  const udpPort = values['udp-port'] ?? SETTINGS_KEYS['udp-port'].default;
  const node = values.node ?? {};
  const nodeKeys = SETTINGS_KEYS.node.keys;
  const cluster = clusterSettingsOf(values, base);
  return {
    file: resolve(file),
    revision: createHash('sha256').update(text).digest('hex').slice(0, REVISION_LENGTH),
    listenHost: values['listen-host'] ?? SETTINGS_KEYS['listen-host'].default,
    tcpPort: values['tcp-port'] ?? SETTINGS_KEYS['tcp-port'].default,
    udpPort,
    adminAddress: values['admin-address'] ?? SETTINGS_KEYS['admin-address'].default,
    tls,
    device: values.device ?? SETTINGS_KEYS.device.default,
    engine: values.engine ?? SETTINGS_KEYS.engine.default,
    listener: values.listener ?? SETTINGS_KEYS.listener.default,
    returnPath: values['return-path'] ?? SETTINGS_KEYS['return-path'].default,
    natAddresses: values['nat-addresses'] ?? SETTINGS_KEYS['nat-addresses'].default,
    clientToClient: values['client-to-client'] ?? SETTINGS_KEYS['client-to-client'].default,
    ...cluster,
    node: {
      name: node.name ?? nodeKeys.name.default,
      number: node.number ?? nodeKeys.number.default,
      slices: node.slices ?? nodeKeys.slices.default,
      advertisedUdpPort: node['advertised-udp-port'] || udpPort,
      address: node.address || cluster.listen.node,
    },
    usersFile: absolute(base, values['users-file'] ?? SETTINGS_KEYS['users-file'].default),
    packagesDir: absolute(base, values['packages-dir'] ?? SETTINGS_KEYS['packages-dir'].default),
    preLoginBanner: values['pre-login-banner'] ?? SETTINGS_KEYS['pre-login-banner'].default,
    certUserField: values['cert-user-field'] ?? SETTINGS_KEYS['cert-user-field'].default,
    strap: values.strap ?? SETTINGS_KEYS.strap.default,
    authTimeoutSeconds: values['auth-timeout'] ?? SETTINGS_KEYS['auth-timeout'].default,
    maxLoginTries: values['max-login-tries'] ?? SETTINGS_KEYS['max-login-tries'].default,
    maxClients: values['max-clients'] ?? SETTINGS_KEYS['max-clients'].default,
    connectsPerTokenPerMinute: values['connects-per-token'] ?? SETTINGS_KEYS['connects-per-token'].default,
    maxConnectionsPerAddress:
      values['max-connections-per-address'] ?? SETTINGS_KEYS['max-connections-per-address'].default,
    maxLoginsPerAddress: values['max-logins-per-address'] ?? SETTINGS_KEYS['max-logins-per-address'].default,
    trustedProxies: values['trusted-proxies'] ?? SETTINGS_KEYS['trusted-proxies'].default,
    logLevel: values['log-level'] ?? SETTINGS_KEYS['log-level'].default,
    profiles,
    defaultProfile: defaultProfileOf(values) ?? Object.keys(profiles)[0] ?? DEFAULT_PROFILE,
    policy: policyOf(values, base),
    groups: mapNames(values.groups, (group) => policyOf(group, base)),
    users: mapNames(values.users, (user) => policyOf(user, base)),
    vhosts: mapNames(values.vhosts, (vhost): VhostSettings => ({
      tls: tlsOf(vhost, base, tls),
      profiles: vhost.profiles ?? [],
    })),
  };
}

function profilesOf(values: SettingsValues, base: string): Record<string, ProfileSettings> {
  const none: NonNullable<SettingsValues['profiles']> = new Map([[DEFAULT_PROFILE, {}]]);
  const keys = SETTINGS_KEYS.profiles.keys;
  return mapNames(values.profiles?.size ? values.profiles : none, (profile, name) => ({
    name,
    label: profile.label || name,
    methods: profile.methods ?? keys.methods.default,
    group: profile.group ?? keys.group.default,
    allowGroups: profile['allow-groups'] ?? keys['allow-groups'].default,
    policy: policyOf(profile, base),
  }));
}

function defaultProfileOf(values: SettingsValues): string | undefined {
  return [...(values.profiles ?? [])].find(([, profile]) => profile.default)?.[0];
}

function tlsOf(values: TlsValues, base: string, wider?: TlsSettings): TlsSettings {
  const files = (names: string[] | undefined) => names?.map((name) => resolve(base, name));
  const file = (name: string | undefined) => (name === undefined ? undefined : absolute(base, name));
  return {
    certFiles: files(values['server-cert']) ?? wider?.certFiles ?? [],
    keyFiles: files(values['server-key']) ?? wider?.keyFiles ?? [],
    caFile: file(values['ca-cert']) ?? wider?.caFile ?? '',
    crlFile: file(values.crl) ?? wider?.crlFile ?? '',
    minVersion: values['tls-min-version'] ?? wider?.minVersion ?? SETTINGS_KEYS['tls-min-version'].default,
    maxVersion: values['tls-max-version'] ?? wider?.maxVersion ?? SETTINGS_KEYS['tls-max-version'].default,
  };
}

function policyOf(values: PolicyValues, base: string): PolicyKeys {
  const policy = policyFields(values);
  return policy.profileFile === undefined
    ? policy
    : { ...policy, profileFile: absolute(base, policy.profileFile) };
}

function absolute(base: string, path: string): string {
  return path === '' ? '' : resolve(base, path);
}

function mapNames<V, R>(
  all: Map<string, V> | undefined,
  make: (value: V, name: string) => R,
): Record<string, R> {
  // Without a prototype: names come from operators and from clients, `constructor` is one like any other.
  const result = Object.create(null) as Record<string, R>;
  for (const [name, value] of all ?? []) result[name] = make(value, name);
  return result;
}

const DEFAULT_PROFILE = 'default';
const REVISION_LENGTH = 12;

/** Keys that need a new start, and where `Settings` has them. */
const START_ONLY = {
  'listen-host': 'listenHost',
  'tcp-port': 'tcpPort',
  'udp-port': 'udpPort',
  'admin-address': 'adminAddress',
  device: 'device',
  engine: 'engine',
  listener: 'listener',
  'return-path': 'returnPath',
  'nat-addresses': 'natAddresses',
  'client-to-client': 'clientToClient',
  node: 'node',
  redis: 'redis',
  kafka: 'kafka',
  pki: 'pki',
  services: 'services',
  listen: 'listen',
  'users-file': 'usersFile',
} as const satisfies Record<string, keyof Settings>;

const REFERENCE_INTRODUCTION = `
One YAML file, by default \`sallyport.yaml\` in the state folder. Generated from the program; do not edit.

- \`sallyport check-config FILE\` checks a file and shows all errors at once, each with its line. An unknown key is an error.
- Paths are relative to the file.
- \`sallyport reload\` (or SIGHUP) takes the keys that are marked so; with an error in the file the old configuration stays.
- A key may stand in the scopes of its section. Of a policy key the narrowest wins: global, profile, group, user. A list
  replaces the wider one as a whole; an empty list or text takes it away.
- Where a list is meant, one value may stand alone.

Scopes other than the top level:
`;
