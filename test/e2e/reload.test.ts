import assert from 'node:assert/strict';
import { appendFileSync, copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ALICE, eventually, sha1Hex, sha1Of, TlsClient, userLine, World } from '../harness/index.ts';

const world = await World.open();
after(() => world.close());

test('reload takes certificates, users and keys; tunnels go on', async () => {
  const client = await world.connected(ALICE);
  const fresh = await world.authority.server('rsa', 'vpn.example.test', [world.lab.gatewayIpv4]);
  appendFileSync(world.usersFile, await userLine('erin', 'pass erin', ['staff']));
  world.gateway.configure({
    ...world.settings,
    'server-cert': fresh.cert,
    'server-key': fresh.key,
    banner: 'New words.',
  });
  await world.gateway.cli(['reload']);

  const later = world.anyConnect();
  const step = await later.login('erin', 'pass erin');
  assert.equal(step.authId, 'success');
  assert.match(step.banner, /New words/);
  assert.deepEqual([...new Set(later.certificateHashes)], [sha1Of(fresh.cert)]);
  assert.equal(await world.lab.ping(world.lab.lanIpv4), 3);
  assert.equal(client.connects, 1, 'the tunnel was not touched');
  assert.equal(await client.stop(), 0);
});

test('RSA and ECDSA certificates stand together, each client gets the one it can use', async () => {
  const rsa = await world.authority.server('rsa', 'vpn.example.test', [world.lab.gatewayIpv4]);
  world.gateway.configure({
    ...world.settings,
    'server-cert': [rsa.cert, world.server.cert],
    'server-key': [rsa.key, world.server.key],
  });
  await world.gateway.cli(['reload']);
  for (const [ciphers, cert] of [
    ['ECDHE-RSA-AES128-GCM-SHA256', rsa.cert],
    ['ECDHE-ECDSA-AES128-GCM-SHA256', world.server.cert],
  ] as const) {
    const tls = await TlsClient.open({ lab: world.lab }, { version: 'TLSv1.2', ciphers });
    assert.equal(sha1Hex(tls.certificate.raw), sha1Of(cert));
    tls.close();
  }
});

test('a bad configuration is refused with file and line, and the old one stays', async () => {
  const before = await world.gateway.show('status');
  world.gateway.configure({ ...world.settings, 'ipv4-netwrok': '10.78.0.0/24' });
  const refused = await world.gateway.cli(['reload'], { anyCode: true });
  assert.notEqual(refused.code, 0);
  assert.match(refused.stdout + refused.stderr, /gateway\.yaml:\d+:.*ipv4-network/s);
  assert.equal((await world.anyConnect().login(ALICE.name, ALICE.password)).authId, 'success');
  assert.ok(before);
});

test('SIGHUP reloads too, and a certificate that does not fit its key is refused', async () => {
  const broken = join(world.lab.folder, 'broken.pem');
  copyFileSync(world.authority.ca.cert, broken);
  world.gateway.configure({ ...world.settings, 'server-cert': broken });
  world.gateway.signal('SIGHUP');
  await eventually('the log says so', () =>
    world.gateway.logLines().some((line) => line.level >= 40 && /config|certificate|reload/i.test(line.msg)),
  );
  assert.equal((await world.anyConnect().login(ALICE.name, ALICE.password)).authId, 'success');
});
