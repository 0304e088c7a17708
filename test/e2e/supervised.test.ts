/** The real client while the serving process dies, freezes and is renewed, and its port stays open. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { after, describe, test, type TestContext } from 'node:test';
import { Pings } from '../cluster/pings.ts';
import { ALICE, eventually, header, ROOT, run, World, type Openconnect } from '../harness/index.ts';

const SUPERVISOR = `${ROOT}native/target/release/sallyport-supervisor`;
const noSupervisor = existsSync(SUPERVISOR) ? false : 'the supervisor is not built (no cargo)';
const noSystemd = (await run(['which', 'systemd-socket-activate'], { anyCode: true })).code !== 0;

describe('sallyport supervise', { skip: noSupervisor }, () => {
  let world: World;
  let client: Openconnect;
  const opened = (async () => {
    if (noSupervisor !== false) return;
    world = await World.open({
      launch: (role) => [process.execPath, `${ROOT}bin/sallyport`, 'supervise', ...role],
    });
    client = await world.connected(ALICE);
  })();
  after(async () => {
    await opened;
    if (noSupervisor === false) await world.close();
  });

  test('kill -9 of the serving process: the client is back and was never refused', async (context) => {
    await opened;
    await outage(context, 'kill -9', () => process.kill(servingPid(), 'SIGKILL'));
  });

  test('a frozen serving process: the client is back and was never refused', async (context) => {
    await opened;
    await outage(context, 'SIGSTOP', () => process.kill(servingPid(), 'SIGSTOP'));
  });

  test('a renewed process (SIGUSR2): the client is back and was never refused', async (context) => {
    await opened;
    await outage(context, 'SIGUSR2', () => world.gateway.signal('SIGUSR2'));
    assert.equal(
      world.gateway.logLines().filter(({ msg }) => msg.includes('died')).length,
      2,
      'it is no death',
    );
  });

  test('a login that begins while nobody serves is served', async () => {
    await opened;
    const pid = servingPid();
    world.gateway.signal('SIGUSR2');
    await eventually('nobody serves', () => !existsSync(`/proc/${pid}`));
    const { answer, tls } = await (await world.loggedIn()).connect();
    assert.equal(answer.status, 200);
    assert.ok(header(answer, 'X-CSTP-Address'));
    tls.close();
  });

  test('a balancer that asks for health while nobody serves waits for the answer', async () => {
    await opened;
    const pid = servingPid();
    world.gateway.signal('SIGUSR2');
    await eventually('nobody serves', () => !existsSync(`/proc/${pid}`));
    assert.equal(await world.gateway.health('live'), 200);
    await eventually('ready', async () => (await world.gateway.health('ready')) === 200);
  });

  test('`stop now` and a planned stop end all of it with 0', async () => {
    await opened;
    const pid = servingPid();
    await world.gateway.cli(['stop', 'now']);
    await eventually('end', () => !world.gateway.running);
    assert.equal(existsSync(`/proc/${pid}`), false);
    assert.match(world.gateway.logs(), /"signal":"SIGTERM","msg":"stopping"/);
    await world.gateway.start();
    assert.equal(await world.gateway.stop(), 0);
  });

  test('a configuration that cannot work is told as without a supervisor, once, with exit code 1', async () => {
    await opened;
    const bad = { ...world.settings, 'users-file': '/nonexistent/users' };
    world.gateway.configure(bad);
    const argv = ['--config', world.gateway.configFile, '--state-dir', world.gateway.stateDir];
    const one = async (...how: string[]) => {
      const ran = await world.lab.exec(
        world.lab.gateway,
        [process.execPath, `${ROOT}bin/sallyport`, ...how, 'gateway', ...argv],
        { anyCode: true },
      );
      return { code: ran.code, stdout: ran.stdout, stderr: ran.stderr.replaceAll(/^\{.*\n/gm, '') };
    };
    const told = await one('supervise');
    assert.equal(told.code, 1);
    assert.match(told.stderr, /\/nonexistent\/users/);
    assert.deepEqual(told, await one());
    // Here only the process itself finds what is wrong.
    world.gateway.configure({ ...world.settings, 'admin-address': '203.0.113.1:9480' });
    const late = await one('supervise');
    assert.match(late.stderr, /203\.0\.113\.1/);
    assert.deepEqual(late, await one());
  });

  /** openconnect tries once at once, and sleeps 10 s when that is refused: here it never is. */
  async function outage(context: TestContext, what: string, fault: () => void): Promise<void> {
    const before = { connects: client.connects, posts: client.posts, address: client.tunnel?.ipv4 };
    const printed = client.output.length;
    const pings = new Pings(world.lab, world.lab.client(), world.lab.lanIpv4);
    await pings.whenSteady();
    const since = Date.now() / 1000;
    fault();
    await client.whenConnects(before.connects + 1);
    await pings.whenSteady();
    context.diagnostic(`${what}: no answer for ${pings.longestGap(since).toFixed(2)} s`);
    pings.stop();
    assert.doesNotMatch(client.output.slice(printed), /sleep \d+s/);
    assert.ok(client.alive);
    assert.equal(client.posts, before.posts, 'no new login');
    const users = await eventually('shown', async () => world.gateway.users().catch(() => undefined));
    assert.deepEqual(
      users.map((user) => user['IPv4']),
      [before.address],
    );
  }

  function servingPid(): number {
    const [supervisor = 0] = childrenOf(world.gateway.pid);
    return childrenOf(supervisor)[0] ?? -1;
  }
});

test(
  'systemd socket activation: the gateway takes the socket, and warns when it is not that of tcp-port',
  { skip: noSystemd ? 'there is no systemd-socket-activate' : false },
  async () => {
    const activate = 'systemd-socket-activate -l 192.0.2.1:443 --fdname=tcp "$@"';
    const knock = '(until exec 3<>/dev/tcp/192.0.2.1/443; do sleep 0.05; done) 2>/dev/null &';
    const world = await World.open({
      launch: (role) => [
        ...['bash', '-c', `${knock} exec ${activate}`, 'sh'],
        ...[process.execPath, `${ROOT}bin/sallyport`, ...role],
      ],
    });
    try {
      const listening = await world.lab.exec(world.lab.gateway, ['ss', '-Hlnt', 'sport = :443']);
      assert.match(
        listening.stdout,
        /^LISTEN\s+\d+\s+\d+\s+192\.0\.2\.1:443\s/,
        'one socket, and not on all addresses',
      );
      const client = await world.connected(ALICE);
      assert.equal(await world.lab.ping(world.lab.lanIpv4), 3);
      await client.stop();
      assert.equal(await world.gateway.stop(), 0);
      world.gateway.configure({ ...world.settings, 'tcp-port': 8443 });
      await world.gateway.start();
      const [warning] = world.gateway.logLines().filter(({ level }) => level === 40);
      assert.deepEqual([warning?.['port'], warning?.['configured']], [443, 8443]);
    } finally {
      await world.close();
    }
  },
);

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
}
