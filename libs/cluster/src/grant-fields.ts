/**
 * Each field of a Grant and the key of the configuration that sets it, once: from here are the policies of a
 * configuration, the defaults, what a journal reads and what tests begin with. Type and default are the key's.
 */
import type { Key } from '@sallyport/chassis';
import type { Grant } from '@sallyport/protocol';
import { POLICY_KEYS } from './settings-keys.ts';
import type { PolicyValues } from './settings-keys.ts';
import type { PolicyKeys } from './settings.ts';

/** `group` is none: no key sets it, it tells which group's keys applied. */
export type PolicyField = keyof Required<PolicyKeys>;

const KEY_OF: { readonly [F in PolicyField]: KeyFor<Grant[F]> } = {
  ipv4Pools: 'ipv4-network',
  ipv6Pools: 'ipv6-network',
  ipv6SubnetPrefix: 'ipv6-subnet-prefix',
  explicitIpv4: 'explicit-ipv4',
  explicitIpv6: 'explicit-ipv6',
  routes: 'route',
  noRoutes: 'no-route',
  dns: 'dns',
  nbns: 'nbns',
  defaultDomain: 'default-domain',
  splitDns: 'split-dns',
  tunnelAllDns: 'tunnel-all-dns',
  clientBypassProtocol: 'client-bypass-protocol',
  mtuBytes: 'mtu',
  dpdSeconds: 'dpd',
  mobileDpdSeconds: 'mobile-dpd',
  keepaliveSeconds: 'keepalive',
  idleTimeoutSeconds: 'idle-timeout',
  mobileIdleTimeoutSeconds: 'mobile-idle-timeout',
  sessionTimeoutSeconds: 'session-timeout',
  cookieTimeoutSeconds: 'cookie-timeout',
  disconnectedTimeoutSeconds: 'disconnected-timeout',
  rekeySeconds: 'rekey-time',
  maxSameClients: 'max-same-clients',
  onLimit: 'on-limit',
  banner: 'banner',
  noUdp: 'no-udp',
  profileFile: 'profile-file',
};

/** The keys whose values fit a field. */
type KeyFor<T> = {
  [N in keyof typeof POLICY_KEYS]: (typeof POLICY_KEYS)[N] extends Key<T> ? N : never;
}[keyof typeof POLICY_KEYS];

/** In the order of a Grant. Object.keys does not know that no other key can be there. */
export const POLICY_FIELDS = Object.keys(KEY_OF) as PolicyField[];

/** What a session may use where the configuration says nothing. */
export const DEFAULT_GRANT: Readonly<Grant> = {
  group: '',
  // The type of KEY_OF proves that each default is one of its field.
  ...(Object.fromEntries(
    POLICY_FIELDS.map((field) => [field, POLICY_KEYS[KEY_OF[field]].default]),
  ) as unknown as Omit<Grant, 'group'>),
};

export const GRANT_FIELDS: readonly (keyof Grant)[] = ['group', ...POLICY_FIELDS];

/** One value for each field, in the order of a Grant. */
export function forGrantFields<T>(value: (field: keyof Grant) => T): Record<keyof Grant, T> {
  return Object.fromEntries(GRANT_FIELDS.map((field) => [field, value(field)])) as Record<keyof Grant, T>;
}

/** Keys of a policy, and where a Grant has them. */
export function policyKeyNames(): [key: string, field: PolicyField][] {
  return POLICY_FIELDS.map((field) => [KEY_OF[field], field]);
}

/** What one scope of the configuration sets; paths as they stand there. */
export function policyFields(values: PolicyValues): PolicyKeys {
  const set = POLICY_FIELDS.map((field) => [field, values[KEY_OF[field]]] as const);
  return Object.fromEntries(set.filter(([, value]) => value !== undefined));
}

/** Could this be the value of that field? By its kind: a stored Grant outlives the limits that its keys have now. */
export function isGrantValue(field: keyof Grant, value: unknown): boolean {
  if (field === 'onLimit') return value === 'refuse' || value === 'replace-oldest';
  const like = DEFAULT_GRANT[field];
  if (Array.isArray(like)) return Array.isArray(value) && value.every((item) => typeof item === 'string');
  if (typeof like === 'number') return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
  return typeof value === typeof like;
}
