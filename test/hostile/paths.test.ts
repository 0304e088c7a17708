import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ALICE, TlsClient, World, type HttpAnswer } from '../harness/index.ts';
import { survives } from './survives.ts';

const SECRET = 'HostNameOfTheProfileThatNobodyMayRead';
const world = await World.open({
  settings: ({ folder }) => {
    writeFileSync(
      join(folder, 'staff.xml'),
      `<AnyConnectProfile xmlns="http://schemas.xmlsoap.org/encoding/"><ServerList><HostEntry><HostName>${SECRET}</HostName><HostAddress>vpn.example.test</HostAddress></HostEntry></ServerList></AnyConnectProfile>`,
    );
    return { 'profile-file': join(folder, 'staff.xml') };
  },
});
after(() => world.close());

const TRAVERSALS = [
  '/+CSCOU+/../+CSCOE+/files/file_list.json?path=/sessions',
  '/+CSCOT+/translation-table?type=mst&textdomain=%2bCSCOE%2b/portal_inc.lua&default-language&lang=../',
  '/+CSCOT+/oem-customization?app=AnyConnect&type=oem&platform=..&resource-type=..&name=%2bCSCOE%2b/portal_inc.lua',
  '/+CSCOE+/session_password.html',
  '/+CSCOE+/logon.html/../../../../etc/passwd',
  '/CACHE/stc/profiles/../../../etc/passwd',
  '/CACHE/stc/profiles/%2e%2e%2f%2e%2e%2fetc%2fpasswd',
  '/CACHE/stc/profiles/%252e%252e%252fetc%252fpasswd',
  '/profiles%2F..%2F..%2Fusers',
  '/profiles/..;/users',
  '/profiles/..\\..\\users',
  '/profiles/users%00.xml',
  '/profiles/./staff.xml',
  '//profiles//staff.xml',
  '/profiles/staff.xml',
  '/1/binaries/../../sallyport.yaml',
  '/1/../users',
  '/journal',
  '/files/',
  '/profile_staff.xml',
  '/metrics',
  '/health/live',
  '/admin/',
  '/\u2215etc\u2215passwd',
  'http://127.0.0.1:9480/metrics',
  '*',
  '/'.repeat(1000),
  `/${'a/../'.repeat(300)}etc/passwd`,
];

test('V3, V28: no spelling of a path reads a file or a profile without a session', async () => {
  await survives(
    world,
    async () => {
      for (const path of TRAVERSALS) {
        for (const method of ['GET', 'POST', 'HEAD']) {
          const answer = await ask(method, path).catch(() => undefined);
          const text = answer === undefined ? '' : answer.body.toString();
          assert.doesNotMatch(text, new RegExp(`root:|${SECRET}|\\$5\\$|sallyport_`), `${method} ${path}`);
          if (answer !== undefined) assert.ok(answer.status < 500, `${method} ${path}: ${answer.status}`);
        }
      }
    },
    { counter: 'sallyport_http_refusals_total', labels: { cause: 'not-found' }, atLeast: 10 },
  );
});

test('V18: names that are paths, too long, empty or full of control characters are nobody', async () => {
  const names = [
    '../../etc/passwd',
    'a/b',
    '.',
    '..',
    '',
    ' ',
    'x'.repeat(300),
    'a\u0001b',
    'alice:',
    'аlice',
    'alice\u202e',
    'ALICE',
    '__proto__',
    'constructor',
  ];
  await survives(
    world,
    async () => {
      for (const name of names) {
        const client = world.anyConnect();
        const step = await client.login(name, ALICE.password).catch(() => undefined);
        assert.notEqual(step?.authId, 'success', name);
        const grouped = await world
          .anyConnect()
          .init(name)
          .catch(() => undefined);
        if (grouped !== undefined) assert.equal(grouped.groups[0]?.label, 'Staff', 'the default group');
        const answer = await ask('POST', `/${encodeURIComponent(name)}`);
        assert.ok(answer.status < 500);
      }
    },
    { counter: 'sallyport_auth_attempts_total', labels: { result: 'login-failed' } },
  );
});

test('V18: a server name that is a path selects the default host', async () => {
  for (const serverName of ['..-etc-passwd', 'x'.repeat(60), 'unknown.example.test']) {
    const client = world.anyConnect({ serverName });
    assert.equal((await client.login(ALICE.name, ALICE.password)).authId, 'success');
  }
});

async function ask(method: string, path: string): Promise<HttpAnswer> {
  const tls = await TlsClient.open({ lab: world.lab });
  try {
    return await tls.request({
      method,
      path: Buffer.from(path).toString('latin1'),
      headers: [['Connection', 'close']],
      ...(method === 'POST' && { body: '' }),
    });
  } finally {
    tls.close();
  }
}
