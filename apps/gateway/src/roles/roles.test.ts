import 'reflect-metadata';
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { hashPassword, MemoryLogins } from '@sallyport/auth';
import { createLog, Supervision } from '@sallyport/chassis';
import {
  hashToken,
  httpUpstream,
  initAuthority,
  issueCertificate,
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
    const of = (key: string) => explained.values.find((value) => value.key === key);
    assert.deepEqual(of('dpd'), { key: 'dpd', value: '33', scope: 'group', name: 'staff' });
    assert.deepEqual(of('mtu'), { key: 'mtu', value: '0', scope: 'default', name: '' });
    assert.deepEqual((await client.listAccounts()).accounts, [
      { name: 'carol', groups: ['staff'], locked: false },
    ]);
  } finally {
    client.close();
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
  const at = (port: string) => `"127.0.0.1:${ports[port] ?? 0}"`;
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
  if (name === 'auth-2') world.socket = join(stateDir, 'sallyport.sock');
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
  const addresses = names.map((name) => `127.0.0.1:${world.ports[name] ?? 0}`);
  const { upstream: ask, close } = httpUpstream({ role, addresses, certificates });
  closers.push(close);
  return ask;
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
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

function replyTo(form: XmlElement, password: string): string {
  const handle = find(form, 'opaque', 'aggauth-handle')?.text ?? '';
  return xml(
    'auth-reply',
    `<opaque><aggauth-handle>${handle}</aggauth-handle></opaque>` +
      `<auth><username>carol</username><password>${password}</password></auth>`,
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
const PASSWORD = randomBytes(12).toString('hex');
const PROFILE = `<AnyConnectProfile><ServerList><HostEntry><HostName>Gate</HostName>
<HostAddress>gate.example.test</HostAddress></HostEntry></ServerList></AnyConnectProfile>\r\n`;
const FACTS = {
  clientAddress: '192.0.2.7',
  serverName: '',
  servedLeafSha1: 'A'.repeat(40),
  tlsVersion: 'TLSv1.3',
};
