import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { keyPlaces } from '@sallyport/chassis';
import { MAX_BANNER_BYTES } from '@sallyport/protocol';
import { REUSE_DELAY_SECONDS } from './addresses.ts';
import { DEFAULT_GRANT } from './grant-fields.ts';
import { MOST_ISOLATION_SECONDS } from './settings-cluster.ts';
import { exampleSettings } from './settings-example.ts';
import { SETTINGS_KEYS } from './settings-keys.ts';
import {
  parseSettings,
  poolsOf,
  readSettings,
  reloadSettings,
  settingsLine,
  settingsReference,
} from './settings-schema.ts';
import type { SettingsResult } from './settings-schema.ts';
import { fixedAddresses, type Settings } from './settings.ts';

const GOOD = `server-cert: tls/cert.pem
server-key: tls/key.pem
ipv4-network: 10.90.0.0/16
`;

test('a small file gives settings with all defaults', () => {
  const settings = settingsIn(GOOD);
  assert.equal(settings.tcpPort, 443);
  assert.equal(settings.adminAddress, '127.0.0.1:9480');
  assert.deepEqual(settings.tls.certFiles, ['/etc/vpn/tls/cert.pem']);
  assert.equal(settings.usersFile, '/etc/vpn/users');
  assert.equal(settings.defaultProfile, 'default');
  assert.deepEqual(settings.profiles.default?.methods, ['local']);
  assert.deepEqual({ ...settings.policy }, { ipv4Pools: ['10.90.0.0/16'] });
  assert.deepEqual(settings.node, {
    ...{ name: 'gateway', number: 1, slices: 0, advertisedUdpPort: 443 },
    address: '127.0.0.1:9495',
  });
});

test('the defaults of a grant are the documented ones', () => {
  const { dpdSeconds, keepaliveSeconds, mobileDpdSeconds, rekeySeconds, cookieTimeoutSeconds } =
    DEFAULT_GRANT;
  assert.deepEqual(
    [dpdSeconds, keepaliveSeconds, mobileDpdSeconds, rekeySeconds, cookieTimeoutSeconds],
    [20, 20, 1800, 86_400, 300],
  );
  assert.equal(DEFAULT_GRANT.disconnectedTimeoutSeconds, 1800);
  assert.equal(DEFAULT_GRANT.maxSameClients, 3);
  assert.equal(DEFAULT_GRANT.onLimit, 'refuse');
});

test('policy keys stand at every scope and keep their own values only', () => {
  const settings = settingsIn(`${GOOD}
dns: 10.0.0.53
route: [10.0.0.0/255.0.0.0, FD00:0::/32]
profiles:
  staff: { label: "Staff & friends", methods: [local], group: staff, route: default }
  guests: { default: true, allow-groups: guests }
groups: { staff: { dns: [], profile-file: staff.xml }, 100: {} }
users: { alice: { explicit-ipv4: 10.90.1.1, banner: "Hi\\nthere\\n" }, constructor: {} }
vhosts: { VPN.example.org: { server-cert: a.pem, server-key: b.pem, profiles: [staff] } }
`);
  assert.deepEqual(settings.policy.routes, ['10.0.0.0/8', 'fd00::/32']);
  assert.deepEqual(settings.profiles.staff?.policy.routes, []);
  assert.equal(settings.profiles.staff?.label, 'Staff & friends');
  assert.equal(settings.defaultProfile, 'guests');
  assert.deepEqual(settings.profiles.guests?.allowGroups, ['guests']);
  assert.deepEqual({ ...settings.groups.staff }, { dns: [], profileFile: '/etc/vpn/staff.xml' });
  assert.ok(settings.groups['100']);
  assert.deepEqual({ ...settings.users.alice }, { explicitIpv4: '10.90.1.1', banner: 'Hi\nthere' });
  assert.deepEqual(fixedAddresses(settings), ['10.90.1.1']);
  assert.deepEqual({ ...settings.users.constructor }, {});
  assert.ok(!('toString' in settings.users));
  const vhost = settings.vhosts['vpn.example.org'];
  assert.deepEqual(
    [vhost?.tls.certFiles, vhost?.tls.minVersion, vhost?.profiles],
    [['/etc/vpn/a.pem'], 'TLSv1.2', ['staff']],
  );
});

/** What is added to GOOD, and the error that it must bring: its line counts from GOOD's first. */
const MUTATIONS: [text: string, line: number, message: RegExp][] = [
  ['tcp-prot: 443', 4, /unknown key "tcp-prot"; did you mean "tcp-port"\?/],
  ['tcp-port: 0', 4, /tcp-port must be a whole number from 1 to 65535, not 0/],
  ['tcp-port: "443"', 4, /tcp-port must be a whole number .* not "443"/],
  ['tcp-port: 1.5', 4, /tcp-port must be a whole number/],
  ['tcp-port:', 4, /tcp-port has no value/],
  ['tcp-port: {a: 1}', 4, /a map cannot stand here/],
  ['tcp-port: 1\ntcp-port: 2', 5, /stands twice/],
  ['dpd: -1', 4, /dpd must be/],
  ['listen-host: example.org', 4, /is no IP address/],
  ['admin-address: 9480', 4, /admin-address must be HOST:PORT/],
  ['admin-address: "localhost:99999"', 4, /names no port/],
  ['engine: native', 4, /engine "native" is not built yet; write auto or portable/],
  ['listener: native', 4, /listener "native" is not built yet/],
  ['return-path: bgp', 4, /must be one of nat, none, routed/],
  ['nat-addresses: 192.0.2.9-192.0.2.8', 4, /nat-addresses "192.0.2.9-192.0.2.8" is no address and no range/],
  ['nat-addresses: 192.0.2.0/24', 4, /is no address and no range/],
  ['nat-addresses: [192.0.2.8, fd00::8, 192.0.2.9]', 4, /names more than one range of IPv4/],
  ['return-path: routed\nnat-addresses: 192.0.2.8', 5, /nat-addresses needs return-path: nat/],
  ['return-path: nat\nnode: { name: n1, slices: 3 }', 5, /slices needs return-path: routed/],
  ['return-path: routed\nnode: { slices: 257 }', 5, /slices must be a whole number from 0 to 256/],
  ['rekey-method: ssl', 4, /refused: it needs renegotiation/],
  ['rekey-method: none', 4, /refused: Secure Client/],
  ['rekey-time: 0', 4, /rekey-time must be/],
  ['tls-min-version: 1.1', 4, /must be 1.2 or 1.3/],
  ['tls-min-version: 1.3\ntls-max-version: 1.2', 4, /newer than tls-max-version/],
  ['log-level: loud', 4, /must be one of error, warn, info/],
  ['tunnel-all-dns: yes', 4, /must be true or false/],
  ['mtu: 500', 4, /mtu 500 is too small; the least is 576/],
  ['route: [10.0.0.0/8, 10.0.0.1/8]', 4, /route "10.0.0.1\/8" has bits after its prefix; write 10.0.0.0\/8/],
  ['route: [default, 10.0.0.0/8]', 4, /mixes default with networks/],
  ['no-route: default', 4, /is no CIDR/],
  ['dns:\n  - 10.0.0.53\n  - dns.example.org', 6, /dns "dns.example.org" is no IP address/],
  ['nbns: fd00::1', 4, /is no IPv4 address/],
  ['split-dns: ["a b"]', 4, /is no domain name/],
  ['banner: "a\\r\\nSet-Cookie: x"', 4, /must not hold control characters/],
  [`pre-login-banner: ${'é'.repeat(MAX_BANNER_BYTES / 2)}x`, 4, /is 497 bytes long, the limit is 496/],
  ['explicit-ipv4: 10.90.1.1', 4, /"explicit-ipv4" cannot stand at the top level; its place is a user/],
  ['groups: { a: { tcp-port: 443 } }', 4, /"tcp-port" cannot stand in a group; its place is the top level/],
  ['groups: { a: { rout: default } }', 4, /unknown key "rout"; did you mean "route"\?/],
  ['groups: [a]', 4, /must be a map/],
  ['groups: { "a:b": {} }', 4, /"a:b" cannot be the name of a group/],
  ['compression: true', 4, /compression is never offered/],
  ['profiles: { 1st: {} }', 4, /"1st" cannot be the name of a profile/],
  ['profiles: { "a<b": {} }', 4, /cannot be the name of a profile/],
  ['profiles: { auth: {} }', 4, /is a path of the protocol/],
  ['profiles: { VPNManifest.xml: {} }', 4, /is a path of the protocol/],
  ['profiles: { CSCOSSLC: {} }', 4, /is a path of the protocol/],
  ['profiles: { a: { methods: radius } }', 4, /methods "radius" is not built yet/],
  ['profiles: { a: { methods: [local, cretificate] } }', 4, /is no method; did you mean "certificate"\?/],
  ['profiles: { a: { methods: [] } }', 4, /nobody could log in/],
  ['profiles: { a: { methods: [local, local] } }', 4, /names one twice/],
  ['profiles: { a: { methods: certificate } }', 4, /needs ca-cert/],
  ['profiles:\n  a: { group: staff }', 5, /group "staff" does not stand in groups/],
  [
    'profiles:\n  a: { default: true }\n  b:\n    default: true',
    7,
    /profile a is the default already \(line 5\)/,
  ],
  ['profiles:\n  a: { label: X }\n  b: { label: X }', 6, /already is the name or label of profile a/],
  ['profiles:\n  certs: {}\n  CERTS: {}', 6, /"CERTS" and certs have the same path \/certs/],
  ['vhosts: { h.org: { profiles: [nope] } }', 4, /profile "nope" does not stand in profiles/],
  ['vhosts: { h.org: { server-cert: a.pem } }', 4, /each certificate needs its key/],
  ['crl: x.pem', 4, /crl needs ca-cert/],
  ['groups: { a: { ipv4-network: 10.90.7.0/24 } }', 4, /overlaps the pool 10.90.0.0\/16/],
  ['groups: { a: { ipv4-network: fd00::/64 } }', 4, /is no IPv4 network/],
  ['groups: { a: { ipv4-network: 10.91.0.0/31 } }', 4, /prefix length from 8 to 30/],
  ['ipv6-network: fd00::/64\nipv6-subnet-prefix: 64', 4, /does not fit into the pool/],
  ['users: { a: { explicit-ipv4: 10.91.0.1 } }', 4, /lies in no pool/],
  ['users: { a: { explicit-ipv4: 10.90.0.1 } }', 4, /network, broadcast or gateway address/],
  [
    'users:\n  a: { explicit-ipv4: 10.90.1.1 }\n  b: { explicit-ipv4: 10.90.1.1 }',
    6,
    /belongs to user a already/,
  ],
  ['node: { name: "a b" }', 4, /must hold only letters/],
  ['node: { numer: 1 }', 4, /did you mean "number"\?/],
  ['device: this-name-is-too-long', 4, /is no name of a network interface/],
  ['dns: &a 10.0.0.53\nnbns: *a', 5, /aliases are not allowed/],
  ['route: [', 5, /not valid YAML/],
];

for (const [text, line, message] of MUTATIONS) {
  test(`refused: ${text.replaceAll('\n', ' ⏎ ').slice(0, 60)}`, () => {
    const errors = errorsIn(`${GOOD}${text}\n`);
    assert.ok(
      errors.some((error) => error.startsWith(`/etc/vpn/x.yaml:${line}: `) && message.test(error)),
      errors.join('\n'),
    );
  });
}

test('what is missing is named, and all errors come at once', () => {
  const errors = errorsIn('tcp-prot: 1\nudp-port: x\n');
  assert.equal(errors.length, 4);
  assert.ok(errors.some((error) => error.includes('server-cert and server-key are missing')));
  assert.ok(errors.some((error) => error.includes('ipv4-network is missing')));
});

test('a key with a value that is refused is not called missing beside it', () => {
  for (const value of ['7', '[{}]', '&a x', '*b', '']) {
    const errors = errorsIn(`server-cert: a.pem\nserver-key: a.key\nipv4-network: ${value}\n`);
    assert.ok(errors.length > 0 && errors.every((error) => !error.includes('missing')), errors.join('\n'));
  }
  const errors = errorsIn('server-cert: {}\nipv4-network: 10.90.0.0/16\n');
  assert.ok(errors.length > 0 && errors.every((error) => !error.includes('are missing')), errors.join('\n'));
});

test('the example of the first start is good, and its comments are too', () => {
  const example = exampleSettings({ tcpPort: 8443, pool: '10.12.0.0/16', route: '192.168.7.0/24' });
  const settings = settingsIn(example);
  assert.equal(settings.tcpPort, 8443);
  assert.deepEqual(poolsOf(settings), { ipv4: ['10.12.0.0/16'], ipv6: [] });
  assert.deepEqual(settings.policy.routes, ['192.168.7.0/24']);
  assert.equal(settings.defaultProfile, 'staff');
  const uncommented = exampleSettings().replaceAll(/^#(?! )/gm, '');
  assert.equal(settingsIn(uncommented).users.alice?.explicitIpv4, '10.90.1.1');
});

test('a reload takes what may change and names what waits', () => {
  const before = settingsIn(GOOD);
  const after = settingsIn(`${GOOD}tcp-port: 8443\nnode: { name: n2 }\ndpd: 90\nlog-level: debug\n`);
  const { settings, waiting } = reloadSettings(before, after);
  assert.deepEqual(waiting, ['tcp-port', 'node']);
  assert.equal(settings.tcpPort, 443);
  assert.equal(settings.node.name, 'gateway');
  assert.equal(settings.policy.dpdSeconds, 90);
  assert.equal(settings.logLevel, 'debug');
  assert.equal(settings.revision, after.revision);
});

test('a key that another one follows by default is not named beside it', () => {
  const { waiting } = reloadSettings(settingsIn(GOOD), settingsIn(`${GOOD}udp-port: 444\n`));
  assert.deepEqual(waiting, ['udp-port']);
});

test('isolation-limit belongs to a cluster, and leaves addresses a minute to rest', () => {
  assert.equal(settingsIn(GOOD).isolationLimitSeconds, MOST_ISOLATION_SECONDS);
  assert.match(errorsIn(`${GOOD}isolation-limit: 5\n`).join(), /isolation-limit belongs to a cluster/);
  assert.ok(MOST_ISOLATION_SECONDS + 60 <= REUSE_DELAY_SECONDS);
});

test('every key that waits for a start is one that the reload keeps back', () => {
  const changed = settingsIn(`${GOOD}
listen-host: 192.0.2.1
tcp-port: 1
udp-port: 2
admin-address: 127.0.0.1:3
device: tun9
engine: portable
listener: portable
return-path: routed
client-to-client: false
node: { name: n, number: 2, slices: 2, advertised-udp-port: 3 }
users-file: u
redis: { url: "redis://127.0.0.1:6379" }
kafka: { brokers: ["127.0.0.1:9092"] }
pki: { ca: c, cert: d, key: e }
services: { auth: ["127.0.0.1:1"] }
listen: { auth: "127.0.0.1:1" }
`);
  const { waiting } = reloadSettings(settingsIn(`${GOOD}nat-addresses: 192.0.2.8\n`), changed);
  const documented = new Set(
    keyPlaces(SETTINGS_KEYS)
      .filter(({ key }) => !key.reloads)
      .map(({ name }) => name.split('.')[0]),
  );
  assert.deepEqual([...documented].sort(), [...waiting].sort());
});

test('the reference page is the one that the program generates', async () => {
  const page = await readFile(new URL('../../../docs/configuration.md', import.meta.url), 'utf8');
  assert.equal(page, settingsReference(), 'run: bin/sallyport config-reference >docs/configuration.md');
});

test('every key has an example that it takes', () => {
  for (const { name, key } of keyPlaces(SETTINGS_KEYS)) {
    const example = /^\[.*:\d/.test(key.example) ? key.example.replace(/[^[\], ]+/g, '"$&"') : key.example;
    const inside = name
      .split('.')
      .reduceRight((value, part, at) => (at === 0 ? `${part}: ${value}` : `{ ${part}: ${value} }`), example);
    const errors = errorsIn(`${inside}\n`).filter((error) => error.includes(`${name.split('.').at(-1)} `));
    const wrong = errors.filter(
      (error) =>
        !/missing|cannot stand|each certificate|needs|does not stand|kafka: brokers outside/.test(error),
    );
    assert.deepEqual(wrong, [], name);
  }
});

test('files are looked at: missing ones, and a key of another certificate', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-settings-'));
  try {
    for (const name of ['a', 'b']) selfSigned(folder, name);
    await writeFile(join(folder, 'users'), '');
    const file = join(folder, 'x.yaml');
    const pool = 'ipv4-network: 10.90.0.0/16';
    await writeFile(file, `server-cert: a.pem\nserver-key: a.key\n${pool}\n`);
    assert.ok('settings' in (await readSettings(file)));

    await writeFile(
      file,
      `server-cert: a.pem\nserver-key: b.key\n${pool}\nprofile-file: p.xml\npackages-dir: nope\nca-cert: users\n`,
    );
    const result = await readSettings(file);
    const errors = 'errors' in result ? result.errors.map((error) => error.replaceAll(`${folder}/`, '')) : [];
    assert.deepEqual(errors, [
      'x.yaml:2: server-key b.key is not the key of server-cert a.pem',
      'x.yaml:4: profile-file p.xml does not exist',
      'x.yaml:5: packages-dir nope is no folder',
      'x.yaml:6: ca-cert users holds no PEM certificate',
    ]);

    const own = 'vhosts: { h.test: { server-cert: b.pem, server-key: b.key } }';
    const clients = 'ca-cert: a.pem\ncrl: none.crl';
    await writeFile(file, `server-cert: a.pem\nserver-key: a.key\n${pool}\n${clients}\n${own}\n`);
    const once = await readSettings(file);
    assert.deepEqual('errors' in once && once.errors, [`${file}:5: crl ${folder}/none.crl does not exist`]);
    assert.equal(await settingsLine(file, ['crl']), 5);

    const absent = await readSettings(join(folder, 'absent.yaml'));
    assert.ok('errors' in absent && absent.errors.length === 1);
  } finally {
    await rm(folder, { recursive: true });
  }
});

function settingsIn(text: string): Settings {
  const result = parseSettings(text, '/etc/vpn/x.yaml');
  assert.ok('settings' in result, 'errors' in result ? result.errors.join('\n') : '');
  return result.settings;
}

function errorsIn(text: string): string[] {
  const result: SettingsResult = parseSettings(text, '/etc/vpn/x.yaml');
  return 'errors' in result ? result.errors : [];
}

function selfSigned(folder: string, name: string): void {
  const key = [
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-keyout',
    join(folder, `${name}.key`),
  ];
  const out = ['-out', join(folder, `${name}.pem`), '-days', '2', '-subj', `/CN=${name}`];
  execFileSync('openssl', ['req', '-x509', ...key, ...out], { stdio: 'ignore' });
}

const CLUSTER = `${GOOD}redis: { url: "redis://10.0.0.5:6379", password-file: secrets/redis }
pki: { ca: pki/ca.pem, cert: pki/n1.pem, key: pki/n1.key }
services: { auth: ["10.0.0.11:9491", "auth:9491"], portal: "p:1" }
`;

test('a cluster has no default return path, and says what each gives up', () => {
  const [error = '', ...more] = errorsIn(`${CLUSTER}node: { name: n1 }\n`);
  assert.deepEqual(more, []);
  assert.match(error, /:4: return-path is missing.*routed: .*keeps.*nat: .*inner connections are reset/);
  const settings = settingsIn(`${CLUSTER}return-path: nat\nnode: { name: n1, address: "10.0.0.21:9495" }\n`);
  assert.equal(settings.redis?.url, 'redis://10.0.0.5:6379');
  assert.equal(settings.redis.passwordFile, '/etc/vpn/secrets/redis');
  assert.deepEqual(settings.services.auth, ['10.0.0.11:9491', 'auth:9491']);
  assert.deepEqual(settings.services.portal, ['p:1']);
  assert.deepEqual(settings.pki, {
    ca: '/etc/vpn/pki/ca.pem',
    cert: '/etc/vpn/pki/n1.pem',
    key: '/etc/vpn/pki/n1.key',
  });
  assert.equal(settings.node.address, '10.0.0.21:9495');
  assert.equal(settingsIn(GOOD).redis, undefined);
});

test('a node of a cluster has no default name; one gateway by itself has', () => {
  const cluster = `${CLUSTER}return-path: nat\n`;
  for (const text of [cluster, `${cluster}node: { number: 2 }\n`])
    assert.match(
      errorsIn(text).join('\n'),
      /^\S+:4: node: name is missing, and in a cluster it has no default/,
    );
  assert.equal(settingsIn(`${cluster}node: { name: n7 }\n`).node.name, 'n7');
  assert.equal(settingsIn(GOOD).node.name, 'gateway');
});

test('a cluster without certificates, with two stores, or with a password in the open is refused', () => {
  const path = 'return-path: nat\n';
  for (const [text, expected] of [
    [`${GOOD}${path}redis: { url: "redis://h" }\n`, /a cluster needs pki/],
    [
      `${GOOD}${path}redis: { url: "redis://h", sentinels: ["s:1"] }\npki: { ca: a, cert: b, key: c }\n`,
      /needs one of/,
    ],
    [`${GOOD}${path}redis: {}\npki: { ca: a, cert: b, key: c }\n`, /needs one of/],
    [
      `${GOOD}${path}redis: { url: "redis://:secret@h" }\npki: { ca: a, cert: b, key: c }\n`,
      /must not hold a password/,
    ],
    [`${GOOD}services: { auth: ["a:1"] }\n`, /a cluster needs redis/],
    [`${CLUSTER}${path}kafka: { brokers: ["k:9092"] }\n`, /brokers outside this host need sasl/],
    [`${GOOD}pki: { ca: a }\n`, /pki needs cert/],
  ] as const) {
    const errors = errorsIn(text);
    assert.match(errors.join('\n'), expected);
    assert.doesNotMatch(errors.join('\n'), /secret@/);
  }
});
