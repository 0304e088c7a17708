import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { ALICE, BOB, cookiesOf, parseXml, TlsClient, World, type HttpAnswer } from '../harness/index.ts';

const world = await World.open();
after(() => world.close());

test('row 3: openconnect without XML posts forms and gets its token as a cookie', async () => {
  const client = await world.connected(BOB, { group: 'guests', more: ['--no-xmlpost'] });
  assert.equal(client.count(/XML POST enabled/), 0);
  assert.equal(await world.lab.ping(world.lab.lanIpv4), 3);
  assert.equal(await client.stop(), 0);
});

test('row 3: a form with fields in another order logs in over separate connections', async () => {
  const first = await send('GET', '/');
  const login = cookiesOf(first).get('webvpncontext');
  assert.ok(login, 'the login is kept by a cookie');
  const second = await send(
    'POST',
    '/',
    formOf({ password: ALICE.password, username: ALICE.name, group_list: 'staff' }),
    login,
  );
  assert.equal(second.status, 200);
  assert.match(second.body.toString(), /id="success"/);
  assert.ok((cookiesOf(second).get('webvpn') ?? '').length >= 22);
});

test('row 3: the oldest clients get a bare <auth>, not config-auth', async () => {
  const answer = await send('GET', '/', undefined, undefined, 'Open AnyConnect VPN Agent v3.02');
  assert.equal(parseXml(answer.body.toString()).name, 'auth');
});

function formOf(fields: Record<string, string>): string {
  return new URLSearchParams(fields).toString();
}

async function send(
  method: string,
  path: string,
  body?: string,
  login?: string,
  agent = 'Open AnyConnect VPN Agent v9.01',
): Promise<HttpAnswer> {
  const tls = await TlsClient.open({ lab: world.lab });
  try {
    return await tls.request({
      method,
      path,
      headers: [
        ['User-Agent', agent],
        ['X-Transcend-Version', '1'],
        ['Content-Type', 'application/x-www-form-urlencoded'],
        ...(login === undefined ? [] : [['Cookie', `webvpncontext=${login}`] as const]),
      ],
      ...(body !== undefined && { body }),
    });
  } finally {
    tls.close();
  }
}
