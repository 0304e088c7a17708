/** A cluster of two nodes with real clients, while its parts die, freeze and come back. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test, type TestContext } from 'node:test';
import { Race } from '../bench/race.ts';
import { Cluster } from '../cluster/cluster.ts';
import { HAS_SUPERVISOR } from '../cluster/member.ts';
import { GATEWAY, LAN, nodePlace, setNodeLinks, setNodePort } from '../cluster/network.ts';
import { Pings } from '../cluster/pings.ts';
import {
  AnyConnect,
  eventually,
  header,
  Openconnect,
  PATIENCE_MS,
  sleep,
  type Spawned,
} from '../harness/index.ts';

const noTun = existsSync('/dev/net/tun') ? false : 'there is no /dev/net/tun';
const noSupervisor = HAS_SUPERVISOR ? false : 'the supervisor is not built (no cargo)';
/** What openconnect prints when its one immediate try was refused. */
const SLEEPS = /sleep \d+s/;

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

  test('a lock at one auth ends the tunnel on another node; the other auth unlocks; a node may only lock', async (context) => {
    const [n1, n2] = [0, 1].map((index) => `https://${nodePlace(index).ipv4}`);
    const [auth2, node2] = [cluster.services.socket('auth-2'), cluster.services.socket('n2')];
    const login = await Openconnect.authenticate(cluster.client(2, { url: n1 }));
    const there = await Openconnect.connect(cluster.withCookie(2, login.cookie, { url: n2 }));
    assert.equal(await cluster.nodeOf('user3'), 'n2');
    await cluster.cli(['user', 'lock', 'user3']);
    const since = performance.now();
    assert.notEqual(await there.exited, 0);
    context.diagnostic(`openconnect ended ${Math.round(performance.now() - since)} ms after the command`);
    assert.match(there.output, /Session terminated by server/);

    const tried = () => anyConnect(2).login('user3', 'password-3');
    for (let at = 0; at < 4; at++) assert.notEqual((await tried()).authId, 'success');
    const failures = async (socket: string) => {
      const explained: unknown = JSON.parse(await cluster.cli(['explain', 'user', 'user3', '-j'], socket));
      return JSON.stringify(explained);
    };
    await eventually('all failures are counted', async () => (await failures(node2)).includes('"User":4'));
    assert.match(await failures(auth2), /"Locked":true/);
    const own = 'a tunnel node may lock users and change nothing else';
    await assert.rejects(cluster.cli(['user', 'unlock', 'user3'], node2), new RegExp(own));
    await cluster.cli(['user', 'unlock', 'user3'], auth2);
    await eventually('the user is let in again', async () => (await tried()).authId === 'success');
    const scripted = anyConnect(2);
    assert.equal((await scripted.login('user3', 'password-3')).authId, 'success');
    await scripted.connect();
    await cluster.cli(['user', 'lock', 'user3'], node2);
    await eventually('no tunnel is left', async () => (await cluster.nodeOf('user3')) === undefined);
    await cluster.cli(['user', 'unlock', 'user3']);
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

  test('a node that is cut from Redis alone: 404, its routes go, and its client goes on at the other', async (context) => {
    const node = await home();
    const index = cluster.nodes.indexOf(node);
    const others = cluster.nodes.map(({ name }) => name).filter((name) => name !== node.name);
    await pings.whenSteady();
    const { connects, posts } = client;
    const since = Date.now() / 1000;
    await setNodePort(cluster.lab, index, cluster.redisPort, 'cut');
    try {
      await cluster.balancer.whenReady(others);
      const status = await cluster.cli(['show', 'status'], cluster.services.socket(node.name));
      assert.match(status, /Note: isolated: the session store answers other nodes and not this one/);
      await client.whenConnects(connects + 1);
      await pings.whenSteady();
      context.diagnostic(`cut from Redis: no answer for ${pings.longestGap(since).toFixed(2)} s`);
      const shown = (await cluster.show('users')).filter((user) => user['Username'] === 'user1');
      assert.deepEqual(
        shown.map((user) => [user['Node'], user['IPv4']]),
        [[others[0], address]],
      );
      assert.equal(client.posts, posts, 'no new login');
    } finally {
      await setNodePort(cluster.lab, index, cluster.redisPort, 'open');
    }
    await cluster.balancer.whenReady(2);
    assert.equal(await cluster.nodeOf('user1'), others[0], 'what it says late touches nobody');
  });

  test('drain of a node: it comes back on the other', async (context) => {
    const node = await home();
    await cluster.cli(['drain', 'node', node.name]);
    await outage(context, 'node drained', () => undefined);
    assert.notEqual(await cluster.nodeOf('user1'), node.name);
    await cluster.balancer.whenReady(
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
      await cluster.balancer.whenReady(['n1', 'n2']);
      await sleep(Math.max(0, REDIS_AWAY_MS - (Date.now() - since * 1000)));
      // No node takes itself for the only one.
      await cluster.balancer.whenReady(['n1', 'n2']);
      await pings.whenSteady();
    } finally {
      cluster.services.redis.signal('SIGCONT');
    }
    const gap = pings.longestGap(since);
    context.diagnostic(`longest time without an answer: ${gap.toFixed(2)} s`);
    assert.equal(client.connects, connects, 'the tunnel was not touched');
    const step = await eventually(
      'a login',
      async () => {
        const last = await anyConnect(3)
          .login('user4', 'password-4')
          .catch(() => undefined);
        return last?.authId === 'success' && last;
      },
      PATIENCE_MS,
      500,
    );
    assert.equal(step.authId, 'success');
    await cluster.balancer.whenReady(['n1', 'n2']);
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

  test('clients of two nodes reach each other through the tunnel, until a node forbids it', async () => {
    const pair = await Promise.all(
      ['n1', 'n2'].map((_, index) =>
        Openconnect.connect(cluster.client(1 + index, { url: `https://${nodePlace(index).ipv4}` })),
      ),
    );
    const [one, two] = pair;
    assert.deepEqual([await cluster.nodeOf('user2'), await cluster.nodeOf('user3')], ['n1', 'n2']);
    const ways = [
      [1, two?.tunnel?.ipv4],
      [1, two?.tunnel?.ipv6],
      [2, one?.tunnel?.ipv4],
      [2, one?.tunnel?.ipv6],
    ] as const;
    for (const [from, to = assert.fail()] of ways) {
      // The routes of a client need a moment to reach the other node's network.
      await eventually(`${from} reaches ${to}`, async () => (await pingLan(from, to)) === 3);
    }

    const node = cluster.node('n2');
    const file = join(cluster.lab.folder, 'n2.yaml');
    const settings: unknown = JSON.parse(readFileSync(file, 'utf8'));
    writeFileSync(file, JSON.stringify({ ...Object(settings), 'client-to-client': false }));
    await two?.stop();
    await node.kill();
    await node.start();
    const again = await Openconnect.connect(cluster.client(2, { url: `https://${nodePlace(1).ipv4}` }));
    await eventually('the network', async () => (await pingLan(2)) === 3);
    assert.equal(await pingLan(2, LAN.ipv6), 3);
    for (const [from, to = assert.fail()] of [
      [1, again.tunnel?.ipv4],
      [1, again.tunnel?.ipv6],
      [2, one?.tunnel?.ipv4],
      [2, one?.tunnel?.ipv6],
    ] as const)
      assert.equal(await pingLan(from, to), 0, `${from} must not reach ${to}`);
    for (const left of [one, again]) assert.equal(await left?.stop(), 0);
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
    const printed = client.output.length;
    const since = Date.now() / 1000;
    fault();
    await client.whenConnects(connects + 1);
    await pings.whenSteady();
    const seconds = pings.longestGap(since);
    context.diagnostic(`${what}: no answer for ${seconds.toFixed(2)} s`);
    assert.doesNotMatch(client.output.slice(printed), SLEEPS);
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
