import 'reflect-metadata';
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { NestFactory } from '@nestjs/core';
import { createLog } from '@sallyport/chassis';
import type {
  AnnounceRequest,
  AuthService,
  BeginRequest,
  CatalogService,
  InsideRequest,
  InsideResponse,
  LoginAnswer,
  LoginForm,
  LogoutRequest,
  ReplyRequest,
} from '@sallyport/cluster';
import {
  childOf,
  parseXml,
  ProtocolError,
  withoutXmlDeclaration,
  type XmlElement,
} from '@sallyport/protocol';
import { PortalController, PortalModule } from './index.ts';

/** Answers what it is told to, and remembers what it was asked. */
class ScriptedAuth implements AuthService {
  answers: LoginAnswer[] = [];
  begun: BeginRequest[] = [];
  replied: ReplyRequest[] = [];
  ended: string[] = [];

  begin(request: BeginRequest): Promise<LoginAnswer> {
    this.begun.push(request);
    return Promise.resolve(this.answers.shift() ?? { form: FORM });
  }

  reply(request: ReplyRequest): Promise<LoginAnswer> {
    this.replied.push(request);
    return Promise.resolve(this.answers.shift() ?? { form: FORM });
  }

  logout({ token }: LogoutRequest) {
    this.ended.push(token);
    return Promise.resolve({ ended: true });
  }

  lookup = () => assert.fail('not asked by the portal');
}

class OneProfile implements CatalogService {
  asked: AnnounceRequest[] = [];

  announce(request: AnnounceRequest) {
    this.asked.push(request);
    return Promise.resolve({
      basePackageUri: '/CACHE/stc/1',
      packageVersion: '0,0,0000',
      packages: [],
      profileUri: '/CACHE/stc/profiles/eng.xml',
      profileSha1: SHA1,
    });
  }
}

let auth = new ScriptedAuth();
let catalog = new OneProfile();
let portal: PortalController;
let close = () => Promise.resolve();

before(async () => {
  const forward: AuthService = {
    begin: (request) => auth.begin(request),
    reply: (request) => auth.reply(request),
    logout: (request) => auth.logout(request),
    lookup: () => auth.lookup(),
  };
  const parts = {
    auth: forward,
    catalog: { announce: (request: AnnounceRequest) => catalog.announce(request) },
    log: createLog({ name: 'portal', level: 'silent' }),
  };
  const app = await NestFactory.createApplicationContext(PortalModule.with(parts), { logger: false });
  portal = app.get(PortalController);
  close = () => app.close();
});
after(() => close());

test('the entry points are equal, with query and trailing slash', async () => {
  const bodies = new Set<string>();
  for (const target of [
    '/',
    '/auth',
    '/VPN',
    '/+webvpn+/index.html',
    '/?x=y',
    '/auth/',
    '/%61uth',
    'https://h/auth',
  ])
    bodies.add(bodyOf(await post(INIT, { target })));
  assert.equal(bodies.size, 1);
  assert.match([...bodies][0] ?? '', /<auth id="main">/);
});

test('answers carry what clients need and nothing is cached', async () => {
  const { status, headers } = await post(INIT);
  assert.equal(status, 200);
  for (const wanted of [
    ['Content-Type', 'text/xml; charset=utf-8'],
    ['X-Aggregate-Auth', '1'],
    ['X-Transcend-Version', '1'],
    ['Cache-Control', 'no-store'],
  ])
    assert.ok(
      headers.some((header) => header.join() === wanted.join()),
      wanted.join(),
    );
});

test('init passes on group, certificate, STRAP key and the login it takes over', async () => {
  reset();
  await post(
    xml('init', '<device-id>win</device-id><group-select>Engineering</group-select><client-cert-fail/>'),
    {
      headers: {
        'x-anyconnect-strap-pubkey': STRAP_KEY,
        cookie: 'webvpncontext=old.1',
        'user-agent': 'Elsewhere 1\u0007',
      },
    },
  );
  assert.deepEqual(auth.begun, [
    {
      profile: 'Engineering',
      urlProfile: '',
      client: {
        address: '192.0.2.7',
        userAgent: 'Elsewhere 1?',
        platform: 'win',
        strapKey: STRAP_KEY,
        serverName: 'gate.example.test',
      },
      certificateFailed: true,
      loginId: 'old.1',
    },
  ]);
});

test('a STRAP key that is none is left out', async () => {
  reset();
  for (const key of ['', 'short', `${STRAP_KEY}\u0000`, 'A'.repeat(10_000)])
    await post(INIT, { headers: { 'x-anyconnect-strap-pubkey': key } });
  assert.deepEqual(
    auth.begun.map(({ client }) => client.strapKey),
    ['', '', '', ''],
  );
});

test('the profile comes from the path or from group-access, and the form posts back there', async () => {
  reset();
  const cases: [target: string, inner: string, profile: string, action: string][] = [
    ['/eng', '', 'eng', '/eng'],
    ['/%D1%88%D1%82%D0%B0%D0%B1/', '', 'штаб', '/%D1%88%D1%82%D0%B0%D0%B1'],
    ['/', '<group-access>https://gate.example.test/eng</group-access>', 'eng', '/eng'],
    ['/', '<group-access>https://gate.example.test/auth</group-access>', '', '/auth'],
    ['/', '<group-access>https://gate.example.test/../x</group-access>', '', '/auth'],
    ['/', '<group-access>nonsense</group-access>', '', '/auth'],
  ];
  for (const [target, inner, profile, action] of cases) {
    const document = documentOf(await post(xml('init', inner), { target }));
    assert.equal(auth.begun.at(-1)?.urlProfile, profile, target + inner);
    assert.equal(find(document, 'auth', 'form')?.attributes.get('action'), action, target + inner);
  }
});

test('a reply finds its login by opaque or by cookie, and opaque counts first', async () => {
  reset();
  const opaque = (id: string) => `<opaque is-for="sg"><aggauth-handle>${id}</aggauth-handle></opaque>`;
  const fields = '<auth><username>carol</username><password> s&amp;cret </password></auth>';
  await post(xml('auth-reply', opaque('a.1') + fields));
  await post(xml('auth-reply', fields), { headers: { cookie: 'webvpncontext=b.1' } });
  await post(xml('auth-reply', opaque('a.1') + fields), { headers: { cookie: 'webvpncontext=b.1' } });
  await post(xml('auth-reply', fields));
  assert.deepEqual(
    auth.replied.map(({ loginId }) => loginId),
    ['a.1', 'b.1', 'a.1', ''],
  );
  assert.deepEqual(auth.replied[0]?.answers, { username: 'carol', password: ' s&cret ' });
});

test('when the handle in opaque is unknown the cookie is tried, once', async () => {
  reset({ refused: { reason: 'login-expired', text: 'x' } }, { form: FORM });
  const body = xml('auth-reply', '<opaque><aggauth-handle>gone.1</aggauth-handle></opaque>');
  const answer = await post(body, { headers: { cookie: 'webvpncontext=b.1' } });
  assert.deepEqual(
    auth.replied.map(({ loginId }) => loginId),
    ['gone.1', 'b.1'],
  );
  assert.ok(find(documentOf(answer), 'auth', 'form'));
  reset({ refused: { reason: 'login-failed', text: 'x' } });
  await post(body, { headers: { cookie: 'webvpncontext=b.1' } });
  assert.equal(auth.replied.length, 1);
});

test('nothing else that comes back in opaque counts', async () => {
  reset();
  const forged =
    '<opaque><tunnel-group>admins</tunnel-group><group-alias>Admins</group-alias><config-hash>1</config-hash><auth-method>none</auth-method><aggauth-handle>a.1</aggauth-handle></opaque>';
  await post(xml('auth-reply', `${forged}<auth><password>x</password></auth>`));
  const { client: _, ...asked } = auth.replied[0] ?? assert.fail();
  assert.deepEqual(asked, { loginId: 'a.1', answers: { password: 'x' }, profile: '' });
});

test('the form lists the chosen profile first and is found again by cookie', async () => {
  reset();
  const answer = await post(INIT);
  const options = find(documentOf(answer), 'auth', 'form', 'select')?.children ?? [];
  assert.deepEqual(
    options.map(({ text, attributes }) => [attributes.get('value'), text, attributes.get('selected')]),
    [
      ['eng', 'R&D', 'true'],
      ['guests', 'Guests', undefined],
    ],
  );
  assert.deepEqual(cookiesOf(answer), ['webvpncontext=q_3-Zk.1; Path=/; Secure; HttpOnly']);
});

test('a wrong password is a form with a text, a refusal a text inside auth', async () => {
  reset(
    { form: { ...FORM, error: 'Login failed.' } },
    { refused: { reason: 'login-tries-exhausted', text: 'Too many.' } },
  );
  const again = await post(xml('auth-reply', ''));
  assert.equal(again.status, 200);
  assert.equal(find(documentOf(again), 'auth', 'error')?.text, 'Login failed.');
  assert.ok(find(documentOf(again), 'auth', 'form'));
  const refused = await post(xml('auth-reply', ''));
  assert.equal(refused.status, 200);
  assert.equal(find(documentOf(refused), 'auth', 'error')?.text, 'Too many.');
  assert.equal(find(documentOf(refused), 'auth', 'form'), undefined);
});

test('an answer of auth that says nothing is a refusal', async () => {
  reset({});
  assert.equal(find(documentOf(await post(INIT)), 'auth', 'error')?.text, 'Login failed.');
});

test('success carries token, certificate hash and manifests, and the same in cookies', async () => {
  reset(GRANTED);
  const answer = await post(xml('auth-reply', '<device-id>win</device-id>'));
  const document = documentOf(answer);
  assert.equal(find(document, 'auth')?.attributes.get('id'), 'success');
  assert.equal(find(document, 'session-token')?.text, 'tok-1');
  assert.equal(find(document, 'config', 'vpn-base-config', 'server-cert-hash')?.text, LEAF_SHA1);
  assert.equal(find(document, 'config', 'vpn-profile-manifest', 'vpn', 'file', 'hash')?.text, SHA1);
  assert.deepEqual(catalog.asked, [{ profileFile: '/state/eng.xml', platform: 'win' }]);
  const [context, token, cleared, hints] = cookiesOf(answer);
  assert.match(context ?? '', /^webvpncontext=; Expires/);
  assert.equal(token, 'webvpn=tok-1; Path=/; Secure; HttpOnly');
  assert.match(cleared ?? '', /^webvpnc=; Expires/);
  assert.match(
    hints ?? '',
    new RegExp(`^webvpnc=bu:/&p:t&iu:1/&sh:${LEAF_SHA1}&.*&fu:profiles%2Feng\\.xml&fh:${SHA1};`),
  );
});

test('a certificate is asked for in XML; who speaks forms is told that it is required', async () => {
  const ask: LoginAnswer = { certificateRequest: { loginId: '', profile: 'cards' } };
  reset(ask);
  assert.ok(find(documentOf(await post(INIT)), 'client-cert-request'));
  reset(ask);
  await get('/', { 'x-transcend-version': '1' });
  assert.deepEqual(
    auth.begun.map(({ certificateFailed }) => certificateFailed),
    [false, true],
  );
  reset(ask);
  assert.match(
    find(documentOf(await post('username=carol')), 'auth', 'error')?.text ?? '',
    /certificate is required/,
  );
});

test('the older forms reach the same login', async () => {
  reset();
  await get('/', { 'user-agent': 'Open AnyConnect VPN Agent v9.01' });
  await post('group_list=eng');
  await post('group_list=eng&username=carol&password=a%26b+c', { headers: { cookie: 'webvpncontext=b.1' } });
  await post('username=carol&password=x', { target: '/eng' });
  assert.deepEqual(
    auth.begun.map(({ profile }) => profile),
    ['', 'eng'],
  );
  assert.deepEqual(
    auth.replied.map(({ loginId, profile, answers }) => [loginId, profile, answers]),
    [
      ['b.1', 'eng', { username: 'carol', password: 'a&b c' }],
      ['', 'eng', { username: 'carol', password: 'x' }],
    ],
  );
});

test('the oldest clients get bare documents from form to success', async () => {
  const headers = { 'user-agent': 'Open AnyConnect VPN Agent v3.02' };
  reset({ form: FORM }, GRANTED, { refused: { reason: 'login-failed', text: 'No.' } });
  for (const id of ['main', 'success', 'main']) {
    const root = parseXml(withoutXmlDeclaration(bodyOf(await post('username=a', { headers }))));
    assert.deepEqual([root.name, root.attributes.get('id')], ['auth', id]);
  }
});

test('logout ends the session of the token, by document or by page', async () => {
  reset();
  await post(xml('logout', '<session-token>tok-1</session-token>'));
  await post(xml('logout', '<session-token></session-token>'), { headers: { cookie: 'webvpn=tok-2' } });
  for (const target of ['/logout', '/+webvpn+/webvpn_logout.html']) {
    const answer = await get(target, { cookie: 'webvpn=tok-3' });
    assert.equal(answer.status, 200);
    assert.ok(cookiesOf(answer).some((cookie) => cookie.startsWith('webvpn=;')));
  }
  assert.equal((await get('/logout')).status, 200);
  assert.deepEqual(auth.ended, ['tok-1', 'tok-2', 'tok-3', 'tok-3']);
});

test('browsers get a page that names no software, clients and unknown agents a form', async () => {
  reset();
  const browser = { 'user-agent': 'Mozilla/5.0', accept: 'text/html,*/*' };
  const landing = await get('/', browser);
  assert.equal(landing.status, 200);
  assert.doesNotMatch(bodyOf(landing) + JSON.stringify(landing.headers), /sallyport|node|server/i);
  assert.equal((await get('/eng', browser)).status, 404);
  assert.equal(auth.begun.length, 0);
  assert.ok(find(documentOf(await get('/', { 'user-agent': 'Elsewhere 1' })), 'auth', 'form'));
  assert.equal((await portal.handle(request('HEAD', '/'))).status, 200);
});

test('an unknown group URL is a 404 to strangers and a text to clients', async () => {
  const unknown: LoginAnswer = { refused: { reason: 'profile-unknown', text: 'No such profile.' } };
  reset(unknown, unknown);
  assert.equal((await get('/files/')).status, 404);
  const told = await get('/files', { 'x-transcend-version': '1' });
  assert.equal(find(documentOf(told), 'auth', 'error')?.text, 'No such profile.');
});

test('other paths and methods have no answer', async () => {
  reset();
  for (const target of ['/a/b', '/+CSCOE+/logon.html', '/%2e%2e/x', '/auth;x', '//', '/1/index.html'])
    assert.equal((await post(INIT, { target })).status, 404, target);
  assert.equal((await portal.handle(request('PUT', '/'))).status, 405);
  assert.equal(auth.begun.length, 0);
});

test('V1, V2: unexpected and hostile documents are refused, and the next one is served', async () => {
  reset();
  for (const body of [
    xml('host-scan-reply', '<x/>'),
    xml('hello', ''),
    '<config-auth>',
    '<auth/>',
    `<!DOCTYPE x>${INIT}`,
    `<config-auth type="init">${'<a>'.repeat(100_000)}`,
    `<config-auth type="init" a="${'x'.repeat(1_000_000)}"/>`,
    'username=%',
  ]) {
    await assert.rejects(post(body), ProtocolError, body.slice(0, 60));
    assert.equal((await post(INIT)).status, 200);
  }
});

test('a body that is neither XML nor a form gets the first form', async () => {
  reset();
  for (const body of [
    '',
    'hello',
    '\u0000\u0001',
    '{"a":1}',
    '--x\r\nContent-Disposition: form-data; name="a"\r\n',
  ])
    assert.ok(find(documentOf(await post(body)), 'auth', 'form'), body);
  assert.equal(auth.replied.length, 0);
});

test('a fault of auth is not turned into a refusal', async () => {
  const fault = new Error('store away');
  auth.begin = () => Promise.reject(fault);
  await assert.rejects(post(INIT), fault);
  reset();
});

const SHA1 = 'DA39A3EE5E6B4B0D3255BFEF95601890AFD80709';
const LEAF_SHA1 = 'CEEFB74C4F62234EDFD0042A696F526951AF3792';
const STRAP_KEY = 'A'.repeat(124);
const FORM: LoginForm = {
  loginId: 'q_3-Zk.1',
  id: 'main',
  title: 'Login',
  banner: '',
  message: 'Who are you?',
  error: '',
  fields: [{ name: 'username', kind: 'text', label: 'Username:', value: '' }],
  profiles: [
    { name: 'eng', label: 'R&D' },
    { name: 'guests', label: 'Guests' },
  ],
  profile: { name: 'eng', label: 'R&D' },
};
const GRANTED: LoginAnswer = {
  granted: {
    sessionId: 's-1',
    token: 'tok-1',
    user: 'carol',
    profile: 'eng',
    group: 'eng',
    banner: '',
    profileFile: '/state/eng.xml',
  },
};
const xml = (type: string, inner: string) =>
  `<config-auth client="vpn" type="${type}">${inner}</config-auth>`;
const INIT = xml('init', '');

function reset(...answers: LoginAnswer[]): void {
  auth = new ScriptedAuth();
  auth.answers = answers;
  catalog = new OneProfile();
}

function post(
  body: string,
  { target = '/', headers = {} }: { target?: string; headers?: Record<string, string> } = {},
): Promise<InsideResponse> {
  return portal.handle({ ...request('POST', target, headers), body: new TextEncoder().encode(body) });
}

function get(target: string, headers: Record<string, string> = {}): Promise<InsideResponse> {
  return portal.handle(request('GET', target, headers));
}

function request(method: string, target: string, headers: Record<string, string> = {}): InsideRequest {
  const facts = {
    clientAddress: '192.0.2.7',
    serverName: 'gate.example.test',
    servedLeafSha1: LEAF_SHA1,
    tlsVersion: 'TLSv1.3',
  };
  return { method, target, headers, body: new Uint8Array(), facts };
}

function bodyOf({ body }: InsideResponse): string {
  assert.ok(body instanceof Uint8Array);
  return Buffer.from(body).toString();
}

function documentOf(answer: InsideResponse): XmlElement {
  const root = parseXml(withoutXmlDeclaration(bodyOf(answer)));
  assert.equal(root.name, 'config-auth');
  return root;
}

function find(root: XmlElement, ...path: string[]): XmlElement | undefined {
  return path.reduce<XmlElement | undefined>((element, name) => childOf(element, name), root);
}

function cookiesOf({ headers }: InsideResponse): string[] {
  return headers.filter(([name]) => name === 'Set-Cookie').map(([, value]) => value);
}
