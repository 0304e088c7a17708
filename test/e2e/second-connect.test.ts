import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import {
  echoReply,
  echoRequest,
  eventually,
  FRAME,
  header,
  World,
  type Connected,
} from '../harness/index.ts';

const world = await World.open();
after(() => world.close());

test('row 22: a second CONNECT takes the session over, the old connection closes without a packet', async () => {
  const client = await world.loggedIn();
  const old = await client.connect();
  const next = await client.connect();
  assert.equal(next.answer.status, 200);
  for (const name of ['X-CSTP-Address', 'X-CSTP-Netmask', 'X-CSTP-Address-IP6']) {
    assert.equal(header(next.answer, name), header(old.answer, name), name);
  }
  await old.channel.whenClosed();
  assert.deepEqual(
    old.channel.frames.filter((one) => one.type === FRAME.disconnect || one.type === FRAME.terminate),
    [],
  );
  await assertAlive(next);
  next.channel.bye(0xb0);
});

test('row 22: a BYE of the old connection does not end the session', async () => {
  const client = await world.loggedIn();
  for (let round = 0; round < 5; round++) {
    const old = await client.connect();
    const pending = client.connect();
    old.channel.bye(0xb0, 'Server request');
    const next = await pending;
    if (next.answer.status === 401) {
      // The BYE came first: then it was no old connection's.
      assert.equal((await client.connect()).answer.status, 401);
      return;
    }
    old.channel.bye(0xb0, 'Server request');
    await old.channel.whenClosed();
    await assertAlive(next);
    const third = await client.connect();
    assert.equal(third.answer.status, 200);
    third.tls.close();
  }
});

test('row 22: of two CONNECTs at the same moment one keeps the tunnel', async () => {
  const client = await world.loggedIn();
  const both = await Promise.all([client.connect(), client.connect()]);
  assert.deepEqual(
    both.map(({ answer }) => answer.status),
    [200, 200],
  );
  await eventually('one of them closes', () => both.some(({ channel }) => channel.closed));
  const alive = both.filter(({ channel }) => !channel.closed);
  assert.equal(alive.length, 1);
  for (const one of alive) await assertAlive(one);
});

for (const [reason, name] of [
  [0x91, 'network changed'],
  [0xd1, 'pause'],
  [0x70, 'local error'],
] as const) {
  test(`row 23: after BYE 0x${reason.toString(16)} (${name}) the token works and gives the same address`, async () => {
    const client = await world.loggedIn();
    const first = await client.connect();
    first.channel.bye(reason, name);
    await first.channel.whenClosed();
    const second = await client.connect();
    assert.equal(second.answer.status, 200);
    assert.equal(header(second.answer, 'X-CSTP-Address'), header(first.answer, 'X-CSTP-Address'));
    second.channel.bye(0xb0);
  });
}

test('row 23: after BYE 0xb0 the token is dead', async () => {
  const client = await world.loggedIn();
  const { channel } = await client.connect();
  channel.bye(0xb0);
  await channel.whenClosed();
  assert.equal((await client.connect()).answer.status, 401);
});

test('row 23: a connection that closes without BYE leaves the session for its client', async () => {
  const client = await world.loggedIn();
  const first = await client.connect();
  first.tls.close();
  const second = await client.connect();
  assert.equal(second.answer.status, 200);
  assert.equal(header(second.answer, 'X-CSTP-Address'), header(first.answer, 'X-CSTP-Address'));
  second.tls.close();
});

test('logout by document or by page ends the session', async () => {
  const byDocument = await world.loggedIn();
  assert.equal((await byDocument.logout()).status, 200);
  assert.equal((await byDocument.connect()).answer.status, 401);
  const byPage = await world.loggedIn();
  assert.equal((await byPage.exchange('GET', '/+webvpn+/webvpn_logout.html')).status, 200);
  byPage.cookies.set('webvpn', byPage.token);
  assert.equal((await byPage.connect()).answer.status, 401);
});

async function assertAlive({ answer, channel }: Connected): Promise<void> {
  const sequence = Math.floor(Math.random() * 60_000);
  channel.send(FRAME.data, echoRequest(header(answer, 'X-CSTP-Address') ?? '', world.lab.lanIpv4, sequence));
  await eventually('echo reply', () =>
    channel.frames.some((one) => one.type === FRAME.data && echoReply(one.payload) === sequence),
  );
}
