import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { ALICE, BOB, header, World } from '../harness/index.ts';

const world = await World.open({
  settings: {
    'ipv4-network': '10.77.0.0/29',
    'ipv6-network': [],
    route: ['198.51.100.0/24'],
    'max-same-clients': 2,
    banner: 'Welcome.\nBe good.',
    groups: { guests: { 'max-same-clients': 0 } },
  },
});
after(() => world.close());

test('row 13: CONNECT with an unknown or without a token is answered 401', async () => {
  const client = world.anyConnect();
  assert.equal((await client.connect()).answer.status, 401);
  client.cookies.set('webvpn', 'q8Zk'.repeat(11));
  const { answer } = await client.connect();
  assert.equal(answer.status, 401);
  assert.equal(header(answer, 'Content-Length'), '0');
});

test('row 13: openconnect with a dead cookie says so and ends', async () => {
  const client = world.openconnect(ALICE, { more: ['-C', `webvpn=${'q8Zk'.repeat(11)}`] });
  assert.equal(await client.exited, 2);
  assert.match(client.output, /Cookie was rejected by server/);
});

test('openconnect shows the banner when the tunnel is up', async () => {
  const client = world.openconnect(ALICE, { group: 'Staff' });
  await client.whenUp();
  assert.match(client.output, /^BANNER Welcome\. Be good\.$/m);
  await client.stop();
});

test('row 13: one session more than a user may have is answered 503 with a reason', async () => {
  const tunnels = [];
  for (let index = 0; index < 2; index++) tunnels.push(await (await world.loggedIn(ALICE)).connect());
  const { answer } = await (await world.loggedIn(ALICE)).connect();
  assert.equal(answer.status, 503);
  assert.match(header(answer, 'X-Reason') ?? '', /too many sessions/i);
  const client = world.openconnect(ALICE, { group: 'Staff' });
  assert.notEqual(await client.exited, 0);
  assert.match(client.output, /VPN service unavailable; reason: You have too many sessions/);
  for (const { channel } of tunnels) channel.bye(0xb0);
});

test('row 13: a pool without free addresses is answered 503 with a reason, and the same token works later', async () => {
  const first = await (await world.loggedIn(BOB)).connect();
  const tunnels = [first];
  let waiting = await world.loggedIn(BOB);
  let refused = await waiting.connect();
  while (refused.answer.status === 200) {
    tunnels.push(refused);
    assert.ok(tunnels.length < 8, 'a /29 has no more');
    waiting = await world.loggedIn(BOB);
    refused = await waiting.connect();
  }
  assert.ok(tunnels.length >= 4, `${tunnels.length} clients in a /29`);
  assert.equal(refused.answer.status, 503);
  assert.match(header(refused.answer, 'X-Reason') ?? '', /no address is free/i);
  first.channel.bye(0xb0);
  await first.channel.whenClosed();
  const later = await waiting.connect();
  assert.equal(later.answer.status, 200);
  assert.equal(header(later.answer, 'X-CSTP-Address'), header(first.answer, 'X-CSTP-Address'));
  for (const { tls } of [...tunnels, later]) tls.close();
});
