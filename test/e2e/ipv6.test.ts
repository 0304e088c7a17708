import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { ALICE, BOB, header, World } from '../harness/index.ts';

const world = await World.open({
  settings: {
    groups: {
      staff: {},
      guests: { 'ipv4-network': [], 'ipv6-network': 'fd00:66::/64', route: ['2001:db8:2::/64'], dns: [] },
    },
  },
});
after(() => world.close());

test('row 26: a dual stack client reaches both families', async () => {
  const client = await world.connected(ALICE);
  assert.match(client.tunnel?.ipv4 ?? '', /^10\.77\.0\./);
  assert.match(client.tunnel?.ipv6 ?? '', /^fd00:77:/);
  assert.equal(await world.lab.ping(world.lab.lanIpv4), 3);
  assert.equal(await world.lab.ping(world.lab.lanIpv6), 3);
  assert.equal(await client.stop(), 0);
});

test('row 26: an IPv6-only client has no IPv4 address and reaches the LAN', async () => {
  const client = await world.connected(BOB);
  assert.equal(client.tunnel?.ipv4, '');
  assert.match(client.tunnel?.ipv6 ?? '', /^fd00:66:/);
  assert.equal(await world.lab.ping(world.lab.lanIpv6), 3);
  client.signal('SIGUSR2');
  await client.whenConnects(2);
  assert.equal(await world.lab.ping(world.lab.lanIpv6), 3);
  assert.equal(await client.stop(), 0);
});

test('row 26: IPv6 outside the tunnel carries IPv4 and IPv6 inside', async () => {
  const client = await world.connected(ALICE, { url: `https://[${world.lab.gatewayIpv6}]` });
  assert.equal(await world.lab.ping(world.lab.lanIpv4), 3);
  assert.equal(await world.lab.ping(world.lab.lanIpv6), 3);
  assert.equal(await client.stop(), 0);
});

test('row 26: the announced MTU passes whole in both directions', async () => {
  const client = await world.connected(ALICE);
  const mtu = client.tunnel?.mtu ?? 0;
  assert.ok(mtu >= 1280 && mtu <= 1500, `MTU ${mtu}`);
  assert.equal(await world.lab.ping(world.lab.lanIpv4, { size: mtu - 28 }), 3);
  assert.equal(await world.lab.ping(world.lab.lanIpv6, { size: mtu - 48 }), 3);
  assert.equal(await client.stop(), 0);
});

test('row 26: a link too small for IPv6 gets an IPv4 address only, and IPv6 alone is refused', async () => {
  const small: [string, string][] = [
    ['X-CSTP-Base-MTU', '1200'],
    ['X-CSTP-MTU', '1100'],
  ];
  const dual = await (await world.loggedIn(ALICE)).connect(small);
  assert.equal(dual.answer.status, 200);
  assert.ok(header(dual.answer, 'X-CSTP-Address'));
  assert.equal(header(dual.answer, 'X-CSTP-Address-IP6'), undefined);
  dual.tls.close();
  assert.notEqual((await (await world.loggedIn(BOB)).connect(small)).answer.status, 200);
});

test('row 26: a client that wants IPv4 only gets IPv4 only', async () => {
  const { answer, tls } = await (await world.loggedIn(ALICE)).connect([['X-CSTP-Address-Type', 'IPv4']]);
  assert.ok(header(answer, 'X-CSTP-Address'));
  assert.equal(header(answer, 'X-CSTP-Address-IP6'), undefined);
  tls.close();
});
