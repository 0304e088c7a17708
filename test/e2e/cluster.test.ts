/** A cluster of two nodes with real clients, while its parts die, freeze and come back. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, describe, test, type TestContext } from 'node:test';
import { Race } from '../bench/race.ts';
import { Cluster } from '../cluster/cluster.ts';
import { HAS_SUPERVISOR } from '../cluster/member.ts';
import { GATEWAY, LAN, nodePlace, setNodeLinks } from '../cluster/network.ts';
import { Pings } from '../cluster/pings.ts';
import { AnyConnect, eventually, header, Openconnect, sleep, type Spawned } from '../harness/index.ts';

const noTun = existsSync('/dev/net/tun') ? false : 'there is no /dev/net/tun';
const noSupervisor = HAS_SUPERVISOR ? false : 'the supervisor is not built (no cargo)';
/** openconnect sleeps 10 s when its one immediate try is refused: an outage below says that it was not. */
const LIMIT_SECONDS = 7;

describe('a cluster', { skip: noTun }, () => {
  let cluster: Cluster;
  let client: Openconnect;
  let pings: Pings;
  let address: string | undefined;
  /** One TCP connection inside the tunnel, for all of it. */
  let download: Spawned;

  before(async () => {
    cluster = await Cluster.open({ nodes: 2, clients: 4, settings: { 'connects-per-token': 0 } });
    await cluster.probe();
  });
  after(() => cluster?.close());

  test('of twenty CONNECTs with one cookie on both nodes exactly one keeps a tunnel', async () => {
    const race = await Race.open(cluster, 3);
    for (let run = 0; run < 3; run++) {
      const { alive, records, tunnels, sameAddress } = await race.run(20);
      assert.deepEqual({ alive, records, tunnels, sameAddress }, ONE_TUNNEL);
    }
    await race.close();
    await eventually('nobody is left', async () => (await cluster.show('users')).length === 0);
  });

  test('a login through one node, its tunnel on another, then on the first: the same address', async () => {
    const [n1, n2] = [0, 1].map((index) => `https://${nodePlace(index).ipv4}`);
    const login = await Openconnect.authenticate(cluster.client(1, { url: n1 }));
    const there = await Openconnect.connect(cluster.withCookie(1, login.cookie, { url: n2 }));
    assert.equal(await cluster.nodeOf('user2'), 'n2');
    assert.equal(await pingLan(1), 3);
    there.signal('SIGHUP');
    await there.exited;
    const back = await Openconnect.connect(cluster.withCookie(1, login.cookie, { url: n1 }));
    assert.equal(await cluster.nodeOf('user2'), 'n1');
    assert.equal(back.posts, 0);
    assert.deepEqual([back.tunnel?.ipv4, back.tunnel?.ipv6], [there.tunnel?.ipv4, there.tunnel?.ipv6]);
    assert.equal(await pingLan(1), 3);
    assert.equal(await back.stop(), 0);
  });

  test('a client by way of the balancer reaches the LAN, and its address is seen', async () => {
    client = await Openconnect.connect(cluster.client(0));
    address = client.tunnel?.ipv4;
    pings = new Pings(cluster.lab, cluster.lab.client(0), cluster.lab.lanIpv4);
    await pings.whenSteady();
    const argv = ['curl', '-sSN', `http://${cluster.lab.lanIpv4}/busy`];
    download = cluster.lab.spawn(cluster.lab.client(0), argv);
    const [shown] = await cluster.show('users');
    assert.equal(shown?.['Remote IP'], '198.18.1.1');
  });

  test('the same over IPv6, outside and inside', async () => {
    const other = await Openconnect.connect(cluster.client(2, { url: `https://[${GATEWAY.ipv6}]` }));
    assert.equal(await pingLan(2, LAN.ipv6), 3);
    const [shown] = (await cluster.show('users')).filter((user) => user['Username'] === 'user3');
    assert.equal(shown?.['Remote IP'], '2001:db8:18::1:3');
    assert.equal(await other.stop(), 0);
  });

  test('kill -9 of the serving process: back without a prompt', { skip: noSupervisor }, async (context) => {
    const node = await home();
    await outage(context, 'serving process killed', () => node.crash());
    assert.equal(await cluster.nodeOf('user1'), node.name, 'a started process has the clients that waited');
  });

  test('kill of the whole node: another one has the client', async (context) => {
    const node = await home();
    await outage(context, 'node killed', () => void node.kill());
    assert.notEqual(await cluster.nodeOf('user1'), node.name);
    await cluster.balancer.whenReady(1);
    await node.start();
    await cluster.balancer.whenReady(2);
  });

  test('a node whose network is cut: the balancer ends its connections, and another has the client', async (context) => {
    const node = await home();
    const index = cluster.nodes.indexOf(node);
    await outage(context, 'network cut', () => void setNodeLinks(cluster.lab, index, 'down'));
    await setNodeLinks(cluster.lab, index, 'up');
    await cluster.balancer.whenReady(2);
    assert.notEqual(await cluster.nodeOf('user1'), node.name);
  });

  test('drain of a node: it comes back on the other', async (context) => {
    const node = await home();
    await cluster.cli(['drain', 'node', node.name]);
    await outage(context, 'node drained', () => undefined);
    assert.notEqual(await cluster.nodeOf('user1'), node.name);
    assert.deepEqual(
      cluster.balancer.ready,
      cluster.nodes.map(({ name }) => name).filter((name) => name !== node.name),
    );
    await cluster.cli(['undrain', 'node', node.name]);
    await cluster.balancer.whenReady(2);
  });

  test('Kafka away: logins, tunnels and a move go on', async (context) => {
    process.kill(cluster.kafkaPid, 'SIGSTOP');
    try {
      const other = await Openconnect.connect(cluster.client(2));
      assert.equal(await other.stop(), 0);
      await outage(context, 'client reconnects', () => client.signal('SIGUSR2'));
    } finally {
      process.kill(cluster.kafkaPid, 'SIGCONT');
    }
  });

  test('Redis away for 15 s: tunnels go on, nodes stay ready, logins are refused, then all is well', async (context) => {
    await pings.whenSteady();
    const since = Date.now() / 1000;
    const { connects } = client;
    cluster.services.redis.signal('SIGSTOP');
    try {
      const refused = await anyConnect(3)
        .login('user4', 'password-4')
        .then(
          (step) => step.authId,
          (error: unknown) => String(error),
        );
      assert.notEqual(refused, 'success');
      assert.deepEqual(cluster.balancer.ready, ['n1', 'n2']);
      await sleep(Math.max(0, REDIS_AWAY_MS - (Date.now() - since * 1000)));
    } finally {
      cluster.services.redis.signal('SIGCONT');
    }
    const gap = pings.longestGap(since);
    context.diagnostic(`longest time without an answer: ${gap.toFixed(2)} s`);
    assert.ok(gap < 2, `${gap} s`);
    assert.equal(client.connects, connects, 'the tunnel was not touched');
    const step = await eventually(
      'a login',
      async () => {
        const last = await anyConnect(3)
          .login('user4', 'password-4')
          .catch(() => undefined);
        return last?.authId === 'success' && last;
      },
      20_000,
      500,
    );
    assert.equal(step.authId, 'success');
  });

  for (const role of ['auth', 'portal', 'downloader'] as const) {
    test(`a replica of ${role} dies in the middle of a login: another finishes it`, async () => {
      for (const replica of cluster.services[role]) {
        const login = anyConnect(3);
        assert.equal((await login.init()).authId, 'main');
        await replica.kill();
        const last = await login.reply({ username: 'user4', password: 'password-4' });
        assert.equal(last.authId, 'success', `${last.error}${last.message}`);
        for (const file of await login.download()) assert.equal(file.status, 200, file.path);
        const { answer, tls } = await login.connect();
        assert.ok(header(answer, 'X-CSTP-Address'));
        tls.close();
        await replica.start();
      }
    });
  }

  test('all that while the first client was never asked again, and had one address and one TCP connection', async () => {
    const soFar = download.output().length;
    await eventually('more of the same download', () => download.output().length > soFar);
    assert.equal(download.child.exitCode, null);
    assert.match(download.output(), /^[.\n]+$/);
    assert.ok(client.alive);
    assert.equal(client.posts, 2);
    const [shown] = (await cluster.show('users')).filter((user) => user['Username'] === 'user1');
    assert.equal(shown?.['IPv4'], address);
    pings.stop();
    assert.equal(await client.stop(), 0);
  });

  async function home() {
    const name = await eventually('the client has a node', () => cluster.nodeOf('user1'));
    return cluster.node(name);
  }

  function anyConnect(index: number): AnyConnect {
    return new AnyConnect({ lab: cluster.lab, namespace: cluster.lab.client(index) });
  }

  function pingLan(index: number, host: string = LAN.ipv4): Promise<number> {
    return cluster.lab.ping(host, { namespace: cluster.lab.client(index) });
  }

  /** How long the first client had no answer, until it has its next tunnel. */
  async function outage(context: TestContext, what: string, fault: () => void): Promise<void> {
    await pings.whenSteady();
    const { connects, posts } = client;
    const since = Date.now() / 1000;
    fault();
    await client.whenConnects(connects + 1, 30_000);
    await pings.whenSteady();
    const seconds = pings.longestGap(since);
    context.diagnostic(`${what}: no answer for ${seconds.toFixed(2)} s`);
    assert.ok(seconds < LIMIT_SECONDS, `${seconds} s`);
    assert.equal(client.posts, posts, 'no new login');
    const users = await cluster.show('users');
    const shown = users.filter((user) => user['Username'] === 'user1');
    assert.deepEqual(
      shown.map((user) => user['IPv4']),
      [address],
    );
  }
});

const REDIS_AWAY_MS = 15_000;
const ONE_TUNNEL = { alive: 1, records: 1, tunnels: 1, sameAddress: true };
