import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ALICE, eventually, World } from '../harness/index.ts';

// haproxy forwards TCP from port 8443 to the gateway and sends the PROXY protocol; it stands on the gateway's machine.
const world = await World.open({ settings: { 'trusted-proxies': ['192.0.2.1/32'] } });
after(() => world.close());
const balancers = { 8443: 'send-proxy-v2', 8444: 'send-proxy', 8445: '' };
writeFileSync(
  join(world.lab.folder, 'haproxy.cfg'),
  [
    'defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h',
    ...Object.entries(balancers).map(
      ([port, option]) =>
        `listen on${port}\n  bind 192.0.2.1:${port}\n  server gateway 192.0.2.1:443 ${option}`,
    ),
    '',
  ].join('\n'),
);
world.lab.spawn(world.lab.gateway, ['haproxy', '-db', '-f', join(world.lab.folder, 'haproxy.cfg')]);
await eventually('haproxy', () =>
  world.lab.dial(world.lab.client(), '192.0.2.1', 8443).then(
    (socket) => !socket.destroy().readable,
    () => false,
  ),
);

test('row K5: behind a balancer the session shows the address of its client', async () => {
  for (const port of [8443, 8444]) {
    const client = await world.connected(ALICE, { url: `https://192.0.2.1:${port}` });
    const [shown] = await world.gateway.users();
    assert.deepEqual([shown?.['Remote IP'], shown?.['Local Device IP']], [world.lab.clientIpv4, '192.0.2.1']);
    assert.equal(await world.lab.ping(world.lab.lanIpv4), 3);
    await client.stop();
    await eventually('gone', async () => (await world.gateway.users()).length === 0);
  }
});

test('row K5: a balancer that is trusted and sends no header gets nobody in, and is named', async () => {
  const client = world.openconnect(ALICE, { url: 'https://192.0.2.1:8445' });
  assert.notEqual(await client.exited, 0);
  const refused = { result: 'proxy-header' };
  assert.ok((await world.gateway.metric('sallyport_tls_handshakes_total', refused)) > 0);
  const warning = world.gateway.logLines().find(({ msg }) => msg.includes('must begin with a PROXY header'));
  assert.equal(warning?.['proxy'], '192.0.2.1');
});

test('V35: a header from a client itself is no ClientHello', async () => {
  const errors = () => world.gateway.metric('sallyport_tls_handshakes_total', { result: 'error' });
  const before = await errors();
  const socket = await world.lab.dial(world.lab.client(), '192.0.2.1', 443);
  socket.resume().write('PROXY TCP4 203.0.113.9 192.0.2.1 1000 443\r\n');
  await eventually('closed', () => socket.readableEnded || socket.closed);
  socket.destroy();
  assert.equal(await errors(), before + 1);
  // And directly it goes on as ever.
  await (await world.connected(ALICE)).stop();
});
