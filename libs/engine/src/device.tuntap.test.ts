import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import {
  attach,
  CLIENT_PORT,
  CONTRACT_POOLS,
  engineContract,
  HOST_PORT,
  IPV4,
  IPV6,
  mailbox,
  type ContractHost,
} from './contract.ts';
import { createEngine } from './create.ts';
import { inNamespace } from './namespace.ts';

inNamespace(import.meta.url, () => {
  engineContract({
    name: 'portable on a TUN device',
    capabilities: ['cstp'],
    async open() {
      const engine = await createEngine({ engine: 'auto', device: 'sptest0', pools: CONTRACT_POOLS });
      return { engine, host: await udpHost() };
    },
  });

  for (const net of [IPV4, IPV6]) {
    test(`a host that sends too large packets learns the MTU of the tunnel (${net.name})`, async (t) => {
      const engine = await createEngine({ engine: 'portable', device: 'sptest0', pools: CONTRACT_POOLS });
      t.after(() => engine.close());
      const host = await udpHost();
      t.after(() => host.close());
      const client = attach(engine, 1, net.clients[1], 1300);
      const payload = new Uint8Array(1400);
      host.send(net.clients[1], payload);
      while (engine.stats().drops['too-big'] === 0) await new Promise((done) => setTimeout(done, 5));
      // The kernel has our answer: it cuts the next one itself.
      host.send(net.clients[1], payload);
      assert.ok((await client.next()).length <= 1300);
      assert.ok((await client.next()).length <= 1300);
    });
  }

  test('the device has the address of the gateway in each pool and no other address, and is gone after close', async (t) => {
    const pools = [
      '10.90.0.0/16',
      '10.90.9.0/24',
      '10.91.0.0/24',
      '10.92.0.4/32',
      '10.92.0.8/31',
      'fd00:90::/48',
    ];
    const engine = await createEngine({ engine: 'auto', device: 'sptest1', pools });
    t.after(() => engine.close());
    assert.equal(engine.device, 'sptest1');
    const addresses = ip('-o', 'address', 'show', 'dev', 'sptest1').matchAll(/inet6? (\S+)/g);
    assert.deepEqual(
      [...addresses].map((match) => match[1]),
      ['10.90.0.1/32', '10.91.0.1/32', '10.92.0.8/32', 'fd00:90::1/128'],
    );
    assert.match(ip('link', 'show', 'dev', 'sptest1'), /mtu 1500/);
    for (const pool of pools.slice(0, 3)) assert.match(ip('route'), new RegExp(`^${pool} dev sptest1`, 'm'));
    assert.match(ip('-6', 'route'), /^fd00:90::\/48 dev sptest1/m);
    await engine.close();
    assert.doesNotMatch(ip('link') + ip('route') + ip('-6', 'route'), /sptest1/);
  });

  test('a name that is taken is refused with a sentence, and nothing is left', async () => {
    ip('link', 'add', 'sptaken', 'type', 'veth', 'peer', 'name', 'sptaken1');
    const before = ip('-o', 'link').split('\n').length;
    const opening = createEngine({ engine: 'auto', device: 'sptaken', pools: CONTRACT_POOLS });
    await assert.rejects(opening, { message: /^The network interface sptaken exists already: .*\.$/ });
    assert.equal(ip('-o', 'link').split('\n').length, before);
    ip('link', 'delete', 'sptaken');
  });

  test('says when somebody takes the device away, and not when it is closed', async (t) => {
    let lost = 0;
    const onLost = () => (lost += 1);
    const closed = await createEngine({ engine: 'auto', device: 'sptest3', pools: CONTRACT_POOLS, onLost });
    await closed.close();
    assert.equal(lost, 0);
    const gone = new Promise<void>((resolve) => {
      const opening = createEngine({
        engine: 'auto',
        device: 'sptest3',
        pools: CONTRACT_POOLS,
        onLost: resolve,
      });
      void opening.then((engine) => {
        t.after(() => engine.close());
        ip('link', 'delete', 'sptest3');
      });
    });
    await gone;
  });

  test('is as it was again after somebody set it down and up, or took a route away', async (t) => {
    const pools = ['10.90.0.0/16', 'fd00:90::/48'];
    let restored: () => void = () => undefined;
    const engine = await createEngine({
      ...{ engine: 'auto', device: 'sptest4', pools },
      onRestored: () => restored(),
    });
    t.after(() => engine.close());
    const picture = () =>
      ip('-o', 'address', 'show', 'dev', 'sptest4') +
      ip('route') +
      ip('-6', 'route', 'show', 'dev', 'sptest4');
    const before = picture();
    for (const harm of [
      ['link', 'set', 'sptest4', 'down'],
      ['-6', 'route', 'delete', 'fd00:90::/48', 'dev', 'sptest4'],
    ]) {
      const again = new Promise<void>((resolve) => (restored = resolve));
      ip(...harm);
      if (harm.includes('down')) ip('link', 'set', 'sptest4', 'up');
      assert.notEqual(picture(), before);
      await again;
      assert.equal(picture(), before);
    }
  });

  test('nothing is left of the device when its process is killed, and the name can be taken at once', async (t) => {
    const source = `
      import { createEngine } from ${JSON.stringify(new URL('./create.js', import.meta.url).href)};
      await createEngine({ engine: 'auto', device: 'sptest2', pools: ['10.90.0.0/16', 'fd00:90::/48'] });
      console.log('open');
      setInterval(() => undefined, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    assert.match(ip('route'), /sptest2/);
    child.kill('SIGKILL');
    await once(child, 'exit');
    const engine = await createEngine({ engine: 'auto', device: 'sptest2', pools: ['10.90.0.0/16'] });
    t.after(() => engine.close());
    assert.doesNotMatch(ip('-6', 'route'), /sptest2/);
    await engine.close();
    assert.doesNotMatch(ip('link') + ip('route'), /sptest2/);
  });
});

function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8' });
}

async function udpHost(): Promise<ContractHost> {
  const arrived = mailbox<{ from: string; payload: string }>();
  const sockets = { ipv4: createSocket('udp4'), ipv6: createSocket('udp6') };
  for (const [socket, address] of [
    [sockets.ipv4, IPV4.gateway],
    [sockets.ipv6, IPV6.gateway],
  ] as const) {
    socket.on('message', (message, sender) => {
      arrived.put({ from: sender.address, payload: message.toString() });
    });
    socket.bind(HOST_PORT, address);
    await once(socket, 'listening');
  }
  return {
    send(to, payload) {
      (to.includes(':') ? sockets.ipv6 : sockets.ipv4).send(payload, CLIENT_PORT, to);
    },
    next: () => arrived.next(),
    async close() {
      sockets.ipv4.close();
      sockets.ipv6.close();
      await Promise.resolve();
    },
  };
}
