import type { Grant } from '@sallyport/protocol';
import type { ClusterSettings } from './settings-cluster.ts';

/**
 * The configuration document as the services see it: parsed, with defaults, paths absolute.
 * Made by `settings-schema.ts` from one YAML file; see docs/configuration.md for keys, units, scopes and reload.
 */
export interface Settings extends ClusterSettings {
  /** Absolute path of the file it was read from. */
  file: string;
  /** Short hash of the document: shown by `show status`, metrics and events. */
  revision: string;

  listenHost: string;
  tcpPort: number;
  /** UDP comes with the native engine; kept so that configurations stay valid. */
  udpPort: number;
  /** health and metrics: `HOST:PORT`. */
  adminAddress: string;
  tls: TlsSettings;
  device: string;
  engine: 'auto' | 'portable' | 'native';
  listener: 'auto' | 'portable' | 'native';
  returnPath: 'nat' | 'none' | 'routed';
  /** With `nat`: addresses or FIRST-LAST to translate to, one per family at most; none = the address of the way out. */
  natAddresses: string[];
  clientToClient: boolean;
  node: {
    name: string;
    number: number;
    /** In how many slices the nodes share the pools; 0 = none (home-slices.ts). */
    slices: number;
    advertisedUdpPort: number;
    /** Where other nodes reach the gRPC of this one. */
    address: string;
  };

  usersFile: string;
  /** Folder of client packages; '' = none: the "no update" path. */
  packagesDir: string;
  preLoginBanner: string;
  /** Certificate field that holds the user name. */
  certUserField: 'CN' | 'UID' | 'SAN(rfc822name)' | 'SAN(upn)';
  strap: 'off' | 'lenient' | 'strict';
  authTimeoutSeconds: number;
  maxLoginTries: number;
  maxClients: number;
  connectsPerTokenPerMinute: number;
  maxConnectionsPerAddress: number;
  maxLoginsPerAddress: number;
  /** CIDRs of balancers whose PROXY header says who the client is; from anybody else there is none. */
  trustedProxies: string[];
  logLevel: 'error' | 'warn' | 'info' | 'debug' | 'trace';

  profiles: Record<string, ProfileSettings>;
  /** Name of the profile that is chosen when the client names none. */
  defaultProfile: string;
  /** Policy keys at the top level. */
  policy: PolicyKeys;
  groups: Record<string, PolicyKeys>;
  users: Record<string, PolicyKeys>;
  vhosts: Record<string, VhostSettings>;
}

export interface TlsSettings {
  /** One or several (RSA and ECDSA together), in the order of `server-key`. PEM files with their chains. */
  certFiles: string[];
  keyFiles: string[];
  /** CAs for client certificates; '' = none are asked for. */
  caFile: string;
  crlFile: string;
  minVersion: 'TLSv1.2' | 'TLSv1.3';
  maxVersion: 'TLSv1.2' | 'TLSv1.3';
}

export interface VhostSettings {
  tls: TlsSettings;
  /** Names of profiles offered under this name; empty = all. */
  profiles: string[];
}

export interface ProfileSettings {
  name: string;
  label: string;
  /** All of them must succeed and name the same user. */
  methods: string[];
  /** Group whose policy applies; '' = the user's own group. */
  group: string;
  /** Groups that may enter; empty = every user. The group of `users-file` counts. */
  allowGroups: string[];
  policy: PolicyKeys;
}

/** Policy keys set at one scope: those that are absent come from the next wider one. `group` is not a key. */
export type PolicyKeys = Partial<Omit<Grant, 'group'>>;

/** Every place of the configuration where policy stands, the widest first; `path` is where, as in the YAML. */
export function policyScopes(settings: Settings): { path: string[]; policy: PolicyKeys }[] {
  const profiles = Object.values(settings.profiles).map(({ name, policy }) => [name, policy] as const);
  const [groups, users] = [Object.entries(settings.groups), Object.entries(settings.users)];
  return scopesOf<PolicyKeys>(settings.policy, { profiles, groups, users });
}

/** The same for a configuration that is not read yet: `named` by the key that names stand under. */
export function scopesOf<P>(
  top: P,
  named: Record<'profiles' | 'groups' | 'users', Iterable<readonly [string, P]> | undefined>,
): { path: string[]; policy: P }[] {
  const scopes = Object.entries(named).flatMap(([key, all]) =>
    Array.from(all ?? [], ([name, policy]) => ({ path: [key, name], policy })),
  );
  return [{ path: [], policy: top }, ...scopes];
}

/** Fixed addresses of both families, whoever they are for. */
export function fixedAddresses(settings: Settings): string[] {
  return policyScopes(settings)
    .flatMap(({ policy: { explicitIpv4 = '', explicitIpv6 = '' } }) => [explicitIpv4, explicitIpv6])
    .filter((address) => address !== '');
}
