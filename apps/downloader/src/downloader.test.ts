import 'reflect-metadata';
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Client, credentials } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { NestFactory } from '@nestjs/core';
import { Transport, type MicroserviceOptions } from '@nestjs/microservices';
import { createLog } from '@sallyport/chassis';
import { CATALOG_WIRE, fromWire, parseSettings } from '@sallyport/cluster';
import type {
  AuthService,
  InsideRequest,
  InsideResponse,
  LookupResponse,
  Settings,
} from '@sallyport/cluster';
import {
  CatalogController,
  CatalogError,
  DownloaderController,
  DownloaderModule,
  loadCatalog,
  openDownloader,
  type Catalog,
} from './index.ts';

let folder = '';
let catalog: Catalog;
let downloader: DownloaderController;
let announcer: CatalogController;
const closers: (() => Promise<void>)[] = [];

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sallyport-downloader-'));
  await mkdir(join(folder, 'packages/win/binaries'), { recursive: true });
  await writeFile(join(folder, 'eng.xml'), profile('Engineering'));
  await writeFile(join(folder, 'hr.xml'), `${profile('Personnel')}\r\n`);
  await writeFile(join(folder, 'packages/win/VPNManifest.xml'), MANIFEST);
  await writeFile(join(folder, 'packages/win/binaries/core.msi'), CORE);
  catalog = await loadCatalog(settings());
  const app = await NestFactory.createApplicationContext(
    DownloaderModule.with({ auth: new KnownSessions(), current: () => catalog }),
    { logger: false },
  );
  closers.push(() => app.close());
  downloader = app.get(DownloaderController);
  announcer = app.get(CatalogController);
});
after(async () => {
  for (const close of closers) await close();
  await rm(folder, { recursive: true, force: true });
});

test('a profile comes byte for byte, with the hash that was announced, in every spelling that clients use', async () => {
  const announced = await announcer.announce({ profileFile: join(folder, 'hr.xml'), platform: 'win' });
  assert.equal(announced.profileUri, '/CACHE/stc/profiles/hr.xml');
  for (const target of [
    announced.profileUri,
    '/profiles/hr.xml',
    '/profiles%2Fhr.xml',
    '/profiles%2Fhr.xml:8443',
    '/CACHE/stc/profiles/hr.xml?x=1',
  ]) {
    const answer = await get(target, { cookie: 'webvpn=hr-token' });
    assert.equal(answer.status, 200, target);
    assert.equal(await bodyOf(answer), `${profile('Personnel')}\r\n`, target);
    assert.equal(sha1(await bytesOf(answer)), announced.profileSha1, target);
  }
});

test('without a live session there is no profile and no package', async () => {
  for (const target of [
    '/CACHE/stc/profiles/eng.xml',
    '/profiles/nothing.xml',
    '/1/binaries/core.msi',
    '/1/nothing',
  ])
    for (const cookie of ['', 'webvpn=', 'webvpn=dead-token', 'webvpn=<>', 'webvpncontext=eng-token'])
      assert.equal((await get(target, { cookie })).status, 401, `${target} ${cookie}`);
});

test('a user gets only the profile of his own session', async () => {
  assert.equal((await get('/profiles/hr.xml', { cookie: 'webvpn=eng-token' })).status, 404);
  assert.equal((await get('/profiles/eng.xml', { cookie: 'webvpn=eng-token' })).status, 200);
  assert.equal((await get('/profiles/eng.xml', { cookie: 'webvpn=plain-token' })).status, 404);
});

test('no spelling of a path leads to another file', async () => {
  for (const target of [
    '/profiles/../eng.xml',
    '/profiles/%2e%2e/eng.xml',
    '/profiles/%252e%252e%252feng.xml',
    '/profiles/..;/eng.xml',
    '/profiles/..\\eng.xml',
    '/profiles/eng.xml%00',
    '//profiles/eng.xml',
    '/1/../packages/win/VPNManifest.xml',
    '/1/binaries/../binaries/core.msi',
    '/1/win/binaries/core.msi',
    '/CACHE/stc/2/binaries/core.msi',
    '/1/binaries/core.msi/x',
    '/1/BINARIES/core.msi',
  ]) {
    const answer = await get(target, { cookie: 'webvpn=eng-token' });
    assert.deepEqual([answer.status, await bodyOf(answer)], [404, ''], target);
  }
});

test('stubs need no session and are the same whatever the query says', async () => {
  for (const target of [
    '/+CSCOT+/translation-table?textdomain=AnyConnect&type=manifest',
    '/+CSCOT+/translation-table?type=mst&textdomain=%2bCSCOE%2b/portal_inc.lua&lang=../',
    '/+CSCOT+/oem-customization?app=AnyConnect&type=oem&platform=..&name=%2bCSCOE%2b/x',
  ])
    assert.equal(
      await bodyOf(await get(target)),
      '<?xml version="1.0" encoding="UTF-8"?>\n<vpn rev="1.0"></vpn>\n',
    );
  for (const target of [
    '/1/index.html',
    '/1/Linux_64',
    '/CACHE/stc/1/Windows',
    '/1/binaries/vpndownloader.sh',
  ])
    assert.equal((await get(target)).status, 200, target);
  assert.match(await bodyOf(await get('/1/binaries/vpndownloader.sh')), /^#!\/bin\/sh\n\nexit 0\n$/);
});

test('a client of a system with packages is told of them, another one that there is no update', async () => {
  const windows = { 'user-agent': 'AnyConnect Windows 4.10.01075' };
  for (const base of ['/1', '/CACHE/stc/1']) {
    assert.equal(await bodyOf(await get(`${base}/binaries/update.txt`, windows)), '4,10,07061\n');
    assert.equal(await bodyOf(await get(`${base}/binaries/update.txt`)), '0,0,0000\n');
    assert.match(
      await bodyOf(await get(`${base}/VPNManifest.xml`, windows)),
      /<uri>binaries\/core\.msi<\/uri>/,
    );
    assert.doesNotMatch(await bodyOf(await get(`${base}/VPNManifest.xml`)), /<file/);
  }
  const announced = await announcer.announce({ profileFile: '', platform: 'win' });
  assert.deepEqual(
    [announced.packageVersion, announced.packages.map(({ uri }) => uri), announced.profileUri],
    ['4,10,07061', ['binaries/core.msi'], ''],
  );
  for (const platform of ['linux-64', 'apple-ios', ''])
    assert.equal(
      (await announcer.announce({ profileFile: '', platform })).packageVersion,
      '0,0,0000',
      platform,
    );
});

test('a package comes from the open file, whole or in part, with its hash as tag', async () => {
  const cookie = 'webvpn=eng-token';
  const target = '/CACHE/stc/1/binaries/core.msi';
  const whole = await get(target, { cookie });
  const etag = headerOf(whole, 'ETag');
  assert.equal(etag, `"${createHash('sha256').update(CORE).digest('hex')}"`);
  assert.equal(await bodyOf(whole), CORE);
  const cases: [range: string, status: number, body: string][] = [
    ['bytes=0-3', 206, CORE.slice(0, 4)],
    ['bytes=4-', 206, CORE.slice(4)],
    ['bytes=-5', 206, CORE.slice(-5)],
    ['bytes=2-999999', 206, CORE.slice(2)],
    ['bytes=-999999', 206, CORE],
    [`bytes=${CORE.length}-`, 416, ''],
    ['bytes=-0', 416, ''],
    ['bytes=5-2', 200, CORE],
    ['bytes=0-1,4-5', 200, CORE],
    ['bytes=-', 200, CORE],
    ['lines=1-2', 200, CORE],
    ['bytes=99999999999999999999-', 200, CORE],
  ];
  for (const [range, status, body] of cases) {
    const answer = await get(target, { cookie, range });
    assert.deepEqual([answer.status, await bodyOf(answer)], [status, body], range);
  }
  const part = await get(target, { cookie, range: 'bytes=4-6', 'if-range': etag });
  assert.equal(headerOf(part, 'Content-Range'), `bytes 4-6/${CORE.length}`);
  await bodyOf(part);
  assert.equal(await bodyOf(await get(target, { cookie, range: 'bytes=4-6', 'if-range': '"other"' })), CORE);
  for (const tag of [etag, `W/${etag}`, '*', `"a", ${etag}`]) {
    const same = await get(target, { cookie, 'if-none-match': tag });
    assert.deepEqual([same.status, await bodyOf(same)], [304, ''], tag);
  }
});

test('a package that was changed after it was hashed is not served', async () => {
  const own = join(folder, 'changing');
  await mkdir(join(own, 'binaries'), { recursive: true });
  await writeFile(join(own, 'VPNManifest.xml'), MANIFEST);
  await writeFile(join(own, 'binaries/core.msi'), CORE);
  const before = catalog;
  catalog = await loadCatalog(settings({ packagesDir: own }));
  await writeFile(join(own, 'binaries/core.msi'), `${CORE}, changed`);
  const answer = await get('/1/binaries/core.msi', { cookie: 'webvpn=eng-token' });
  catalog = before;
  assert.deepEqual([answer.status, await bodyOf(answer)], [404, '']);
});

test('profiles know conditions too, and nothing but GET and HEAD', async () => {
  const cookie = 'webvpn=eng-token';
  const etag = headerOf(await get('/profiles/eng.xml', { cookie }), 'ETag');
  assert.equal((await get('/profiles/eng.xml', { cookie, 'if-none-match': etag })).status, 304);
  for (const method of ['POST', 'PUT', 'DELETE'])
    assert.equal((await downloader.handle(request('/profiles/eng.xml', { cookie }, method))).status, 405);
});

test('a broken profile is refused with file and line', async () => {
  const cases: [content: string | Buffer, line: number, reason: RegExp][] = [
    ['<AnyConnectProfile>\n<ServerList>\n</AnyConnectProfile>', 3, /not well-formed/],
    ['', 1, /./],
    ['<!DOCTYPE a>\n<AnyConnectProfile/>', 1, /DOCTYPE/],
    ['\n<Profile/>', 2, /<Profile>/],
    ['<AnyConnectProfile>\n</AnyConnectProfile>', 1, /<ServerList> is missing/],
    ['<AnyConnectProfile>\n<ServerList/>\n</AnyConnectProfile>', 2, /no <HostEntry>/],
    [wrap('<HostEntry><HostName></HostName><HostAddress>h</HostAddress></HostEntry>'), 2, /no <HostName>/],
    [wrap('<HostEntry><HostName>My office</HostName></HostEntry>'), 2, /no <HostAddress>/],
    [
      wrap('<HostEntry><HostName>A</HostName>\n<HostAddress>not a host</HostAddress></HostEntry>'),
      3,
      /HostAddress/,
    ],
    [wrap(`${HOST}\n</ServerList><ServerList>${HOST}`), 3, /twice/],
    [
      profile('A').replace('<ServerList>', '<AutoReconnect>\nyes</AutoReconnect><ServerList>'),
      2,
      /AutoReconnect.*"yes"/,
    ],
    [
      profile('A').replace('<ServerList>', '<AuthenticationTimeout>9</AuthenticationTimeout><ServerList>'),
      2,
      /"9"/,
    ],
    [profile('A').replace('UTF-8', 'UTF-16'), 1, /UTF-16/],
    [Buffer.concat([Buffer.from('<AnyConnectProfile>\n'), Buffer.from([0xff])]), 2, /UTF-8/],
  ];
  const file = join(folder, 'broken.xml');
  for (const [content, line, reason] of cases) {
    await writeFile(file, content);
    await assert.rejects(loadCatalog(settings({ policy: { profileFile: file } })), (error) => {
      assert.ok(error instanceof CatalogError);
      assert.deepEqual([error.file, error.line], [file, line], error.message);
      assert.match(error.message, reason);
      return error.message.startsWith(`${file}:${line}: `);
    });
  }
});

test('a profile is read from every scope, and a missing file is refused', async () => {
  const missing = join(folder, 'missing.xml');
  const scopes: Partial<Settings>[] = [
    { policy: { profileFile: missing } },
    { groups: { g: { profileFile: missing } } },
    { users: { u: { profileFile: missing } } },
    {
      profiles: {
        p: {
          name: 'p',
          label: '',
          methods: [],
          group: '',
          allowGroups: [],
          policy: { profileFile: missing },
        },
      },
    },
  ];
  for (const scope of scopes) await assert.rejects(loadCatalog(settings(scope)), /missing\.xml:1: .*ENOENT/);
});

test('a reload takes a new profile over only when it is good, and announcement and bytes change together', async () => {
  const file = join(folder, 'reloaded.xml');
  const next = settings({ policy: { profileFile: file } });
  await writeFile(file, profile('First'));
  const opened = await openDownloader({
    settings: next,
    auth: new KnownSessions(),
    log: createLog({ name: 'downloader', level: 'silent' }),
  });
  const announced = async () =>
    (await opened.catalog.announce({ profileFile: file, platform: '' })).profileSha1;
  await writeFile(file, profile('Second'));
  assert.equal(await announced(), sha1(Buffer.from(profile('First'))), 'nothing is read while clients ask');
  const takeOver = await opened.prepare(next);
  assert.equal(await announced(), sha1(Buffer.from(profile('First'))));
  takeOver();
  assert.equal(await announced(), sha1(Buffer.from(profile('Second'))));
  assert.deepEqual(opened.current().profiles.get(file)?.bytes, Buffer.from(profile('Second')));
  await writeFile(file, '<AnyConnectProfile>');
  await assert.rejects(opened.prepare(next), CatalogError);
  assert.equal(await announced(), sha1(Buffer.from(profile('Second'))));
});

test('the catalog says the same over gRPC', async () => {
  const url = `unix:${join(folder, 'catalog.sock')}`;
  const { package: name, protoPath, loader, service } = CATALOG_WIRE;
  const server = await NestFactory.createMicroservice<MicroserviceOptions>(
    DownloaderModule.with({ auth: new KnownSessions(), current: () => catalog }),
    { transport: Transport.GRPC, options: { url, package: name, protoPath, loader }, logger: false },
  );
  closers.push(() => server.close());
  await server.listen();
  const definition = loadSync(protoPath, loader)[`${name}.${service}`];
  assert.ok(definition && !('format' in definition));
  const method = definition['Announce'];
  assert.ok(method && !('format' in method));
  const wire = new Client(url, credentials.createInsecure());
  closers.push(() => Promise.resolve(wire.close()));
  for (const question of [
    { profileFile: join(folder, 'eng.xml'), platform: 'win' },
    { profileFile: '', platform: 'linux-64' },
  ]) {
    const answer = await new Promise((resolve, reject) =>
      wire.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        question,
        (error, value) => (error ? reject(error) : resolve(value)),
      ),
    );
    assert.deepEqual(fromWire(answer), await announcer.announce(question));
  }
});

test('a packages folder that cannot be trusted is refused with file and line', async () => {
  const own = join(folder, 'bad-packages');
  await mkdir(join(own, 'binaries'), { recursive: true });
  await writeFile(join(own, 'binaries/core.msi'), CORE);
  await symlink('/etc/passwd', join(own, 'binaries/link.msi'));
  const cases: [manifest: string, reason: RegExp][] = [
    [MANIFEST.replace('core.msi', 'absent.msi'), /VPNManifest\.xml:2: .*ENOENT/],
    [MANIFEST.replace('binaries/core.msi', '../core.msi'), /plain path/],
    [MANIFEST.replace('binaries/core.msi', '/etc/passwd'), /plain path/],
    [MANIFEST.replace('core.msi', 'link.msi'), /leads out of the packages folder/],
    [MANIFEST.replace('4.10.07061', 'newest'), /no good version/],
    [MANIFEST.replace('<vpn', '<!DOCTYPE x><vpn'), /DOCTYPE/],
    [MANIFEST.replaceAll('vpn', 'other'), /root is <other>/],
  ];
  for (const [manifest, reason] of cases) {
    await writeFile(join(own, 'VPNManifest.xml'), manifest);
    await assert.rejects(loadCatalog(settings({ packagesDir: own })), (error) => {
      assert.ok(error instanceof CatalogError);
      return reason.test(error.message);
    });
  }
});

const HOST = '<HostEntry><HostName>Office</HostName><HostAddress>vpn.example.test</HostAddress></HostEntry>';
const wrap = (list: string) => `<AnyConnectProfile>\n<ServerList>${list}</ServerList></AnyConnectProfile>`;
const profile = (name: string) => `<?xml version="1.0" encoding="UTF-8"?>
<AnyConnectProfile xmlns="http://schemas.xmlsoap.org/encoding/"><ServerList><HostEntry>
<HostName>${name}</HostName><HostAddress>vpn.example.test:8443</HostAddress><UserGroup>eng</UserGroup>
</HostEntry></ServerList></AnyConnectProfile>`;
const MINIMAL_SETTINGS = `server-cert: cert.pem
server-key: key.pem
ipv4-network: 10.90.0.0/24
profiles: { staff: { methods: [local], default: true } }
`;
const CORE = 'not really an installer';
const MANIFEST = `<vpn rev="1.0">
<file version="4.10.07061" id="VPNCore" is_core="yes" type="msi" action="install" os="win:6.1.7601"><uri>binaries/core.msi</uri><display-name>Core</display-name></file>
</vpn>
`;

/** Three sessions: with the profile of engineering, of personnel, and with none. */
class KnownSessions implements AuthService {
  begin = () => assert.fail('not asked by the downloader');
  reply = this.begin;
  logout = this.begin;

  lookup({ token }: { token: string }): Promise<LookupResponse> {
    const [name, rest] = token.split('-');
    const live = rest === 'token' && name !== 'dead';
    const profileFile = live && name !== 'plain' ? join(folder, `${name}.xml`) : '';
    return Promise.resolve({ live, sessionId: live ? 's' : '', profile: '', group: '', profileFile });
  }
}

function settings(changes: Partial<Settings> = {}): Settings {
  const parsed = parseSettings(MINIMAL_SETTINGS, join(folder, 'sallyport.yaml'));
  assert.ok('settings' in parsed, JSON.stringify(parsed));
  return {
    ...parsed.settings,
    packagesDir: join(folder, 'packages'),
    policy: { profileFile: join(folder, 'eng.xml') },
    groups: { hr: { profileFile: join(folder, 'hr.xml') } },
    ...changes,
  };
}

function get(target: string, headers: Record<string, string> = {}): Promise<InsideResponse> {
  return downloader.handle(request(target, headers));
}

function request(target: string, headers: Record<string, string>, method = 'GET'): InsideRequest {
  const facts = { clientAddress: '192.0.2.7', serverName: '', servedLeafSha1: '', tlsVersion: 'TLSv1.3' };
  return { method, target, headers, body: new Uint8Array(), facts };
}

async function bytesOf({ body }: InsideResponse): Promise<Uint8Array> {
  if (body instanceof Uint8Array) return body;
  const buffer = new Uint8Array(body.length);
  const { bytesRead } = await body.file.read(buffer, 0, body.length, body.start);
  await body.file.close();
  return buffer.subarray(0, bytesRead);
}

async function bodyOf(answer: InsideResponse): Promise<string> {
  return Buffer.from(await bytesOf(answer)).toString();
}

function headerOf(answer: InsideResponse, wanted: string): string {
  return answer.headers.find(([name]) => name === wanted)?.[1] ?? '';
}

function sha1(bytes: Uint8Array): string {
  return createHash('sha1').update(bytes).digest('hex').toUpperCase();
}
