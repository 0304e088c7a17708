/**
 * Every key of the configuration: type, default, unit, reload, one line, example; its scope is its place in the tree.
 * Key names are ocserv's where the meaning is the same. docs/configuration.md is generated from here.
 */
import {
  choice,
  flag,
  integer,
  lines,
  listOf,
  mapped,
  nearest,
  parsed,
  parsedScalar,
  text,
} from '@sallyport/chassis';
import type { Named, Parsed, Section, Values, ValueType } from '@sallyport/chassis';
import {
  familyOf,
  formatAddress,
  formatCidr,
  formatRange,
  MAX_BANNER_BYTES,
  MIN_TUNNEL_MTU_BYTES,
  parseAddress,
  parseCidr,
  parseRange,
} from '@sallyport/protocol';
import type { IpFamily } from '@sallyport/protocol';
import { MAX_SLICES } from './home-slices.ts';
import { CLUSTER_KEYS, NODE_ADDRESS_KEY } from './settings-cluster.ts';
import { DOMAIN, hostAndPort, key, path } from './settings-values.ts';

// Limits

export const MAX_NAME_BYTES = 64;
const MAX_COUNT = 1_000_000;
const DAY_SECONDS = 86_400;
const YEAR_SECONDS = 365 * DAY_SECONDS;
const MAX_TUNNEL_MTU = 9000;

// Values

const port = integer(1, 65_535);
const count = integer(0, MAX_COUNT);
const seconds = integer(0, YEAR_SECONDS);
const someSeconds = integer(1, YEAR_SECONDS);
const banner = lines(MAX_BANNER_BYTES);

const FAMILIES = { ipv4: 'IPv4', ipv6: 'IPv6' };

function addressOf(family: IpFamily | 'any'): ValueType<string> {
  const what = family === 'any' ? 'IP address' : `${FAMILIES[family]} address`;
  return parsed<string>(`an ${what}`, (value) => {
    const found = parseAddress(value);
    if (!found || (family !== 'any' && familyOf(found) !== family)) return { problem: `is no ${what}` };
    return { value: formatAddress(found) };
  });
}

function readCidr(value: string): Parsed<string> {
  const found = parseCidr(value);
  if (!found) return { problem: 'is no CIDR; write for example 10.0.0.0/8 or fd00::/48' };
  const normal = formatCidr(found);
  const start = parseAddress(value.split('/')[0] ?? '');
  return start && formatAddress(start) === formatAddress(found.network)
    ? { value: normal }
    : { problem: `has bits after its prefix; write ${normal}` };
}

const cidr = parsed<string>('a CIDR', readCidr);

const addressRange = parsed<string>('an address or FIRST-LAST', (value) => {
  const range = parseRange(value);
  return range
    ? { value: formatRange(range) }
    : { problem: 'is no address and no range; write for example 192.0.2.8-192.0.2.15' };
});

function pool(family: IpFamily, shortest: number, longest: number): ValueType<string> {
  const what = `${FAMILIES[family]} network`;
  return mapped<string, string>(cidr, `an ${what} as a CIDR, /${shortest} to /${longest}`, (value) => {
    const found = parseCidr(value);
    if (found?.family !== family) return { problem: `is no ${what}` };
    const fits = found.prefixLength >= shortest && found.prefixLength <= longest;
    return fits ? { value } : { problem: `must have a prefix length from ${shortest} to ${longest}` };
  });
}

const DEFAULT_ROUTE = 'default';
const routes = mapped<string[], string[]>(
  listOf(parsed<string>('a CIDR', (value) => (value === DEFAULT_ROUTE ? { value } : readCidr(value)))),
  'a CIDR, a list of such, or default (everything)',
  (list) => {
    if (!list.includes(DEFAULT_ROUTE)) return { value: list };
    return list.length > 1
      ? { problem: 'mixes default with networks; default is everything already' }
      : { value: [] };
  },
);

const mtu = mapped<number, number>(
  integer(0, MAX_TUNNEL_MTU),
  `0, or a whole number from ${MIN_TUNNEL_MTU_BYTES} to ${MAX_TUNNEL_MTU}`,
  (value) =>
    value === 0 || value >= MIN_TUNNEL_MTU_BYTES
      ? { value }
      : { problem: `is too small; the least is ${MIN_TUNNEL_MTU_BYTES}` },
);

const domain = parsed<string>('a domain name', (value) =>
  value === '' || DOMAIN.test(value) ? { value } : { problem: 'is no domain name' },
);

const tlsVersion = parsedScalar<'TLSv1.2' | 'TLSv1.3'>('1.2 or 1.3', (value) => {
  if (value === '1.2' || value === 'TLSv1.2') return { value: 'TLSv1.2' };
  if (value === '1.3' || value === 'TLSv1.3') return { value: 'TLSv1.3' };
  return { problem: 'must be 1.2 or 1.3; older versions are not spoken' };
});

/** Profile names stand in XML and in paths (`/staff`). */
const profileName = parsed<string>('a name', (value) => {
  if (!/^[A-Za-z_][A-Za-z0-9._-]*$/.test(value)) {
    return {
      problem:
        'must begin with a letter or _ and hold only letters, digits and . _ - (the label may hold anything)',
    };
  }
  return Buffer.byteLength(value) > MAX_NAME_BYTES
    ? { problem: `is longer than ${MAX_NAME_BYTES} bytes` }
    : { value };
});

/** As they stand in a users-file, where `:` and `,` separate. */
const accountName = parsed<string>('a name', (value) => {
  if (value === '' || /[\u0000-\u0020\u007f:,]/.test(value))
    return { problem: 'must not be empty nor hold spaces, control characters, : or ,' };
  return Buffer.byteLength(value) > MAX_NAME_BYTES
    ? { problem: `is longer than ${MAX_NAME_BYTES} bytes` }
    : { value };
});

const hostName = parsed<string>('a host name', (value) =>
  DOMAIN.test(value) ? { value: value.toLowerCase() } : { problem: 'is no host name' },
);

const nodeName = parsed<string>('a name of letters, digits, . and -', (value) =>
  /^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$/.test(value)
    ? { value }
    : { problem: 'must hold only letters, digits, . and -, at most 63' },
);

const deviceName = parsed<string>('the name of a network interface, at most 15 characters', (value) =>
  /^[A-Za-z0-9_.-]{1,15}$/.test(value)
    ? { value }
    : { problem: 'is no name of a network interface (at most 15 characters)' },
);

const METHODS = ['local', 'certificate'];
const METHODS_TO_COME = ['radius', 'ldap', 'saml', 'oidc', 'totp', 'pam', 'gssapi'];
const method = parsed<string>(`one of ${METHODS.join(', ')}`, (value) => {
  if (METHODS.includes(value)) return { value };
  if (METHODS_TO_COME.includes(value))
    return { problem: `is not built yet; there are ${METHODS.join(' and ')}` };
  const meant = nearest(value, METHODS);
  return {
    problem: `is no method; ${meant ? `did you mean "${meant}"?` : `there are ${METHODS.join(' and ')}`}`,
  };
});

/** A choice of which some are refused, with why. */
function choiceBut<T extends string>(refused: Record<string, string>, ...names: T[]): ValueType<T> {
  const type = choice(...names);
  return parsed<T>(type.says, (value) => {
    const why = Object.hasOwn(refused, value) ? refused[value] : undefined;
    if (why) return { problem: why };
    const known = names.find((name) => name === value);
    return known === undefined ? { problem: `must be ${type.says}` } : { value: known };
  });
}

// Keys

const TLS_KEYS = {
  'server-cert': key(listOf(path), [], {
    about: 'PEM files with a certificate and its chain; one per key type (RSA and ECDSA together).',
    example: 'tls/cert.pem',
  }),
  'server-key': key(listOf(path), [], {
    about: 'PEM files with the private keys, in the order of server-cert.',
    example: 'tls/key.pem',
  }),
  'ca-cert': key(path, '', {
    about: 'PEM file of the CAs for client certificates; without it none are asked for.',
    example: 'tls/clients-ca.pem',
  }),
  crl: key(path, '', {
    about: 'PEM or DER file of revoked client certificates.',
    example: 'tls/clients.crl',
  }),
  'tls-min-version': key(tlsVersion, 'TLSv1.2', {
    defaultText: '`1.2`',
    about: 'Oldest TLS version.',
    example: '1.2',
  }),
  'tls-max-version': key(tlsVersion, 'TLSv1.3', {
    defaultText: '`1.3`',
    about: 'Newest TLS version.',
    example: '1.3',
  }),
};

/** May stand at the top, in a profile, a group and a user: the narrowest wins. */
const POLICY = {
  'ipv4-network': key(listOf(pool('ipv4', 8, 30)), [], {
    unit: 'CIDR',
    about:
      'Pools that IPv4 addresses of clients come from, in order of preference. A pool that is new needs a restart, and a reload refuses it.',
    example: '10.90.0.0/16',
  }),
  'ipv6-network': key(listOf(pool('ipv6', 16, 126)), [], {
    unit: 'CIDR',
    about:
      'Pools that IPv6 addresses of clients come from. A pool that is new needs a restart, and a reload refuses it.',
    example: 'fd90:1::/48',
  }),
  'ipv6-subnet-prefix': key(integer(64, 128), 128, {
    unit: 'bits',
    about: 'Size of the IPv6 prefix that each client gets.',
    example: '64',
  }),
  route: key(routes, [], {
    unit: 'CIDR',
    defaultText: '`default`',
    about: 'Networks that clients reach through the tunnel.',
    example: '[10.0.0.0/8, fd00::/8]',
  }),
  'no-route': key(listOf(cidr), [], {
    unit: 'CIDR',
    about: 'Networks that stay outside the tunnel.',
    example: '[192.168.0.0/16]',
  }),
  dns: key(listOf(addressOf('any')), [], { about: 'DNS servers for clients.', example: '[10.0.0.53]' }),
  nbns: key(listOf(addressOf('ipv4')), [], { about: 'WINS servers for clients.', example: '[10.0.0.54]' }),
  'default-domain': key(domain, '', {
    about: 'Domain that clients add to short names.',
    example: 'example.org',
  }),
  'split-dns': key(listOf(domain), [], {
    about: 'Domains that clients ask our DNS servers for; none = all.',
    example: '[example.org]',
  }),
  'tunnel-all-dns': key(flag, false, { about: 'All DNS queries go through the tunnel.', example: 'true' }),
  'client-bypass-protocol': key(flag, false, {
    about:
      'Traffic of an IP version for which the client has no address goes outside the tunnel (false: it is dropped).',
    example: 'true',
  }),
  mtu: key(mtu, 0, {
    unit: 'bytes',
    defaultText: 'as computed',
    about: 'Upper limit of the MTU inside the tunnel; 0 = as computed for each client.',
    example: '1400',
  }),
  dpd: key(integer(0, DAY_SECONDS), 20, {
    unit: 'seconds',
    about: 'How often a silent peer is asked whether it lives; 0 = never.',
    example: '20',
  }),
  'mobile-dpd': key(integer(0, DAY_SECONDS), 1800, {
    unit: 'seconds',
    about: 'The same for mobile clients, whose radio sleeps.',
    example: '1800',
  }),
  keepalive: key(integer(0, DAY_SECONDS), 20, {
    unit: 'seconds',
    about: 'How often clients send a packet that keeps NATs open; 0 = never.',
    example: '20',
  }),
  'idle-timeout': key(seconds, 0, {
    unit: 'seconds',
    about: 'A session without data ends after this time; 0 = never.',
    example: '1800',
  }),
  'mobile-idle-timeout': key(seconds, 0, {
    unit: 'seconds',
    about: 'The same for mobile clients; 0 = never.',
    example: '2400',
  }),
  'session-timeout': key(seconds, 0, {
    unit: 'seconds',
    about: 'A session ends this long after its login; 0 = never.',
    example: '43200',
  }),
  'cookie-timeout': key(someSeconds, 300, {
    unit: 'seconds',
    about: 'How long a login may wait for its first tunnel.',
    example: '300',
  }),
  'disconnected-timeout': key(someSeconds, 1800, {
    unit: 'seconds',
    about:
      'How long a session whose tunnel was lost is kept, so that its client comes back without a password.',
    example: '1800',
  }),
  'rekey-time': key(integer(10, YEAR_SECONDS), 86_400, {
    unit: 'seconds',
    about: 'How often clients make new keys.',
    example: '86400',
  }),
  'rekey-method': key(
    choiceBut(
      {
        ssl: 'is refused: it needs renegotiation, which TLS 1.3 does not have; write new-tunnel',
        none: 'is refused: Secure Client rejects a gateway without rekeying; write new-tunnel',
      },
      'new-tunnel',
    ),
    'new-tunnel',
    { about: 'How clients make new keys; only new-tunnel.', example: 'new-tunnel' },
  ),
  'max-same-clients': key(count, 3, {
    about: 'Sessions with a tunnel per user at the same time; 0 = no limit.',
    example: '3',
  }),
  'on-limit': key(choice('refuse', 'replace-oldest'), 'refuse', {
    about: 'What happens to one session more than max-same-clients.',
    example: 'replace-oldest',
  }),
  banner: key(banner, '', {
    about: 'Text that clients show after the login.',
    example: 'Authorised use only.',
  }),
  'no-udp': key(flag, false, { about: 'No DTLS for these clients.', example: 'true' }),
  'profile-file': key(path, '', {
    about: 'Client profile (AnyConnectProfile XML) that clients download.',
    example: 'profiles/staff.xml',
  }),
};

const USER_KEYS = {
  ...POLICY,
  'explicit-ipv4': key(addressOf('ipv4'), '', {
    about: 'Fixed IPv4 address of this user, inside a pool.',
    example: '10.90.1.1',
  }),
  'explicit-ipv6': key(addressOf('ipv6'), '', {
    about: 'Fixed IPv6 address of this user, inside a pool.',
    example: 'fd90:1::1:1',
  }),
};

const PROFILE_KEYS = {
  label: key(text(MAX_NAME_BYTES), '', {
    defaultText: 'the name',
    about: 'What users see in the list.',
    example: 'Staff',
  }),
  methods: key(listOf(method), ['local'], {
    about:
      'Who checks the login; several must all agree and name the same user. With certificate alone every good certificate logs in, also of a user who is not in users-file; who is locked there is refused.',
    example: '[certificate, local]',
  }),
  group: key(accountName, '', {
    defaultText: "the user's own",
    about: 'Group whose policy applies here; it must stand in groups.',
    example: 'staff',
  }),
  'allow-groups': key(listOf(accountName), [], {
    defaultText: 'everybody',
    about: 'Groups of users-file that may enter.',
    example: '[staff, admins]',
  }),
  default: key(flag, false, {
    defaultText: 'the first profile',
    about: 'Chosen when a client names no profile; one profile at most.',
    example: 'true',
  }),
  ...POLICY,
};

const VHOST_KEYS = {
  ...TLS_KEYS,
  profiles: key(listOf(profileName), [], {
    defaultText: 'all',
    about: 'Profiles that are offered under this name.',
    example: '[staff]',
  }),
};

const NODE_KEYS = {
  name: key(nodeName, 'gateway', {
    reloads: false,
    defaultText: '`gateway`; in a cluster none',
    about: 'Name of this node, its own in a cluster; it stays over restarts.',
    example: 'n1',
  }),
  number: key(integer(1, 65_535), 1, {
    reloads: false,
    about: 'Number of this node, part of the DTLS ids that it hands out.',
    example: '1',
  }),
  slices: key(integer(0, MAX_SLICES), 0, {
    reloads: false,
    defaultText: 'each client is announced alone',
    about:
      'With return-path routed: in how many slices the nodes share the pools, the same in all nodes; as many as there are nodes. A node gives addresses of the slice of its number first and announces it as a whole; only clients away from home need a route of their own (docs/return-path.md). A node with a higher number has no slice.',
    example: '3',
  }),
  'advertised-udp-port': key(integer(0, 65_535), 0, {
    reloads: false,
    defaultText: 'udp-port',
    about: 'UDP port that clients are told; 0 = udp-port.',
    example: '443',
  }),
  address: NODE_ADDRESS_KEY,
};

const NOT_BUILT_NATIVE = { native: 'is not built yet; write auto or portable' };

export const SETTINGS_KEYS = {
  'listen-host': key(addressOf('any'), '', {
    reloads: false,
    defaultText: 'all addresses',
    about: 'Address to listen on.',
    example: '192.0.2.1',
  }),
  'tcp-port': key(port, 443, { reloads: false, about: 'TCP port of the gateway.', example: '443' }),
  'udp-port': key(integer(0, 65_535), 443, {
    reloads: false,
    about: 'UDP port for DTLS; 0 = none. DTLS is not built yet.',
    example: '443',
  }),
  'admin-address': key(hostAndPort, '127.0.0.1:9480', {
    reloads: false,
    about: 'Where health and metrics are served, by plain HTTP.',
    example: '127.0.0.1:9480',
  }),
  ...TLS_KEYS,
  device: key(deviceName, 'sallyport0', {
    reloads: false,
    about: 'Name of the TUN device.',
    example: 'vpn0',
  }),
  engine: key(choiceBut(NOT_BUILT_NATIVE, 'auto', 'portable', 'native'), 'auto', {
    reloads: false,
    about: 'What moves packets.',
    example: 'auto',
  }),
  listener: key(choiceBut(NOT_BUILT_NATIVE, 'auto', 'portable', 'native'), 'auto', {
    reloads: false,
    about: 'What accepts connections and speaks TLS.',
    example: 'auto',
  }),
  'return-path': key(choice('nat', 'none', 'routed'), 'nat', {
    reloads: false,
    about:
      'How answers find back to clients (docs/return-path.md). nat: the node translates; when a client moves to another node it keeps address and login, but its open connections are reset. routed: the node sets a kernel route for each client, which a routing daemon spreads; open connections survive a move, but the network must take a route per client, or with node.slices one per client that is away from home. none: the node sets nothing; you have routes to the pools, and make them follow a client that moves. In a cluster (with redis) it must be given.',
    example: 'routed',
  }),
  'nat-addresses': key(listOf(addressRange), [], {
    reloads: false,
    about:
      'With return-path nat: what clients are translated to, one address or range for IPv4 and one for IPv6. The network must deliver them to this node. Without: the address of the interface that packets leave by.',
    example: '192.0.2.8-192.0.2.15',
  }),
  'client-to-client': key(flag, true, {
    reloads: false,
    about:
      'Whether clients reach each other, also on different nodes (that needs return-path routed); false = packets from the pools to the pools are dropped, except those from and to the gateway itself.',
    example: 'false',
  }),
  node: { kind: 'section', about: 'This node of a cluster.', keys: NODE_KEYS } satisfies Section<
    typeof NODE_KEYS
  >,

  ...CLUSTER_KEYS,

  'users-file': key(path, 'users', {
    reloads: false,
    about:
      'Users, groups and password hashes, in lines as ocpasswd writes them; `sallyport user` changes it. In a cluster all replicas of auth read the same, and what `sallyport user` changes wins over it.',
    example: 'users',
  }),
  'packages-dir': key(path, '', {
    about: 'Folder of client packages to offer for update.',
    example: 'packages',
  }),
  'pre-login-banner': key(banner, '', {
    about: 'Text that clients show before the login.',
    example: 'Authorised use only.',
  }),
  'cert-user-field': key(choice('CN', 'UID', 'SAN(rfc822name)', 'SAN(upn)'), 'CN', {
    about: 'Field of a client certificate that names the user.',
    example: 'UID',
  }),
  strap: key(choice('off', 'lenient', 'strict'), 'lenient', {
    about:
      'Binding of sessions to a key of the client: off, lenient (checked when the client offers it), strict (a CONNECT without a good proof is refused, also from clients that know nothing of it).',
    example: 'strict',
  }),
  'auth-timeout': key(integer(10, DAY_SECONDS), 240, {
    unit: 'seconds',
    about: 'How long a login may take.',
    example: '240',
  }),
  'max-login-tries': key(integer(1, 100), 3, {
    about: 'Wrong answers in one login before it ends.',
    example: '3',
  }),
  'max-clients': key(count, 0, { about: 'Sessions with a tunnel in all; 0 = no limit.', example: '1000' }),
  'connects-per-token': key(count, 10, {
    unit: 'per minute',
    about: 'Tunnels that one session may open; 0 = no limit.',
    example: '10',
  }),
  'max-connections-per-address': key(count, 1024, {
    about: 'Connections at once from one client address; 0 = no limit. Many clients can share one address.',
    example: '0',
  }),
  'max-logins-per-address': key(count, 256, {
    about: 'Pending logins from one client address; 0 = no limit.',
    example: '0',
  }),
  'trusted-proxies': key(listOf(cidr), [], {
    unit: 'CIDR',
    about:
      'Balancers that forward TCP and begin each connection with a PROXY header (version 1 or 2), which says whose it is. From them a connection without it is refused; from others one with it.',
    example: '[192.0.2.10/32, 2001:db8::/64]',
  }),
  'log-level': key(choice('error', 'warn', 'info', 'debug', 'trace'), 'info', {
    about: 'How much is logged.',
    example: 'debug',
  }),

  ...POLICY,

  profiles: {
    kind: 'named',
    scope: 'profile',
    name: profileName,
    keys: PROFILE_KEYS,
    about:
      'connection profiles by name: what users choose from. Without it there is one, `default`, with the method `local`.',
  } satisfies Named<typeof PROFILE_KEYS>,
  groups: {
    kind: 'named',
    scope: 'group',
    name: accountName,
    keys: POLICY,
    about: 'policy of groups by name.',
  } satisfies Named<typeof POLICY>,
  users: {
    kind: 'named',
    scope: 'user',
    name: accountName,
    keys: USER_KEYS,
    about: 'policy of users by name; their passwords live in `users-file`.',
  } satisfies Named<typeof USER_KEYS>,
  vhosts: {
    kind: 'named',
    scope: 'vhost',
    name: hostName,
    keys: VHOST_KEYS,
    about:
      'other names of this gateway with their own certificates; absent keys are those of the top level. Example: `vhosts: { vpn.example.org: { server-cert: tls/org.pem, server-key: tls/org.key, profiles: [staff] } }`.',
  } satisfies Named<typeof VHOST_KEYS>,
};

export const POLICY_KEYS = USER_KEYS;
export type PolicyValues = Values<typeof USER_KEYS>;
export type TlsValues = Values<typeof TLS_KEYS>;
export type SettingsValues = Values<typeof SETTINGS_KEYS>;

/** Keys that ocserv knows and we spell or do otherwise. */
export const OCSERV_HINTS: ReadonlyMap<string, string> = new Map([
  ['auth', 'methods stand in profiles'],
  ['enable-auth', 'methods stand in profiles'],
  ['ipv4-netmask', 'write ipv4-network as a CIDR'],
  ['ipv6-prefix', 'write ipv6-network as a CIDR'],
  ['ipv4-dns', 'write dns'],
  ['ipv6-dns', 'write dns'],
  ['select-group', 'write profiles'],
  ['default-select-group', 'write default: true in a profile'],
  ['config-per-user', 'write users'],
  ['config-per-group', 'write groups'],
  ['cert-user-oid', 'write cert-user-field'],
  ['compression', 'compression is never offered'],
  ['tls-priorities', 'write tls-min-version and tls-max-version'],
  ['socket-file', 'the socket is sallyport.sock in the state folder'],
  ['occtl-socket-file', 'the socket is sallyport.sock in the state folder'],
  ['run-as-user', 'the gateway runs as it was started'],
  ['run-as-group', 'the gateway runs as it was started'],
]);
