import 'reflect-metadata';
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { hashPassword, MemoryLogins } from '@sallyport/auth';
import { createLog, Supervision } from '@sallyport/chassis';
import {
  ACCOUNT_WIRE,
  accountClient,
  hashToken,
  httpUpstream,
  initAuthority,
  issueCertificate,
  LoginFailures,
  MemoryAccountRecords,
  MemoryCounters,
  MemoryEventLog,
  MemoryNodes,
  MemorySessions,
  PeerCertificates,
  ServiceUnavailable,
  systemClock,
  type InsideRequest,
  type InsideResponse,
  type PeerRole,
  type Upstream,
} from '@sallyport/cluster';
import { childOf, parseXml, withoutXmlDeclaration, type XmlElement } from '@sallyport/protocol';
import type { Running } from '../wiring.ts';
import { AdminClient } from '../cli/admin-client.ts';
import { startAuth } from './auth.ts';
import { startDownloader } from './downloader.ts';
import { startPortal } from './portal.ts';
import type { ClusterStore, RoleOptions } from './role.ts';

/*
 * Two auths, two portals and a downloader as the roles start them, on real sockets with certificates of a real CA; only the
 * store is one in memory, which they share. What an edge would send goes in by its own client.
 */

const world = { folder: '', ports: {} as Record<string, number>, socket: '' };
let store: ClusterStore & { sessions: MemorySessions };
let portal: Upstream;
let downloader: Upstream;
const running = new Map<string, Running>();
const closers: (() => void | Promise<void>)[] = [];
const log = createLog({ name: 'test', level: 'silent' });

before(async () => {
  world.folder = await mkdtemp(join(tmpdir(), 'sallyport-roles-'));
  const { folder } = world;
  const pki = join(folder, 'pki');
  await initAuthority(pki, { cluster: 'test' });
  const hash = await hashPassword(PASSWORD, { kind: 'scrypt', logN: 4, blockSize: 1, passes: 1 });
  await writeFile(join(folder, 'users'), `carol:staff:${hash}\n`, { mode: 0o600 });
  await writeFile(join(folder, 'staff.xml'), PROFILE);
  const events = new MemoryEventLog();
  store = {
    sessions: await MemorySessions.open({ events }),
    logins: new MemoryLogins(Date.now),
    records: new MemoryAccountRecords({ events }),
    failures: new LoginFailures(new MemoryCounters()),
    nodes: new MemoryNodes(systemClock()),
    events,
    close: async () => undefined,
  };
  for (const name of NAMES) world.ports[name] = await freePort();
  await Promise.all([
    start('auth-1', 'auth', startAuth),
    start('auth-2', 'auth', startAuth),
    start('portal-1', 'portal', startPortal),
    start('portal-2', 'portal', startPortal),
    start('downloader-1', 'downloader', startDownloader),
  ]);
  const node = await certificate('n1', ['tunnel-node']);
  [portal, downloader] = [upstream('portal', node), upstream('downloader', node)];
});

after(async () => {
  for (const close of closers.reverse()) await close();
  await Promise.all([...running.values()].map((role) => role.close()));
  await store.sessions.close();
  await rm(world.folder, { recursive: true });
});

test('a login, its profile and its logout go through all services, each step to whichever replica', async () => {
  const form = documentOf(await post(xml('init', '')));
  const wrong = documentOf(await post(replyTo(form, 'wrong')));
  assert.equal(find(wrong, 'auth', 'error')?.text, 'Login failed.');
  const document = documentOf(await post(replyTo(wrong, PASSWORD)));
  const token = find(document, 'session-token')?.text ?? '';
  assert.equal((await store.sessions.find(hashToken(token)))?.user, 'carol');
  const file = find(document, 'config', 'vpn-profile-manifest', 'vpn', 'file', 'uri')?.text ?? '';
  const fetched = await downloader(request('GET', file, { cookie: `webvpn=${token}` }));
  assert.equal(textOf(fetched), PROFILE);
  await post(xml('logout', `<session-token>${token}</session-token>`));
  assert.equal((await store.sessions.find(hashToken(token)))?.state, 'closed');
  assert.equal((await downloader(request('GET', file, { cookie: `webvpn=${token}` }))).status, 401);
});

test('who has no certificate, one of another CA, or one of another role gets nothing from a portal', async () => {
  const other = join(world.folder, 'other');
  await initAuthority(other, { cluster: 'other' });
  await issueCertificate(other, { name: 'n1', roles: ['tunnel-node'], hosts: [], days: 1 });
  const files = { ca: join(other, 'ca.pem'), cert: join(other, 'n1.pem'), key: join(other, 'n1.key') };
  const strangers = [
    await PeerCertificates.open(files, log),
    // With our CA, so that only the portal's check is left.
    await PeerCertificates.open({ ...files, ca: join(world.folder, 'pki', 'ca.pem') }, log),
    await certificate('d9', ['downloader']),
  ];
  for (const stranger of strangers) {
    closers.push(() => stranger.close());
    await assert.rejects(
      upstream('portal', stranger)(request('POST', '/', {}, xml('init', ''))),
      ServiceUnavailable,
    );
  }
});

test('explain user says why the last login failed and who set what, over the socket of auth', async () => {
  const form = documentOf(await post(xml('init', '')));
  await post(replyTo(form, 'wrong'));
  const client = await AdminClient.open(world.socket);
  try {
    const explained = await client.explainUser({ user: 'carol', profile: '' });
    assert.equal(explained.failure?.reason, 'login-failed');
    assert.equal(explained.failure?.address, FACTS.clientAddress);
    const of = (key: string) => explained.policy.values.find((value) => value.key === key);
    assert.deepEqual(of('dpd'), { key: 'dpd', value: '33', scope: 'group', name: 'staff' });
    assert.deepEqual(of('mtu'), { key: 'mtu', value: '0', scope: 'default', name: '' });
    assert.deepEqual((await client.listAccounts()).accounts, [
      { name: 'carol', groups: ['staff'], locked: false },
    ]);
  } finally {
    client.close();
  }
});

test('failures are counted over all replicas, and who explains a user shows them', async () => {
  const client = await AdminClient.open(world.socket);
  try {
    const counted = async () => (await client.explainUser({ user: 'carol', profile: '' })).counts.user;
    const before = await counted();
    let form = documentOf(await post(xml('init', '')));
    for (const _ of [1, 2, 3]) {
      form = documentOf(await post(replyTo(form, 'wrong')));
      if (!find(form, 'opaque')) form = documentOf(await post(xml('init', '')));
    }
    await until(async () => (await counted()) === before + 3);
  } finally {
    client.close();
  }
});

test('what one auth is told of a user counts at the other, ends his sessions, and is a fact', async () => {
  const [first, second] = await Promise.all(
    ['auth-1', 'auth-2'].map((name) => AdminClient.open(socketOf(name))),
  );
  assert.ok(first && second);
  try {
    const change = (client: AdminClient, verb: string, password = '') =>
      client.changeAccount({ verb, name: 'dave', groups: verb === 'add' ? ['staff'] : [], password });
    assert.deepEqual(await change(first, 'add', PASSWORD), { problem: '' });
    assert.match((await change(second, 'add', PASSWORD)).problem, /'dave' exists already/);
    assert.deepEqual(await second.listAccounts(), await first.listAccounts());
    const session = await loggedIn('dave');
    assert.deepEqual(await change(second, 'lock'), { problem: '' });
    assert.equal((await store.sessions.get(session))?.endReason, 'user-locked');
    assert.equal((await first.explainUser({ user: 'dave', profile: '' })).policy.locked, true);
    await change(first, 'delete');
    assert.match((await change(second, 'unlock')).problem, /there is no user 'dave'/);
    const facts = store.events.recent(1000).filter((fact) => fact.type === 'admin.changed');
    assert.deepEqual(
      facts.flatMap((fact) => (fact.subject === 'dave' ? [fact.verb] : [])),
      ['user-add', 'user-lock', 'user-delete'],
    );
    assert.ok(!JSON.stringify(facts, (_, value: unknown) => String(value)).includes(PASSWORD));
  } finally {
    first.close();
    second.close();
  }
});

test('a tunnel node may list users and lock them, and nothing else', async () => {
  const peer = await certificate('n2', ['tunnel-node']);
  const addresses = ['auth-1', 'auth-2'].map((name) => `${HOST}:${world.ports[name] ?? 0}`);
  const accounts = await accountClient({ addresses, certificates: peer });
  const admin = await AdminClient.open(world.socket);
  try {
    await admin.changeAccount({ verb: 'add', name: 'erin', groups: [], password: PASSWORD });
    assert.ok((await accounts.list()).some(({ name }) => name === 'erin'));
    assert.equal((await accounts.explain('erin', '')).known, true);
    for (const order of [
      { verb: 'add', name: 'eve', groups: [], password: PASSWORD },
      { verb: 'passwd', name: 'erin', password: 'another' },
      { verb: 'unlock', name: 'erin' },
      { verb: 'delete', name: 'erin' },
    ] as const)
      await assert.rejects(accounts.apply(order), /a tunnel node may lock users and change nothing else/);
    const contract = await readFile(ACCOUNT_WIRE.protoPath, 'utf8');
    assert.deepEqual(
      [...contract.matchAll(/rpc (\w+)/g)].map(([, name]) => name),
      ['ListAccounts', 'LockAccount', 'ExplainPolicy'],
      'there is no other call that a node that is not ours any more could make',
    );
    await accounts.apply({ verb: 'lock', name: 'erin' });
    assert.equal((await accounts.list()).find(({ name }) => name === 'erin')?.locked, true);
    await assert.rejects(accounts.apply({ verb: 'lock', name: 'eve' }), /there is no user 'eve'/);
  } finally {
    accounts.close();
    admin.close();
  }
});

test('one auth and one portal end in the middle of a login: the others finish it', async () => {
  const form = documentOf(await post(xml('init', '')));
  await stop('auth-1');
  await stop('portal-1');
  const document = documentOf(await post(replyTo(form, PASSWORD)));
  assert.equal(find(document, 'auth')?.attributes.get('id'), 'success');
});

test('without any auth a login is refused with a reason, at once', async () => {
  await stop('auth-2');
  await assert.rejects(post(xml('init', '')), (error) => {
    assert.ok(error instanceof ServiceUnavailable);
    assert.equal(error.reason, 'service-unavailable');
    return true;
  });
});

async function start(
  name: string,
  role: PeerRole,
  startRole: (options: RoleOptions) => Promise<Running>,
): Promise<void> {
  const { folder, ports } = world;
  const stateDir = join(folder, name);
  await mkdir(stateDir, { mode: 0o700 });
  await certificate(name, [role]);
  const config = join(folder, `${name}.yaml`);
  const at = (port: string) => `"${HOST}:${ports[port] ?? 0}"`;
  await writeFile(
    config,
    `ipv4-network: 10.90.0.0/24
return-path: nat
users-file: users
admin-address: ${at(`${name}-admin`)}
log-level: error
redis: { url: "redis://127.0.0.1:1" }
pki: { ca: pki/ca.pem, cert: pki/${name}.pem, key: pki/${name}.key }
services:
  auth: [${at('auth-1')}, ${at('auth-2')}]
  portal: [${at('portal-1')}, ${at('portal-2')}]
  downloader: [${at('downloader-1')}]
  catalog: [${at('catalog')}]
listen: { ${role}: ${at(name)}, catalog: ${at('catalog')} }
profile-file: staff.xml
groups: { staff: { dpd: 33 } }
`,
  );
  const supervision = Supervision.take({}, process.pid);
  running.set(name, await startRole({ config, stateDir, supervision, openStore: async () => store }));
  if (name === 'auth-2') world.socket = socketOf(name);
}

function socketOf(name: string): string {
  return join(world.folder, name, 'sallyport.sock');
}

/** @returns the id of the session. */
async function loggedIn(user: string): Promise<string> {
  const form = documentOf(await post(xml('init', '')));
  const document = documentOf(await post(replyTo(form, PASSWORD, user)));
  const session = await store.sessions.find(hashToken(find(document, 'session-token')?.text ?? ''));
  return session?.id ?? assert.fail('no session');
}

async function until(reached: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await reached())) {
    assert.ok(Date.now() < deadline, 'it did not come to pass');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function stop(name: string): Promise<void> {
  await running.get(name)?.close();
  running.delete(name);
}

async function certificate(name: string, roles: PeerRole[]): Promise<PeerCertificates> {
  const pki = join(world.folder, 'pki');
  await issueCertificate(pki, { name, roles, hosts: [], days: 2 });
  const files = { ca: join(pki, 'ca.pem'), cert: join(pki, `${name}.pem`), key: join(pki, `${name}.key`) };
  const opened = await PeerCertificates.open(files, log);
  closers.push(() => opened.close());
  return opened;
}

function upstream(role: 'portal' | 'downloader', certificates: PeerCertificates): Upstream {
  const names = role === 'portal' ? ['portal-1', 'portal-2'] : ['downloader-1'];
  const addresses = names.map((name) => `${HOST}:${world.ports[name] ?? 0}`);
  const { upstream: ask, close } = httpUpstream({ role, addresses, certificates });
  closers.push(close);
  return ask;
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, HOST, () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === 'object' ? (address?.port ?? 0) : 0));
    });
  });
}

function request(
  method: string,
  target: string,
  headers: Record<string, string> = {},
  body = '',
): InsideRequest {
  return {
    method,
    target,
    headers: { 'user-agent': 'AnyConnect Linux_64 4.10', ...headers },
    body: new TextEncoder().encode(body),
    facts: FACTS,
  };
}

function post(body: string): Promise<InsideResponse> {
  return portal(request('POST', '/', { 'x-aggregate-auth': '1', 'x-transcend-version': '1' }, body));
}

function xml(type: string, inner: string): string {
  return `<config-auth client="vpn" type="${type}">${inner}</config-auth>`;
}

function replyTo(form: XmlElement, password: string, user = 'carol'): string {
  const handle = find(form, 'opaque', 'aggauth-handle')?.text ?? '';
  return xml(
    'auth-reply',
    `<opaque><aggauth-handle>${handle}</aggauth-handle></opaque>` +
      `<auth><username>${user}</username><password>${password}</password></auth>`,
  );
}

function documentOf(answer: InsideResponse): XmlElement {
  assert.equal(answer.status, 200, textOf(answer));
  return parseXml(withoutXmlDeclaration(textOf(answer)));
}

function textOf({ body }: InsideResponse): string {
  assert.ok(body instanceof Uint8Array);
  return new TextDecoder().decode(body);
}

function find(element: XmlElement, ...path: string[]): XmlElement | undefined {
  return path.reduce<XmlElement | undefined>((at, name) => (at ? childOf(at, name) : undefined), element);
}

const NAMES = ['auth-1', 'auth-2', 'portal-1', 'portal-2', 'downloader-1', 'catalog'].flatMap((name) => [
  name,
  `${name}-admin`,
]);
/** No connection of anybody begins there, so none takes a port that was free a moment ago. */
const HOST = '127.0.0.4';
const PASSWORD = randomBytes(12).toString('hex');
const PROFILE = `<AnyConnectProfile><ServerList><HostEntry><HostName>Gate</HostName>
<HostAddress>gate.example.test</HostAddress></HostEntry></ServerList></AnyConnectProfile>\r\n`;
const FACTS = {
  clientAddress: '192.0.2.7',
  serverName: '',
  servedLeafSha1: 'A'.repeat(40),
  tlsVersion: 'TLSv1.3',
};
