import 'reflect-metadata';
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { NestFactory } from '@nestjs/core';
import { AuthController, hashPassword, openAuth } from '@sallyport/auth';
import { createLog, Metrics } from '@sallyport/chassis';
import {
  hashToken,
  MemoryEventLog,
  MemorySessions,
  parseSettings,
  type InsideRequest,
  type InsideResponse,
} from '@sallyport/cluster';
import { DownloaderController, DownloaderModule, openDownloader } from '@sallyport/downloader';
import { PortalController, PortalModule } from '@sallyport/portal';
import { childOf, parseXml, withoutXmlDeclaration, type XmlElement } from '@sallyport/protocol';

/* Phases 2 to 4 through the real services, without an edge: what the portal shows is what auth decides. */

let portal: PortalController;
let downloader: DownloaderController;
let sessions: MemorySessions;
let folder = '';
const closers: (() => Promise<void>)[] = [];

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sallyport-login-'));
  const hash = await hashPassword(PASSWORD, { kind: 'scrypt', logN: 4, blockSize: 1, passes: 1 });
  await writeFile(join(folder, 'users'), `carol:eng:${hash}\n`, { mode: 0o600 });
  await writeFile(join(folder, 'eng.xml'), PROFILE);
  const parsed = parseSettings(SETTINGS, join(folder, 'sallyport.yaml'));
  assert.ok('settings' in parsed, JSON.stringify(parsed));
  const { settings } = parsed;
  const log = createLog({ name: 'test', level: 'silent' });
  const events = new MemoryEventLog();
  sessions = await MemorySessions.open({ events });
  const parts = await openAuth({ settings: () => settings, sessions, events, metrics: new Metrics(), log });
  const auth = new AuthController(parts);
  const downloads = await openDownloader({ settings, auth, log });
  const served = await NestFactory.createApplicationContext(DownloaderModule.with(downloads), {
    logger: false,
  });
  const shown = await NestFactory.createApplicationContext(
    PortalModule.with({ auth, catalog: downloads.catalog, log }),
    { logger: false },
  );
  downloader = served.get(DownloaderController);
  portal = shown.get(PortalController);
  closers.push(
    () => shown.close(),
    () => served.close(),
    () => parts.close(),
    () => sessions.close(),
    () => rm(folder, { recursive: true }),
  );
});
after(async () => {
  for (const close of closers) await close();
});

test('group, wrong password, right password, profile, logout: each step knows the one before by opaque alone', async () => {
  const first = documentOf(await post(xml('init', '')));
  assert.deepEqual(groupsOf(first), ['Staff', 'Engineering']);
  const chosen = documentOf(await post(xml('init', '<group-select>Engineering</group-select>')));
  assert.deepEqual(groupsOf(chosen), ['Engineering', 'Staff']);

  const wrong = documentOf(await post(replyTo(chosen, 'wrong')));
  assert.equal(find(wrong, 'auth', 'error')?.text, 'Login failed.');
  const answer = await post(replyTo(wrong, PASSWORD));
  const document = documentOf(answer);
  assert.equal(find(document, 'auth')?.attributes.get('id'), 'success');
  assert.equal(find(document, 'auth', 'banner')?.text, 'Be welcome.');

  const token = find(document, 'session-token')?.text ?? '';
  assert.equal((await sessions.find(hashToken(token)))?.user, 'carol');
  const file = find(document, 'config', 'vpn-profile-manifest', 'vpn', 'file', 'uri')?.text ?? '';
  const fetched = await downloader.handle(request('GET', file, { cookie: `webvpn=${token}` }));
  assert.equal(bodyOf(fetched), PROFILE);

  await post(xml('logout', `<session-token>${token}</session-token>`));
  assert.equal((await sessions.find(hashToken(token)))?.state, 'closed');
  assert.equal((await downloader.handle(request('GET', file, { cookie: `webvpn=${token}` }))).status, 401);
});

test('a form of the older kind logs in by cookie alone, and at once without any form before', async () => {
  const first = await portal.handle(request('GET', '/', { 'x-transcend-version': '1' }));
  const cookie = first.headers.find(([name]) => name === 'Set-Cookie')?.[1].split(';')[0] ?? '';
  const body = `group_list=eng&username=carol&password=${encodeURIComponent(PASSWORD)}`;
  for (const headers of [{ cookie }, {}] as Record<string, string>[]) {
    const document = documentOf(await post(body, headers));
    assert.equal(find(document, 'auth')?.attributes.get('id'), 'success');
  }
});

test('the last try is refused with a text and without a form', async () => {
  let document = documentOf(await post(xml('init', '')));
  for (let tries = 0; tries < 3; tries += 1) document = documentOf(await post(replyTo(document, 'wrong')));
  assert.equal(find(document, 'auth', 'form'), undefined);
  assert.match(find(document, 'auth', 'error')?.text ?? '', /tries/);
});

test('a group URL shows no list and is carried on by the form', async () => {
  const document = documentOf(await post(xml('init', ''), {}, '/eng'));
  assert.deepEqual(groupsOf(document), []);
  assert.equal(find(document, 'auth', 'form')?.attributes.get('action'), '/eng');
  const done = documentOf(await post(replyTo(document, PASSWORD), {}, '/eng'));
  assert.equal(find(done, 'auth')?.attributes.get('id'), 'success');
});

test('what opaque says besides the handle changes nothing', async () => {
  const form = documentOf(await post(xml('init', '')));
  const forged = replyTo(form, PASSWORD).replace(
    '<opaque>',
    '<opaque><tunnel-group>eng</tunnel-group><group-alias>Engineering</group-alias>',
  );
  const token = find(documentOf(await post(forged)), 'session-token')?.text ?? '';
  assert.equal((await sessions.find(hashToken(token)))?.profile, 'staff');
});

const PASSWORD = `p<&>"';ä%s +1`;
const PROFILE = `<AnyConnectProfile><ServerList><HostEntry><HostName>Gate</HostName>
<HostAddress>gate.example.test</HostAddress></HostEntry></ServerList></AnyConnectProfile>\r\n`;
const SETTINGS = `
users-file: users
server-cert: cert.pem
server-key: key.pem
banner: Be welcome.
ipv4-network: 10.90.0.0/24
profiles:
  staff: { label: Staff, methods: [local], default: true }
  eng: { label: Engineering, methods: [local], profile-file: eng.xml }
`;
const xml = (type: string, inner: string) =>
  `<config-auth client="vpn" type="${type}">${inner}</config-auth>`;

function replyTo(form: XmlElement, password: string): string {
  const handle = find(form, 'opaque', 'aggauth-handle')?.text ?? '';
  const escaped = password.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  return xml(
    'auth-reply',
    `<opaque><aggauth-handle>${handle}</aggauth-handle></opaque>` +
      `<auth><username>carol</username><password>${escaped}</password></auth>`,
  );
}

function post(body: string, headers: Record<string, string> = {}, target = '/'): Promise<InsideResponse> {
  return portal.handle({ ...request('POST', target, headers), body: Buffer.from(body) });
}

function request(method: string, target: string, headers: Record<string, string> = {}): InsideRequest {
  const facts = {
    clientAddress: '192.0.2.7',
    serverName: '',
    servedLeafSha1: 'A'.repeat(40),
    tlsVersion: 'TLSv1.3',
  };
  return { method, target, headers, body: new Uint8Array(), facts };
}

function bodyOf({ body }: InsideResponse): string {
  assert.ok(body instanceof Uint8Array);
  return Buffer.from(body).toString();
}

function documentOf(answer: InsideResponse): XmlElement {
  return parseXml(withoutXmlDeclaration(bodyOf(answer)));
}

function groupsOf(document: XmlElement): string[] {
  return (find(document, 'auth', 'form', 'select')?.children ?? []).map(({ text }) => text);
}

function find(root: XmlElement, ...path: string[]): XmlElement | undefined {
  return path.reduce<XmlElement | undefined>((element, name) => childOf(element, name), root);
}
