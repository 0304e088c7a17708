/**
 * A cluster behind a balancer that tries nobody again (nftables alone, as kube-proxy does), where each step of a client is
 * served by another node and other replicas, and where cookies that lost their right are tried on every node.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Cluster } from '../cluster/cluster.ts';
import type { Member } from '../cluster/member.ts';
import { LAN, nodePlace } from '../cluster/network.ts';
import {
  AnyConnect,
  echoReply,
  echoRequest,
  eventually,
  FRAME,
  header,
  Openconnect,
  ROOT,
  run,
  type Connected,
} from '../harness/index.ts';

const noTun = existsSync('/dev/net/tun') ? false : 'there is no /dev/net/tun';
const NODES = 3;
const SETTINGS = {
  profiles: {
    staff: { label: 'Staff', methods: ['local'], default: true },
    ops: { label: 'Ops', methods: ['local'], 'allow-groups': ['ops'] },
    brief: { label: 'Brief', methods: ['local'], 'session-timeout': 10 },
  },
};

describe('a cluster without a favourite node', { skip: noTun }, () => {
  let cluster: Cluster;

  before(async () => {
    cluster = await Cluster.open({ nodes: NODES, clients: 4, balancer: 'kube-proxy', settings: SETTINGS });
    // A Redis that nobody knows gives no new addresses for its first seconds: nodes might still say what they hold.
    const first = await loggedIn(0);
    await eventually('a tunnel', async () => (await first.connect()).answer.status === 200, LONG_MS, 500);
    await first.logout();
  });
  after(() => cluster?.close());

  test('every single step of AnyConnect on another node, by other replicas', async () => {
    const { auth, portal, downloader } = cluster.services;
    const client = scripted(0);
    /** Only these replicas are there for what comes next, and only this node is asked. */
    const next = async (node: number, at: number) => {
      for (const group of [auth, portal, downloader]) {
        for (const [index, replica] of group.entries()) if (index === at) await startIfDown(replica);
        for (const [index, replica] of group.entries()) if (index !== at) await replica.kill();
      }
      client.goTo(node);
    };
    await next(0, 0);
    assert.equal((await client.init()).authId, 'main');
    await next(1, 1);
    assert.equal((await client.reply({ username: 'user1', password: 'wrong' })).error, 'Login failed.');
    await next(2, 0);
    assert.equal((await client.reply({ username: 'user1', password: 'password-1' })).authId, 'success');
    await next(0, 1);
    for (const file of await client.download()) assert.equal(file.status, 200, file.path);
    for (const replica of [auth, portal, downloader].flat()) await startIfDown(replica);
    client.goTo(1);
    const first = await client.connect();
    assert.equal(first.answer.status, 200);
    assert.equal(await cluster.nodeOf('user1'), 'n2');
    client.goTo(2);
    const second = await client.connect();
    assert.deepEqual(addressesOf(second), addressesOf(first));
    await first.channel.whenClosed();
    assert.equal(await cluster.nodeOf('user1'), 'n3');
    await assertAlive(second);
    await next(0, 0);
    assert.equal((await client.logout()).status, 200);
    await second.channel.whenClosed(LONG_MS);
    await assertDeadEverywhere(client);
    for (const replica of [auth, portal, downloader].flat()) await startIfDown(replica);
  });

  for (const phase of [
    'before init',
    'during init',
    'before reply',
    'during reply',
    'after reply',
  ] as const) {
    test(`a portal that dies ${phase}: the login ends with a session`, async () => {
      // Which one serves is a matter of turns, so what is under way meets the death of each.
      const victims = phase.startsWith('during')
        ? cluster.services.portal
        : cluster.services.portal.slice(0, 1);
      for (const replica of victims) {
        const client = scripted(1);
        if (phase === 'before init') await replica.kill();
        const beginning = client.init();
        if (phase === 'during init') await replica.kill();
        assert.equal((await beginning).authId, 'main');
        if (phase === 'before reply') await replica.kill();
        const replying = client.reply({ username: 'user2', password: 'password-2' });
        if (phase === 'during reply') await replica.kill();
        const last = await replying;
        assert.equal(last.authId, 'success', last.error);
        if (phase === 'after reply') await replica.kill();
        assert.equal((await client.connect()).answer.status, 200);
        await startIfDown(replica);
        await client.logout();
      }
    });
  }

  test('V31: two CONNECTs with one cookie at two nodes: one wins, the other closes without a packet, and its late BYE changes nothing', async () => {
    for (let round = 0; round < NODES; round++) {
      const client = await loggedIn(2);
      const both = await Promise.all(
        [round % NODES, (round + 1) % NODES].map((node) => {
          client.goTo(node);
          return client.connect();
        }),
      );
      for (const { answer } of both) assert.equal(answer.status, 200);
      const loser = await eventually(
        'one of them closes',
        () => both.find(({ channel }) => channel.closed),
        LONG_MS,
      );
      const winner = both.find((one) => one !== loser) ?? assert.fail();
      const ends = loser.channel.frames.filter(
        ({ type }) => type === FRAME.disconnect || type === FRAME.terminate,
      );
      assert.deepEqual(ends, []);
      loser.channel.bye(0xb0, 'Server request');
      await assertAlive(winner);
      assert.equal((await sessionsOf('user3')).length, 1);
      assert.equal(winner.channel.closed, false);
      await client.logout();
    }
  });

  describe('V20: a cookie that lost its right is dead on every node', () => {
    const ends: [string, (client: Scripted) => Promise<unknown>][] = [
      ['after a logout', (client) => client.logout()],
      ['after terminate', () => cluster.cli(['terminate', 'user', 'user4'])],
      ['after a new password', () => passwd('user4', 'new password')],
    ];
    for (const [what, end] of ends) {
      test(what, async () => {
        const client = await loggedIn(3);
        client.goTo(1);
        const { answer, channel } = await client.connect();
        assert.equal(answer.status, 200);
        await end(client);
        await channel.whenClosed(LONG_MS);
        await assertDeadEverywhere(client);
      });
    }

    test('after a lock', async () => {
      const client = await loggedIn(2);
      const { channel } = await client.connect();
      await cluster.cli(['user', 'lock', 'user3']);
      await channel.whenClosed(LONG_MS);
      await assertDeadEverywhere(client);
    });

    test('after that all the same when nodes start again', async () => {
      const client = await loggedIn(0);
      await client.connect();
      await client.logout();
      for (const node of cluster.nodes) {
        await node.kill();
        await node.start();
      }
      await assertDeadEverywhere(client);
    });

    test('after its session-timeout', async () => {
      const client = await loggedIn(0, 'brief');
      client.goTo(2);
      const { channel } = await client.connect();
      await channel.whenClosed(LONG_MS);
      await assertDeadEverywhere(client);
    });

    test('after its user left the group that the profile asks for', async () => {
      editUser('user1', 'ops');
      const client = scripted(0);
      await eventually(
        'the group lets the user in',
        async () => {
          await client.init();
          await client.chooseGroup('ops');
          return (await client.reply({ username: 'user1', password: 'password-1' })).authId === 'success';
        },
        LONG_MS,
        500,
      );
      const { channel } = await client.connect();
      editUser('user1', '*');
      await channel.whenClosed(LONG_MS);
      await assertDeadEverywhere(client);
    });
  });

  test('a client of a killed node comes back by itself, with its address and without a prompt', async (context) => {
    const client = await Openconnect.connect(cluster.client(1, { group: 'Staff' }));
    const home = await eventually('the client has a node', () => cluster.nodeOf('user2'));
    const [before] = await sessionsOf('user2');
    const { connects, posts } = client;
    const since = performance.now();
    await cluster.node(home).kill();
    // openconnect sleeps 10 s when its one immediate try meets the dead node, which the balancer knows only by its next check.
    await client.whenConnects(connects + 1, 2 * LONG_MS);
    context.diagnostic(`connected again after ${((performance.now() - since) / 1000).toFixed(1)} s`);
    const now = await eventually('it has another node', () => cluster.nodeOf('user2'));
    assert.notEqual(now, home);
    const [after] = await sessionsOf('user2');
    assert.deepEqual([after?.['IPv4'], after?.['IPv6']], [before?.['IPv4'], before?.['IPv6']]);
    assert.equal(client.posts, posts);
    assert.equal(await cluster.lab.ping(LAN.ipv4, { namespace: cluster.lab.client(1) }), 3);
    assert.equal(await client.stop(), 0);
    await cluster.node(home).start();
  });

  test('the only Redis dies and comes back: tunnels were not touched, and cookies are good', async () => {
    const client = await loggedIn(0);
    const { channel, answer } = await client.connect();
    await cluster.services.redis.kill();
    await assertAlive({ channel, answer });
    await cluster.services.redis.start();
    await assertAlive({ channel, answer });
    client.goTo(1);
    const moved = await eventually(
      'the cookie is good again',
      async () => {
        const tunnel = await client.connect();
        return tunnel.answer.status === 200 && tunnel;
      },
      LONG_MS,
      500,
    );
    assert.deepEqual(addressesOf(moved), addressesOf({ answer }));
    await client.logout();
  });

  /** The scripted client of a user, which can turn to another node before each step. */
  function scripted(node: number): Scripted {
    return new Scripted(cluster, node);
  }

  async function loggedIn(index: number, group?: string): Promise<Scripted> {
    const client = scripted(index % NODES);
    const last = await client.login(`user${index + 1}`, `password-${index + 1}`, group);
    assert.equal(last.authId, 'success', `${last.error}${last.message}`);
    return client;
  }

  async function assertDeadEverywhere(client: Scripted): Promise<void> {
    for (let node = 0; node < NODES; node++) {
      client.goTo(node);
      client.cookies.set('webvpn', client.token);
      assert.equal((await client.connect()).answer.status, 401, `node ${node + 1}`);
    }
  }

  async function sessionsOf(user: string): Promise<Record<string, unknown>[]> {
    return (await cluster.show('users')).filter((shown) => shown['Username'] === user);
  }

  async function passwd(user: string, password: string): Promise<void> {
    const argv = [process.execPath, `${ROOT}bin/sallyport`, 'user', 'passwd', user, '-s', cluster.admin];
    await run(argv, { input: `${password}\n` });
  }

  function editUser(name: string, groups: string): void {
    const file = join(cluster.lab.folder, 'users');
    const text = readFileSync(file, 'utf8').replace(new RegExp(`^${name}:[^:]*:`, 'm'), `${name}:${groups}:`);
    writeFileSync(`${file}.new`, text, { mode: 0o600 });
    renameSync(`${file}.new`, file);
  }
});

class Scripted extends AnyConnect {
  readonly #target: { host: string };

  constructor(cluster: Cluster, node: number) {
    const target = { lab: cluster.lab, namespace: cluster.lab.client(0), host: nodePlace(node).ipv4 };
    super(target);
    this.#target = target;
  }

  goTo(node: number): void {
    this.#target.host = nodePlace(node).ipv4;
  }
}

async function startIfDown(member: Member): Promise<void> {
  if (!member.running) await member.start();
}

function addressesOf({ answer }: Pick<Connected, 'answer'>): (string | undefined)[] {
  return ['X-CSTP-Address', 'X-CSTP-Address-IP6'].map((name) => header(answer, name));
}

/** Packets go there and come back. */
async function assertAlive({ answer, channel }: Pick<Connected, 'answer' | 'channel'>): Promise<void> {
  const sequence = Math.floor(Math.random() * 60_000);
  await eventually(
    'echo reply',
    () => {
      channel.send(FRAME.data, echoRequest(header(answer, 'X-CSTP-Address') ?? '', LAN.ipv4, sequence));
      return channel.frames.some((one) => one.type === FRAME.data && echoReply(one.payload) === sequence);
    },
    LONG_MS,
    100,
  );
}

const LONG_MS = 60_000;
