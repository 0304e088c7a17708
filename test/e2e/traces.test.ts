import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { ALICE, eventually, Lab, leftovers, run, World } from '../harness/index.ts';

const world = await World.open({ lanRoute: false, settings: { 'return-path': 'nat' } });
after(() => world.close());

const FOREIGN =
  'table inet foreign { chain mine { type filter hook forward priority 10; counter accept; }; }';

test('return-path nat: the LAN answers without a route back, IPv4 and IPv6', async () => {
  const client = await world.connected(ALICE);
  assert.equal(await world.lab.ping(world.lab.lanIpv4), 3);
  assert.equal(await world.lab.ping(world.lab.lanIpv6), 3);
  assert.equal(await client.stop(), 0);
});

test('a planned stop takes rules, device and forwarding back, and leaves what is not its own', async () => {
  const { lab } = world;
  await lab.exec(lab.gateway, ['nft', '-f', '-'], { input: FOREIGN });
  assert.equal(await world.gateway.stop(), 0);
  const { stdout: rules } = await lab.exec(lab.gateway, ['nft', 'list', 'ruleset']);
  assert.match(rules, /table inet foreign/);
  assert.doesNotMatch(rules, /masquerade/);
  assert.deepEqual(await devices(), ['c0', 'lan', 'lo']);
  assert.equal(await forwarding(), '0');
});

test('after kill -9 a new start finds what was left and doubles nothing', async () => {
  await world.gateway.start();
  const before = await state();
  await world.gateway.kill();
  await world.gateway.start();
  assert.deepEqual(await state(), before);
  const client = await world.connected(ALICE);
  assert.equal(await world.lab.ping(world.lab.lanIpv4), 3);
  assert.equal(await client.stop(), 0);
  assert.equal(await world.gateway.stop(), 0);
  assert.equal(await forwarding(), '0', 'as it was before the start that was killed');
});

test('no log line, metric or event holds a password or token', async () => {
  await world.gateway.start();
  const client = world.anyConnect();
  await client.login(ALICE.name, ALICE.password);
  (await client.connect()).tls.close();
  const events = await world.gateway.cli(['show', 'events', '--once', '-j']);
  const metrics = [...(await world.gateway.metrics()).keys()].join('\n');
  const all = world.gateway.logs() + events.stdout + metrics;
  for (const secret of [ALICE.password, client.token]) assert.equal(all.includes(secret), false);
  assert.equal(metrics.includes(ALICE.name), false, 'no user in metrics');
});

test('a laboratory leaves no namespace and no process', async () => {
  const before = leftovers().length;
  const lab = await Lab.open({ clients: 2 });
  const sleeper = lab.spawn(lab.client(1), ['sleep', '600']);
  assert.equal(leftovers().length, before + 4);
  await lab.close();
  assert.equal(leftovers().length, before);
  await sleeper.exited;
});

async function devices(): Promise<string[]> {
  const { stdout } = await run(['ip', '-n', world.lab.gateway, '-br', 'link']);
  return stdout
    .split('\n')
    .flatMap((line) => line.split(/[@ ]/)[0] || [])
    .sort();
}

async function forwarding(): Promise<string> {
  const { stdout } = await world.lab.exec(world.lab.gateway, ['sysctl', '-n', 'net.ipv4.ip_forward']);
  return stdout.trim();
}

async function state(): Promise<{ devices: string[]; rules: string }> {
  await eventually('ready', async () => (await world.gateway.health('ready')) === 200);
  const { stdout } = await world.lab.exec(world.lab.gateway, ['nft', '-s', 'list', 'ruleset']);
  return { devices: await devices(), rules: stdout.replace(/packets \d+ bytes \d+/g, '') };
}
