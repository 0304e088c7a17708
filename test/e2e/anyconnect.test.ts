import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import {
  ALICE,
  BOB,
  echoReply,
  echoRequest,
  eventually,
  find,
  FRAME,
  header,
  headers,
  sha1Of,
  World,
  type Connected,
  type Platform,
} from '../harness/index.ts';

const PROFILE = `<?xml version="1.0" encoding="UTF-8"?>
<AnyConnectProfile xmlns="http://schemas.xmlsoap.org/encoding/">
 <ClientInitialization><BypassDownloader>false</BypassDownloader></ClientInitialization>
 <ServerList><HostEntry><HostName>Example VPN</HostName><HostAddress>vpn.example.test</HostAddress></HostEntry></ServerList>
</AnyConnectProfile>
`;

const world = await World.open({
  settings: ({ folder }) => {
    writeFileSync(join(folder, 'staff.xml'), PROFILE);
    return { 'profile-file': join(folder, 'staff.xml'), banner: 'Authorised use only: <staff> & "friends".' };
  },
});
after(() => world.close());

for (const platform of ['windows', 'ios', 'android'] satisfies Platform[]) {
  test(`row 5: AnyConnect on ${platform} walks all phases, each request on its own TLS connection`, async () => {
    const client = world.anyConnect({ platform });
    const first = await client.init();
    assert.equal(first.type, 'auth-request');
    assert.deepEqual(
      first.groups.map((group) => group.label),
      ['Staff', 'Guests'],
    );
    assert.ok(first.groups[0]?.selected);
    assert.equal(header(first.answer, 'X-Aggregate-Auth'), '1');
    assert.equal(header(first.answer, 'X-Transcend-Version'), '1');

    const second = await client.chooseGroup('Guests');
    assert.deepEqual(
      second.groups.map((group) => group.label),
      ['Guests', 'Staff'],
      'the chosen one first',
    );
    const granted = await client.reply({ username: BOB.name, password: BOB.password });
    assert.equal(granted.type, 'complete');
    assert.equal(granted.authId, 'success');
    assert.match(granted.banner, /^Authorised use only: <staff> & "friends"\.$/);

    const downloads = await client.download();
    const profile = downloads.find((item) => item.announcedSha1 !== '');
    assert.equal(profile?.body.toString(), PROFILE);
    assert.deepEqual([...new Set(client.certificateHashes)], [sha1Of(world.server.cert)]);

    const connected = await client.connect();
    await assertTunnel(connected);
    assertPlatform(connected, platform);

    connected.channel.bye(0xb0);
    await connected.channel.whenClosed();
    assert.equal((await client.logout()).status, 200);
    assert.equal((await client.connect()).answer.status, 401);
  });
}

test('a request for translations or customisation does not disturb a login', async () => {
  const client = world.anyConnect();
  await client.init();
  const answer = await client.exchange(
    'GET',
    '/+CSCOT+/translation-table?textdomain=AnyConnect&type=manifest',
  );
  assert.equal(answer.status, 200);
  assert.equal((await client.reply({ username: ALICE.name, password: ALICE.password })).authId, 'success');
  await client.logout();
});

test('row 6: a reply sent again, its answer lost, is granted again, and whichever answer arrives is good', async () => {
  const client = world.anyConnect();
  await client.init();
  const body = client.replyDocument({ username: ALICE.name, password: ALICE.password });
  const tokens: string[] = [];
  for (let round = 0; round < 2; round++) {
    assert.equal((await client.post(body)).authId, 'success');
    tokens.push(client.token);
  }
  for (const token of tokens) {
    client.cookies.set('webvpn', token);
    const { answer, tls } = await client.connect();
    assert.equal(answer.status, 200);
    tls.close();
  }
});

test('an opaque of nobody starts a new login and grants nothing', async () => {
  const client = world.anyConnect();
  const body = client.replyDocument({ username: ALICE.name, password: ALICE.password });
  const step = await client.post(
    body.replace('<auth>', '<opaque is-for="sg"><aggauth-handle>1</aggauth-handle></opaque><auth>'),
  );
  assert.notEqual(step.authId, 'success');
  assert.equal(client.token, '');
});

test('a login out of tries ends with a text inside <auth> and no form', async () => {
  const client = world.anyConnect();
  await client.init();
  for (const password of ['one', 'two']) {
    const step = await client.reply({ username: ALICE.name, password });
    assert.ok(step.fields.includes('password'));
    assert.notEqual(step.error + step.message, '');
  }
  const last = await client.reply({ username: ALICE.name, password: 'three' });
  assert.deepEqual(last.fields, []);
  assert.notEqual(last.error + last.message, '');
});

async function assertTunnel({ answer, channel }: Connected): Promise<void> {
  assert.equal(answer.status, 200);
  assert.match(answer.head, /^HTTP\/1\.1 200 /);
  assert.match(answer.head, /\r\nX-CSTP-MTU: \d+\r\n/);
  assert.match(answer.head, /\r\nX-CSTP-Split-Include: 198\.51\.100\.0\/255\.255\.255\.0\r\n/);
  assert.equal(header(answer, 'X-CSTP-Rekey-Method'), 'new-tunnel');
  assert.deepEqual(headers(answer, 'Content-Length'), []);
  const address = header(answer, 'X-CSTP-Address') ?? '';
  channel.send(FRAME.data, echoRequest(address, world.lab.lanIpv4, 7));
  await eventually('echo reply', () =>
    channel.frames.some((one) => one.type === FRAME.data && echoReply(one.payload) === 7),
  );
  channel.send(FRAME.dpdRequest, Buffer.from('are you there'));
  assert.equal((await channel.next(FRAME.dpdResponse)).payload.toString(), 'are you there');
}

function assertPlatform({ answer, postAuth }: Connected, platform: Platform): void {
  if (platform === 'windows') {
    assert.equal(postAuth?.name, 'config-auth');
    assert.equal(postAuth.attributes.get('type'), 'complete');
    assert.ok(find(postAuth, 'config'));
  } else {
    assert.equal(header(answer, 'X-CSTP-DPD'), '1800', 'a phone is not woken every 20 seconds');
  }
}
