/** `return-path: routed` with BIRD as docs/return-path.md configures it: the LAN host is the router. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { ALICE, documented, eventually, run, startBird, World, type Openconnect } from '../harness/index.ts';

const IPV4 = '10.77.0.9';
const world = await World.open({
  clients: 2,
  lanRoute: false,
  settings: { 'return-path': 'routed', users: { [ALICE.name]: { 'explicit-ipv4': IPV4 } } },
});
const { lab } = world;
after(() => world.close());
let client: Openconnect;
let ipv6: string;

before(async () => {
  await startBird(lab, lab.gateway, 'node', documented('bird node'));
  await startBird(lab, lab.lan, 'router', documented('bird router') + ROUTER_OF_STALE);
  client = await world.connected(ALICE);
  ipv6 = client.tunnel?.ipv6 ?? '';
});

test('the network learns the way to a client, IPv4 and IPv6, and sees its own address', async () => {
  assert.equal(client.tunnel?.ipv4, IPV4);
  await eventually(
    'the router has both',
    async () => (await wayTo(IPV4)) !== '' && (await wayTo(ipv6)) !== '',
  );
  assert.deepEqual([await wayTo(IPV4), await wayTo(ipv6)], ['198.51.100.1', '2001:db8:2::1']);
  assert.equal(await lab.ping(lab.lanIpv4), 3);
  assert.equal(await lab.ping(lab.lanIpv6), 3);
  // The network can begin, too.
  assert.equal(await lab.ping(IPV4, { namespace: lab.lan }), 3);
  assert.deepEqual(await ourRoutes(), [`${IPV4} metric 100`, `${ipv6} metric 100`]);
  assert.equal((await world.gateway.metrics()).get('sallyport_routes{state="announced"}'), 2);
  const { stdout: rules } = await lab.exec(lab.gateway, ['nft', 'list', 'ruleset']);
  assert.equal(rules, '');
});

test('a node that still announces a client that it lost loses against the one that took it', async (context) => {
  await staleNode();
  await eventually('the router hears both', async () => (await heard()).includes(STALE));
  assert.equal(await wayTo(IPV4), '198.51.100.1');
  await stopAndExpectWithdrawal(
    context,
    async () => void (await client.stop()),
    'lost to the stale one',
    STALE,
  );
  client = await world.connected(ALICE);
  await eventually('the node that took it wins', async () => (await wayTo(IPV4)) === '198.51.100.1');
  assert.equal(await lab.ping(lab.lanIpv4), 3);
  await lab.exec(lab.client(1), ['ip', 'link', 'delete', 'stale0']);
  assert.equal(await wayTo(IPV4), '198.51.100.1');
});

test('the network forgets the client after a disconnect', async (context) => {
  await stopAndExpectWithdrawal(context, async () => void (await client.stop()), 'withdrawn');
  assert.deepEqual(await ourRoutes(), []);
});

test('what the kernel tracked of a client that left is gone', async () => {
  const rules = 'table inet t { chain c { type filter hook forward priority 0; ct state invalid drop; }; }';
  await lab.exec(lab.gateway, ['nft', '-f', '-'], { input: rules });
  client = await world.connected(ALICE);
  await eventually('the router has it', async () => (await wayTo(IPV4)) !== '');
  assert.equal(await lab.ping(lab.lanIpv4), 3);
  assert.equal(await lab.ping(lab.lanIpv6), 3);
  assert.match(await tracked(), new RegExp(`src=${IPV4} dst=${lab.lanIpv4}`));
  assert.match(await tracked(), new RegExp(`dst=${lab.lanIpv6}`));
  await client.stop();
  await eventually('nothing is tracked', async () => !/src=10\.77\.|src=fd00:77:/.test(await tracked()));
  await lab.exec(lab.gateway, ['nft', 'delete', 'table', 'inet', 't']);
});

test('the network forgets all clients after kill -9, and finds them again after a new start', async (context) => {
  client = await world.connected(ALICE);
  await eventually('the router has it', async () => (await wayTo(IPV4)) !== '');
  await stopAndExpectWithdrawal(context, () => world.gateway.kill(), 'withdrawn');
  assert.deepEqual(await ourRoutes(), []);
  await world.gateway.start();
  await eventually('the router has it again', async () => (await wayTo(IPV4)) !== '');
  assert.equal(await lab.ping(lab.lanIpv4), 3);
  assert.equal(await client.stop(), 0);
});

/** The router must lose the way, or have `way`, which on an idle machine takes less than 5 s. */
async function stopAndExpectWithdrawal(
  context: TestContext,
  stop: () => Promise<void>,
  what: string,
  way = '',
): Promise<void> {
  const begun = performance.now();
  const stopped = stop();
  await eventually(what, async () => (await wayTo(IPV4)) === way);
  context.diagnostic(`${what} after ${Math.round(performance.now() - begun)} ms`);
  await stopped;
}

/** @returns next hop on the router; '' = it has no route. */
async function wayTo(address: string): Promise<string> {
  const family = address.includes(':') ? ['-6'] : [];
  const { stdout } = await run(['ip', '-n', lab.lan, ...family, 'route', 'show', address]);
  return /via (\S+)/.exec(stdout)?.[1] ?? '';
}

/** What the router's daemon has for the client, chosen or not. */
async function heard(): Promise<string> {
  const show = ['show', 'route', 'for', IPV4, 'all'];
  return (await run(['birdc', '-s', join(lab.folder, 'router.ctl'), ...show])).stdout;
}

async function ourRoutes(): Promise<string[]> {
  const lists = ['-4', '-6'].map((family) =>
    run(['ip', '-n', lab.gateway, family, 'route', 'show', 'proto', '183']),
  );
  return (await Promise.all(lists)).flatMap(({ stdout }) =>
    [...stdout.matchAll(/^(\S+) .*(metric \d+)/gm)].map(([, prefix, metric]) => `${prefix} ${metric}`),
  );
}

async function tracked(): Promise<string> {
  const lists = ['ipv4', 'ipv6'].map((family) => lab.exec(lab.gateway, ['conntrack', '-L', '-f', family]));
  return (await Promise.all(lists)).map(({ stdout }) => stdout).join('');
}

/** A second node beside the LAN that has the client's address for longer than a minute. */
async function staleNode(): Promise<void> {
  const other = lab.client(1);
  const link = ['type', 'veth', 'peer', 'name', 'stale', 'netns', lab.lan];
  await run(['ip', 'link', 'add', 'lan', 'netns', other, ...link]);
  for (const [namespace, device, address] of [
    [other, 'lan', STALE],
    [lab.lan, 'stale', '203.0.113.2'],
  ] as const) {
    await run(['ip', '-n', namespace, 'address', 'add', `${address}/24`, 'dev', device]);
    await run(['ip', '-n', namespace, 'link', 'set', device, 'up']);
  }
  await lab.exec(other, ['ip', 'tuntap', 'add', 'dev', 'stale0', 'mode', 'tun']);
  await run(['ip', '-n', other, 'link', 'set', 'stale0', 'up']);
  await run([...['ip', '-n', other, 'route', 'add', IPV4, 'dev', 'stale0', 'proto', '183', 'metric', '200']]);
  const config = documented('bird node').replaceAll('198.51.100.', '203.0.113.');
  await startBird(lab, other, 'stale', config.replace(/protocol bgp router6[^]*?\n}\n/, ''));
}

const STALE = '203.0.113.1';
const ROUTER_OF_STALE = `
protocol bgp stale4 from node {
  local 203.0.113.2 as 64512;
  neighbor ${STALE} as 64512;
  ipv4 { import where net ~ [ 10.77.0.0/24{24,32} ]; export none; };
}
`;
