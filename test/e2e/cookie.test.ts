import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { ALICE, World } from '../harness/index.ts';

const world = await World.open();
after(() => world.close());

test('row 27: a tunnel from `--authenticate` and `-C webvpn=…` needs no password', async () => {
  const { cookie, fingerprint } = await world.authenticate(ALICE, { group: 'Staff' });
  assert.equal(fingerprint, world.pin);
  const token = /webvpn=([^;]+)/.exec(cookie)?.[1];
  assert.ok(token);
  const client = await world.connected(ALICE, {
    user: undefined,
    password: undefined,
    more: ['-C', `webvpn=${token}`],
  });
  assert.equal(client.posts, 0);
  assert.equal(await world.lab.ping(world.lab.lanIpv4), 3);
  assert.equal(await client.stop(), 0);
});

test('row 27: with `openconnect_strapkey=…` in the cookie CONNECT is signed and accepted, also again', async () => {
  const { cookie } = await world.authenticate(ALICE, { group: 'Staff' });
  assert.match(cookie, /openconnect_strapkey=.*webvpn=/);
  const client = await world.connected(ALICE, { user: undefined, password: undefined, more: ['-C', cookie] });
  client.signal('SIGUSR2');
  await client.whenConnects(2);
  assert.equal(await world.lab.ping(world.lab.lanIpv4), 3);
  assert.equal(await client.stop(), 0);
});

test('row 27: a detached client (SIGHUP) leaves its session, a second process continues it', async () => {
  const { cookie } = await world.authenticate(ALICE, { group: 'Staff' });
  const options = { user: undefined, password: undefined, more: ['-C', cookie] };
  const first = await world.connected(ALICE, options);
  const address = first.tunnel?.ipv4;
  first.signal('SIGHUP');
  await first.exited;
  const second = await world.connected(ALICE, options);
  assert.equal(second.tunnel?.ipv4, address);
  assert.equal(await second.stop(), 0);
});
