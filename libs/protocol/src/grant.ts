/**
 * What a session may use. Plain data: made by policy in apps/auth, stored with the session, read at CONNECT.
 * A list that is empty and a text that is '' mean "nothing of that kind"; times are seconds and 0 means "no limit" or "off".
 */
export interface Grant {
  /** Group whose policy applied ('' if none). */
  group: string;
  /** CIDRs that addresses are taken from, in order of preference. */
  ipv4Pools: string[];
  ipv6Pools: string[];
  /** Size of the IPv6 prefix that each client gets: 64 to 128. */
  ipv6SubnetPrefix: number;
  /** A fixed address for this user; '' = from a pool. */
  explicitIpv4: string;
  explicitIpv6: string;
  /** CIDRs through the tunnel; empty = everything. */
  routes: string[];
  /** CIDRs outside the tunnel. */
  noRoutes: string[];
  dns: string[];
  nbns: string[];
  defaultDomain: string;
  splitDns: string[];
  tunnelAllDns: boolean;
  clientBypassProtocol: boolean;
  /** Upper limit of the tunnel MTU in bytes; 0 = as computed. */
  mtuBytes: number;
  dpdSeconds: number;
  mobileDpdSeconds: number;
  keepaliveSeconds: number;
  idleTimeoutSeconds: number;
  mobileIdleTimeoutSeconds: number;
  sessionTimeoutSeconds: number;
  /** How long a login may wait for its first CONNECT. */
  cookieTimeoutSeconds: number;
  /** How long a parked session is kept. */
  disconnectedTimeoutSeconds: number;
  rekeySeconds: number;
  /** Sessions with a tunnel per user at the same time; 0 = no limit. */
  maxSameClients: number;
  onLimit: 'refuse' | 'replace-oldest';
  /** Shown after the login; '' = none. */
  banner: string;
  noUdp: boolean;
  /** Path of the client profile (AnyConnectProfile XML); '' = none. */
  profileFile: string;
}

/** Where one value of a Grant came from, the narrowest scope last. */
export interface Origin {
  scope: 'default' | 'global' | 'profile' | 'group' | 'user';
  /** Name of the profile, group or user; '' for default and global. */
  name: string;
}

export type GrantOrigins = Record<keyof Grant, Origin>;
