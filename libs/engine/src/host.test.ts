import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { attach, CONTRACT_POOLS, HOST_PORT, IPV4, IPV6, text, udpPacket, udpPayload } from './contract.ts';
import { createEngine } from './create.ts';
import { prepareHost, recoverHost } from './host.ts';
import { inNamespace } from './namespace.ts';
import { preflight } from './preflight.ts';

inNamespace(import.meta.url, () => {
  test("a client reaches a host behind the gateway by the gateway's address, and hears it, over IPv4 and IPv6", async (t) => {
    const behind = await hostBehind(t);
    const engine = await createEngine({ engine: 'auto', device: 'sphost0', pools: CONTRACT_POOLS });
    t.after(() => engine.close());
    const host = await prepareHost(settings(t));
    t.after(() => host.close());
    const client4 = attach(engine, 1, IPV4.clients[0]);
    const client6 = attach(engine, 2, IPV6.clients[0]);

    engine.write(1, [udpPacket(IPV4.clients[0], behind.ipv4, text('who am I?'))]);
    assert.equal(udpPayload(await client4.next()), GATEWAY4);
    engine.write(2, [udpPacket(IPV6.clients[0], behind.ipv6, text('who am I?'))]);
    assert.equal(udpPayload(await client6.next()), GATEWAY6);
  });

  test('clients reach each other, and the kernel tells neither of a shorter way', async (t) => {
    const engine = await createEngine({ engine: 'auto', device: 'sphost0', pools: CONTRACT_POOLS });
    t.after(() => engine.close());
    const host = await prepareHost({ ...settings(t), returnPath: 'none' });
    t.after(() => host.close());
    const [one, two] = IPV4.clients;
    const sender = attach(engine, 1, one);
    const receiver = attach(engine, 2, two);
    engine.write(1, [udpPacket(one, two, text('hello'))]);
    assert.equal(udpPayload(await receiver.next()), 'hello');
    while (engine.stats().drops.redirect === 0) await new Promise((done) => setTimeout(done, 5));
    assert.equal(sender.waiting, 0);
  });

  test('with return-path none the host sees the address of the client', async (t) => {
    const behind = await hostBehind(t);
    const engine = await createEngine({ engine: 'auto', device: 'sphost0', pools: CONTRACT_POOLS });
    t.after(() => engine.close());
    const host = await prepareHost({ ...settings(t), returnPath: 'none' });
    t.after(() => host.close());
    const client = attach(engine, 1, IPV4.clients[0]);
    engine.write(1, [udpPacket(IPV4.clients[0], behind.ipv4, text('who am I?'))]);
    assert.equal(udpPayload(await client.next()), IPV4.clients[0]);
    assert.doesNotMatch(nft('list', 'ruleset'), /sallyport/);
  });

  test('with a range a client is translated to an address of it, always the same', async (t) => {
    const behind = await hostBehind(t);
    for (const last of [8, 9, 10]) ip('address', 'add', `192.0.2.${last}/32`, 'dev', 'spgw0');
    const engine = await createEngine({ engine: 'auto', device: 'sphost0', pools: CONTRACT_POOLS });
    t.after(() => engine.close());
    const host = await prepareHost({ ...settings(t), natAddresses: ['192.0.2.8-192.0.2.10'] });
    t.after(() => host.close());
    assert.deepEqual(
      [...nft('list', 'ruleset').matchAll(/(snat|masquerade).*/g)].map(([rule]) => rule),
      ['snat ip to 192.0.2.8-192.0.2.10 fully-random,persistent', 'masquerade fully-random'],
    );
    const client = attach(engine, 1, IPV4.clients[0]);
    const seen = new Set<string>();
    for (let n = 0; n < 8; n += 1) {
      engine.write(1, [udpPacket(IPV4.clients[0], behind.ipv4, text('who am I?'), [4000 + n, HOST_PORT])]);
      seen.add(udpPayload(await client.next()));
    }
    assert.match([...seen].join(), /^192\.0\.2\.([89]|10)$/);
    const { connections = 0, limit = 0 } = host.returnPath.stats().translation ?? {};
    assert.ok(connections >= 8 && limit > connections, `${connections} of ${limit}`);
  });

  test('close puts everything back and leaves the rules of others alone', async (t) => {
    foreignTable(t);
    const before = picture();
    const where = settings(t);
    const host = await prepareHost(where);
    assert.match(nft('list', 'ruleset'), /table inet sallyport_sphost0/);
    assert.deepEqual([sysctl('net/ipv4/ip_forward'), sysctl('net/ipv6/conf/all/forwarding')], ['1', '1']);
    await Promise.all([host.close(), host.close()]);
    assert.equal(picture(), before);
    assert.equal(await recoverHost(where.stateDir), false);
  });

  test('what a killed process left is put back by the next start, also with other settings', async (t) => {
    foreignTable(t);
    const before = picture();
    const where = settings(t);
    await killedGateway(where.stateDir);
    assert.match(nft('list', 'ruleset'), /sallyport_sphost0/);
    assert.equal(sysctl('net/ipv4/ip_forward'), '1');

    const host = await prepareHost({ ...where, device: 'sphost9', returnPath: 'none' });
    assert.doesNotMatch(nft('list', 'ruleset'), /sallyport/);
    await host.close();
    assert.equal(picture(), before);

    await killedGateway(where.stateDir);
    assert.equal(await recoverHost(where.stateDir), true);
    assert.equal(picture(), before);
  });

  test('what a gateway left before a reboot is not put back: the settings are new ones', async (t) => {
    const where = settings(t);
    await killedGateway(where.stateDir);
    const file = join(where.stateDir, 'host.json');
    const changes: unknown = JSON.parse(readFileSync(file, 'utf8'));
    writeFileSync(file, JSON.stringify({ ...Object(changes), boot: 'another' }));
    nft('delete', 'table', 'inet', 'sallyport_sphost0');
    t.after(() => {
      for (const name of ['ipv4/ip_forward', 'ipv6/conf/all/forwarding'])
        writeFileSync(`/proc/sys/net/${name}`, '0');
    });
    assert.equal(await recoverHost(where.stateDir), false);
    assert.equal(existsSync(file), false);
    assert.equal(sysctl('net/ipv4/ip_forward'), '1');
  });

  test('forwarding stays on while another gateway of this host needs it', async (t) => {
    const one = await createEngine({ engine: 'auto', device: 'sphost0', pools: ['10.90.0.0/24'] });
    t.after(() => one.close());
    const first = await prepareHost({ ...settings(t), pools: ['10.90.0.0/24'] });
    // One without a route, since nobody is connected.
    const quiet = { engine: 'auto', device: 'sphost1', pools: ['10.91.0.0/24'], poolRoutes: false } as const;
    const two = await createEngine(quiet);
    t.after(async () => {
      await two.close();
      writeFileSync('/proc/sys/net/ipv4/ip_forward', '0');
    });
    const second = await prepareHost({
      ...{ ...settings(t), device: 'sphost1', pools: ['10.91.0.0/24'], returnPath: 'routed' },
    });
    await first.close();
    assert.equal(sysctl('net/ipv4/ip_forward'), '1');
    assert.doesNotMatch(nft('list', 'ruleset'), /sallyport_sphost0/);
    await second.close();
  });

  test('forwarding that was on stays on', async (t) => {
    writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
    t.after(() => {
      writeFileSync('/proc/sys/net/ipv4/ip_forward', '0');
    });
    const where = settings(t);
    await killedGateway(where.stateDir);
    const host = await prepareHost(where);
    await host.close();
    assert.equal(sysctl('net/ipv4/ip_forward'), '1');
  });

  test('the host goes on to take router advertisements while it forwards IPv6', async (t) => {
    ip('link', 'add', 'spra0', 'type', 'veth', 'peer', 'name', 'spra1');
    t.after(() => ip('link', 'delete', 'spra0'));
    assert.equal(sysctl('net/ipv6/conf/spra0/accept_ra'), '1');
    const host = await prepareHost(settings(t));
    assert.equal(sysctl('net/ipv6/conf/spra0/accept_ra'), '2');
    await host.close();
    assert.equal(sysctl('net/ipv6/conf/spra0/accept_ra'), '1');
  });

  test('without an IPv6 pool IPv6 is left alone', async (t) => {
    const host = await prepareHost({ ...settings(t), pools: ['10.90.0.0/24'] });
    assert.equal(sysctl('net/ipv6/conf/all/forwarding'), '0');
    await host.close();
  });

  test('a FORWARD policy of DROP is named', async (t) => {
    nft('add', 'table', 'ip', 'filter');
    nft('add', 'chain', 'ip', 'filter', 'FORWARD', '{ type filter hook forward priority 0; policy drop; }');
    t.after(() => nft('delete', 'table', 'ip', 'filter'));
    const host = await prepareHost(settings(t));
    await host.close();
    assert.equal(host.warnings.length, 1);
    assert.match(
      host.warnings[0] ?? '',
      /^The chain FORWARD of the nftables table ip filter drops .*sphost0/,
    );
  });

  test('a device name that is not one, and a state file that is not ours, change nothing', async (t) => {
    const before = picture();
    const where = settings(t);
    await assert.rejects(prepareHost({ ...where, device: 'x; flush ruleset' }), /device/);
    await assert.rejects(prepareHost({ ...where, natAddresses: ['192.0.2.8; drop'] }), /nat-addresses/);
    const file = join(where.stateDir, 'host.json');
    for (const sysctls of [
      [['kernel/core_pattern', '1']],
      [['net/ipv6/conf/../../ipv4/ip_forward/accept_ra', '1']],
      7,
    ]) {
      writeFileSync(file, JSON.stringify({ v: 1, table: '', sysctls }));
      await assert.rejects(prepareHost(where), /host\.json is not readable/);
    }
    assert.equal(picture(), before);
  });

  test('preflight refuses a pool that overlaps an address or a route, in one sentence', async (t) => {
    ip('link', 'add', 'spover0', 'type', 'veth', 'peer', 'name', 'spover1');
    t.after(() => ip('link', 'delete', 'spover0'));
    ip('address', 'add', '10.90.3.1/24', 'dev', 'spover0');
    ip('address', 'add', 'fd00:91::1/64', 'dev', 'spover0', 'nodad');
    ip('link', 'set', 'spover0', 'up');
    ip('link', 'set', 'spover1', 'up');
    ip('route', 'add', 'default', 'via', '10.90.3.9');
    ip('-6', 'route', 'add', 'default', 'via', 'fd00:91::9');
    ip('route', 'add', '10.92.0.0/16', 'via', '10.90.3.9');
    ip('route', 'add', '10.93.0.0/16', 'via', '10.90.3.9', 'proto', 'bird');
    ip('-6', 'route', 'add', 'fd00:93::/48', 'via', 'fd00:91::9', 'proto', 'bgp');

    assert.deepEqual(await overlapping('10.90.0.0/16'), ['10.90.3.0/24 on the interface spover0']);
    assert.deepEqual(await overlapping('10.90.3.128/25'), ['10.90.3.0/24 on the interface spover0']);
    assert.deepEqual(await overlapping('fd00:91::/48'), ['fd00:91::/64 on the interface spover0']);
    assert.deepEqual(await overlapping('10.92.7.0/24'), ['10.92.0.0/16 on the interface spover0']);
    assert.deepEqual(await overlapping('10.93.0.0/16', 'fd00:93::/48', '10.94.0.0/16', 'fd00:94::/48'), []);
  });

  test('preflight names a missing TUN device and a bad pool', async () => {
    const base = { device: 'sphost0', pools: ['10.94.0.0/16'] };
    assert.deepEqual(await preflight(base), []);
    const missing = await preflight(base, '/dev/net/none');
    assert.deepEqual(
      missing.map(({ kind }) => kind),
      ['no-tun'],
    );
    const invalid = await preflight({ ...base, pools: ['10.0.0.0/33; reboot'] });
    assert.deepEqual(
      invalid.map(({ kind }) => kind),
      ['pool-invalid'],
    );
    for (const problem of [...missing, ...invalid]) assert.match(problem.text, /^[^\n]+\.$/);
  });

  test('preflight refuses to start without the right to change the network', () => {
    const source = `
      import { preflight } from ${JSON.stringify(new URL('./preflight.js', import.meta.url).href)};
      process.setgroups([]); process.setgid(65534); process.setuid(65534);
      console.log(JSON.stringify(await preflight({ device: 'sphost0', pools: [] })));`;
    const output = execFileSync(process.execPath, ['--input-type=module', '-e', source], {
      encoding: 'utf8',
    });
    assert.match(output, /"kind":"not-root","text":"[^"]*sudo[^"]*\."/);
  });
});

function settings(t: TestContext) {
  const stateDir = mkdtempSync(join(tmpdir(), 'sallyport-host-'));
  t.after(() => {
    rmSync(stateDir, { recursive: true });
  });
  return { device: 'sphost0', returnPath: 'nat', pools: CONTRACT_POOLS, stateDir } as const;
}

async function overlapping(...pools: string[]): Promise<string[]> {
  const problems = await preflight({ device: 'sphost0', pools });
  return problems.map(
    ({ text: said }) =>
      /overlaps (?:the route )?(.*?):? ?choose|overlaps (?:the route )?(.*?): /
        .exec(said)
        ?.slice(1)
        .find(Boolean) ?? said,
  );
}

async function killedGateway(stateDir: string): Promise<void> {
  const source = `
    import { prepareHost } from ${JSON.stringify(new URL('./host.js', import.meta.url).href)};
    await prepareHost(${JSON.stringify({ device: 'sphost0', returnPath: 'nat', pools: CONTRACT_POOLS, stateDir })});
    process.kill(process.pid, 'SIGKILL');`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', source], { stdio: 'inherit' });
  const [, signal] = (await once(child, 'exit')) as unknown[];
  assert.equal(signal, 'SIGKILL');
  assert.ok(existsSync(join(stateDir, 'host.json')));
}

/** A host in a namespace of its own that answers each datagram with the sender's address. */
async function hostBehind(t: TestContext): Promise<{ ipv4: string; ipv6: string }> {
  const ipv4 = '192.0.2.2';
  const ipv6 = '2001:db8::2';
  const source = `
    const { createSocket } = require('node:dgram');
    process.stdin.once('data', () => {
      for (const [type, address] of [['udp4', '${ipv4}'], ['udp6', '${ipv6}']]) {
        const socket = createSocket(type).bind(${HOST_PORT}, address, () => console.log('ready'));
        socket.on('message', (_, from) => socket.send(from.address, from.port, from.address));
      }
    });
    console.log('born');`;
  const child = spawn('unshare', ['--net', process.execPath, '-e', source], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  t.after(async () => {
    // First the link: it dies with the other namespace as well, a little later.
    ip('link', 'delete', 'spgw0');
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  await once(child.stdout, 'data');
  const inside = (...args: string[]) =>
    execFileSync('nsenter', ['-t', String(child.pid), '-n', 'ip', ...args]);
  ip('link', 'add', 'spgw0', 'type', 'veth', 'peer', 'name', 'spin0');
  ip('link', 'set', 'spin0', 'netns', String(child.pid));
  ip('address', 'add', `${GATEWAY4}/24`, 'dev', 'spgw0');
  ip('address', 'add', `${GATEWAY6}/64`, 'dev', 'spgw0', 'nodad');
  ip('link', 'set', 'spgw0', 'up');
  inside('address', 'add', `${ipv4}/24`, 'dev', 'spin0');
  inside('address', 'add', `${ipv6}/64`, 'dev', 'spin0', 'nodad');
  inside('link', 'set', 'spin0', 'up');
  inside('route', 'add', '10.90.0.0/24', 'via', GATEWAY4);
  child.stdin.write('go\n');
  await once(child.stdout, 'data');
  return { ipv4, ipv6 };
}

function foreignTable(t: TestContext): void {
  nft('add', 'table', 'inet', 'theirs');
  nft('add', 'chain', 'inet', 'theirs', 'post', '{ type nat hook postrouting priority 100; }');
  nft('add', 'rule', 'inet', 'theirs', 'post', 'ip', 'saddr', '198.51.100.0/24', 'masquerade');
  t.after(() => nft('delete', 'table', 'inet', 'theirs'));
}

/** All that the gateway may change. */
function picture(): string {
  return [nft('list', 'ruleset'), sysctl('net/ipv4/ip_forward'), sysctl('net/ipv6/conf/all/forwarding')].join(
    '\n',
  );
}

function sysctl(name: string): string {
  return readFileSync(`/proc/sys/${name}`, 'latin1').trim();
}

function nft(...args: string[]): string {
  return execFileSync('nft', args, { encoding: 'utf8' });
}

function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8' });
}

const GATEWAY4 = '192.0.2.1';
const GATEWAY6 = '2001:db8::1';
