import 'reflect-metadata';
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { connect as connectTcp, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { createLog, Metrics } from '@sallyport/chassis';
import {
  DEFAULT_GRANT,
  defaultRedisSettings,
  forGrantFields,
  hashToken,
  initAuthority,
  issueCertificate,
  newToken,
  NODE_WIRE,
  PeerCertificates,
  Redis,
  RedisNodes,
  RedisSessions,
  systemClock,
  type PeerFiles,
  type PeerNode,
} from '@sallyport/cluster';
import { freePort, RedisServer } from '@sallyport/cluster/testing';
import { MemoryDevice, NO_RETURN_PATH, PortableEngine } from '@sallyport/engine';
import type { Origin } from '@sallyport/protocol';
import { openTunnelNode, type TunnelNode, type TunnelNodeParts } from '@sallyport/tunnel-node';
import { TunnelNodeModule } from '@sallyport/tunnel-node/nest';
import { Isolation, observeIsolation } from '../isolation.ts';
import { NodeClients } from '../node-clients.ts';
import { NodeLife } from '../node-life.ts';
import { Peers } from '../peers.ts';
import { Releases } from '../releases.ts';
import { serveRpc } from './serve-rpc.ts';

/*
 * Two nodes on one real Redis, each by way of a relay of its own that can be cut; gRPC between them with certificates of a
 * real CA, clients over real TLS. Only the device is one in memory.
 */

let folder: string;
let redis: RedisServer;
let clusters = 0;
/** Of the present test, closed in reverse. */
const closers: (() => unknown)[] = [];

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sallyport-elsewhere-'));
  await initAuthority(join(folder, 'pki'), { cluster: 'test' });
  for (const name of ['n1', 'n2'])
    await issueCertificate(join(folder, 'pki'), { name, roles: ['tunnel-node'], hosts: [], days: 2 });
  redis = await RedisServer.start();
});
beforeEach(() => {
  clusters += 1;
});
afterEach(async () => {
  for (let close = closers.pop(); close; close = closers.pop()) await close();
});
after(async () => {
  await redis.stop();
  await rm(folder, { recursive: true });
});

test('a session is taken: its old tunnel ends by the call of the new owner while the mailbox is silent', async () => {
  const [n1, n2] = await bothUp({ pollMillis: NEVER_MS });
  const token = await login(n1.sessions);
  const old = await n1.connect(token);
  const fresh = await n2.connect(token);
  assert.deepEqual([old.status, fresh.status, fresh.address], [200, 200, old.address]);
  // It had no other way to know.
  assert.equal(await old.whatEndedIt(), '', 'a DISCONNECT would end the client for good');
  assert.deepEqual([n1.tunnels.size, n2.tunnels.size], [0, 1]);
});

test('nobody answers the call of the new owner: the client is served at once, and the mailbox ends the old tunnel', async () => {
  const [n1, n2] = await bothUp({ pollMillis: 100, client: () => new Promise(() => undefined) });
  const token = await login(n1.sessions);
  const old = await n1.connect(token);
  assert.equal((await n2.connect(token)).status, 200);
  assert.equal(await old.whatEndedIt(), '');
  assert.deepEqual([n1.tunnels.size, n2.tunnels.size], [0, 1]);
});

test('a node that is cut from Redis alone is isolated, its client goes on at the other, and it comes back by itself', async () => {
  const [n1, n2] = await bothUp({ pollMillis: 100 });
  const token = await login(n1.sessions);
  const old = await n1.connect(token);
  assert.equal(n1.announced.size, 1);
  n1.relay.cut();
  await until(() => n1.life.notReady().length > 0);
  assert.match(n1.life.notReady().join(), /^isolated: the session store answers other nodes/);
  assert.equal(n1.announced.size, 0);
  assert.match(await n1.metrics.text(), /^sallyport_node_isolated 1$/m);
  assert.equal(await old.whatEndedIt(), '');
  assert.deepEqual([(await n1.connect(token)).status, n2.life.notReady()], [503, []]);
  const fresh = await n2.connect(token);
  assert.deepEqual([fresh.status, fresh.address], [200, old.address]);

  n1.relay.mend();
  await until(() => n1.life.notReady().length === 0);
  assert.match(await n1.metrics.text(), /^sallyport_node_isolated 0$/m);
  // Its late word that the tunnel was parked must not touch the new one.
  assert.equal((await n2.sessions.find(hashToken(token)))?.lease?.name, 'n2');
  assert.equal((await n1.connect(token)).address, old.address);
  assert.equal(await fresh.whatEndedIt(), '');
});

test('of two processes of one node the one that was announced first ends, and its client goes on at the other at once', async () => {
  const first = await nodeUp('n1', { pollMillis: NEVER_MS });
  const token = await login(first.sessions);
  const old = await first.connect(token);
  const again = await nodeUp('n1', { pollMillis: NEVER_MS, incarnation: 'again' });
  await until(() => first.replaced.length > 0);
  assert.match(String(first.replaced), /^Another process has announced itself as n1, so this one ends/);
  assert.equal(await old.whatEndedIt(), '', 'a DISCONNECT would end the client for good');
  assert.equal((await first.connect(token)).status, 503);
  const fresh = await again.connect(token);
  assert.deepEqual([fresh.status, fresh.address], [200, old.address]);
  for (let beat = 0; beat < 3; beat++) for (const { life } of [first, again]) await life.handleTick();
  assert.deepEqual([first.replaced.length, again.replaced.length, again.tunnels.size], [1, 0, 1]);
});

interface NodeOptions {
  /** Default: the only one. */
  incarnation?: string;
  /** Of the mailbox. */
  pollMillis: number;
  /** To the other nodes. Default: over gRPC. */
  client?: (address: string) => Promise<PeerNode>;
}

/** What a node is made of, but for the admin service and a device of the kernel. */
async function nodeUp(name: string, options: NodeOptions) {
  const relay = await Relay.open(redis.port);
  closers.push(() => relay.close());
  const where = defaultRedisSettings({ url: `redis://127.0.0.1:${relay.port}`, cluster: `t${clusters}` });
  const store = await Redis.open(where, { windowMicros: 0n });
  closers.push(() => store.close());
  const sessions = new RedisSessions({ redis: store, pollMillis: options.pollMillis });
  closers.push(() => sessions.close());
  const pki = { ca: join(folder, 'pki', 'ca.pem'), cert: `${folder}/pki/${name}.pem`, key: `${folder}/pki/${name}.key` }; // prettier-ignore
  const certificates = await PeerCertificates.open(pki, log);
  closers.push(() => certificates.close());

  const clients = new NodeClients(certificates);
  closers.push(() => clients.close());
  const identity = { name, incarnation: options.incarnation ?? `${name}-only` };
  await sessions.announce(identity);
  const replaced: string[] = [];
  const [metrics, announced] = [new Metrics(), new Set<number>()];
  const client = options.client ?? ((at: string) => clients.at(at));
  const monotonic = () => performance.now();
  const nodes = new RedisNodes(store);
  const peers = new Peers({ ...{ nodes, own: name, monotonic }, client: (at) => clients.at(at) });
  const releases = new Releases({ peers, client, log });
  const node = await edgeUp({
    ...{ node: identity, sessions, metrics, pki },
    returnPath: {
      ...NO_RETURN_PATH,
      announce: (id) => void announced.add(id),
      withdraw: (id) => void announced.delete(id),
    },
    onTaken: (from, release) => releases.add(from, release),
  });
  const { tunnels } = node;
  const isolation = new Isolation({ ...{ peers, tunnels, log, monotonic }, limitSeconds: () => 3 });
  observeIsolation(metrics, isolation);
  const listen = `${HOST}:${await freePort()}`;
  const life = new NodeLife({
    ...{ nodes, tunnels, peers, isolation, log, monotonic, now: systemClock() },
    lifecycle: { status: () => ({ state: 'online', version: '1', node: name, revision: '', startedAt: 0n }) },
    announcement: { ...identity, number: 1, address: listen },
    onReplaced: ({ message }) => void replaced.push(message),
  });
  closers.push(() => life.close());
  const services = [{ wire: NODE_WIRE, callers: ['tunnel-node' as const] }];
  const rpc = await serveRpc(TunnelNodeModule.with(life), { listen, services, certificates }, log);
  closers.push(() => rpc.close());
  await life.handleTick();
  const connect = (token: string) => Client.connect(node.listener.port, token);
  return { sessions, tunnels, life, relay, metrics, announced, peers, connect, replaced };
}

async function edgeUp(
  parts: Pick<TunnelNodeParts, 'node' | 'sessions' | 'metrics' | 'returnPath' | 'onTaken'> & {
    pki: PeerFiles;
  },
): Promise<TunnelNode> {
  const pair = { cert: await readFile(parts.pki.cert), key: await readFile(parts.pki.key) };
  const host = { pairs: [pair], ca: undefined, crl: undefined, minVersion: 'TLSv1.2', maxVersion: 'TLSv1.3' } as const; // prettier-ignore
  const engine = new PortableEngine(new MemoryDevice());
  const node = await openTunnelNode({
    ...{ ...parts, engine, log },
    settings: {
      ...{
        listenHost: '127.0.0.1',
        tcpPort: 0,
        maxConnectionsPerAddress: 0,
        trustedProxies: [],
        strap: 'off',
      },
    },
    certificates: { hosts: new Map([['', { ...host, pairs: [pair] }]]) },
    upstreams: new Promise(() => undefined),
  });
  closers.push(async () => {
    await node.close();
    await engine.close();
  });
  return node;
}

async function bothUp(options: NodeOptions) {
  const n1 = await nodeUp('n1', options);
  const n2 = await nodeUp('n2', options);
  // Each has seen the other.
  await until(() => [n1, n2].every(({ peers }) => peers.alive.length === 2));
  return [n1, n2] as const;
}

async function login(sessions: RedisSessions): Promise<string> {
  const token = newToken();
  await sessions.create({
    ...{ tokenHash: hashToken(token), user: 'alice', profile: 'staff', strapKey: '' },
    client: { address: '127.0.0.1', userAgent: '', platform: '', hostname: '' },
    grant: { ...DEFAULT_GRANT, ipv4Pools: ['10.90.0.0/24'] },
    origins: forGrantFields((): Origin => ({ scope: 'default', name: '' })),
  });
  return token;
}

/** One connection with a CONNECT. */
class Client {
  readonly #socket: TLSSocket;
  #received = Buffer.alloc(0);

  static async connect(port: number, token: string): Promise<Client> {
    const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false });
    closers.push(() => socket.destroy());
    const client = new Client(socket);
    await once(socket, 'secureConnect');
    const lines = ['CONNECT /CSCOSSLC/tunnel HTTP/1.1', 'Host: vpn', `Cookie: webvpn=${token}`, ...WANTED];
    socket.write(`${lines.join('\r\n')}\r\n\r\n`);
    await until(() => client.#received.includes('\r\n\r\n'));
    return client;
  }

  constructor(socket: TLSSocket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => (this.#received = Buffer.concat([this.#received, chunk])));
    socket.on('error', () => undefined);
  }

  get status(): number {
    return Number(this.#received.toString('latin1').split(' ')[1]);
  }
  get address(): string | undefined {
    return /^X-CSTP-Address: (\S+)/m.exec(this.#received.toString('latin1'))?.[1];
  }

  /** What came after the answer until the connection ended. */
  async whatEndedIt(): Promise<string> {
    await until(() => this.#socket.closed || this.#socket.readableEnded);
    return this.#received.subarray(this.#received.indexOf('\r\n\r\n') + 4).toString('hex');
  }
}

/** A way to Redis of one node's own. Cut, it is like a cable: what is sent gets no answer. */
class Relay {
  readonly port: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isCut = false;

  static async open(to: number): Promise<Relay> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const bound = server.address();
    return new Relay(server, typeof bound === 'object' ? (bound?.port ?? 0) : 0, to);
  }

  private constructor(server: Server, port: number, to: number) {
    this.#server = server;
    this.port = port;
    server.on('connection', (near) => {
      const far = connectTcp(to, '127.0.0.1');
      for (const [from, into] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(from);
        from.on('data', (chunk) => void (this.#isCut || into.write(chunk)));
        from.on('error', () => undefined);
        from.on('close', () => {
          this.#sockets.delete(from);
          into.destroy();
        });
      }
    });
  }

  cut(): void {
    this.#isCut = true;
  }

  /** What was on its way is lost, as after a long cut; so are the connections. */
  mend(): void {
    this.#isCut = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

async function until(reached: () => boolean): Promise<void> {
  const end = performance.now() + WAIT_MS;
  while (!reached()) {
    if (performance.now() > end) assert.fail('did not happen in time');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** No connection of anybody begins there, so none has taken a port that was free a moment ago. */
const HOST = '127.0.0.3';
const log = createLog({ name: 'test', level: 'silent' });
const WANTED = ['X-CSTP-Address-Type: IPv4', 'X-CSTP-Base-MTU: 1500'];
/** Longer than a test: a mailbox that is never read. */
const NEVER_MS = 3_600_000;
/** Far more than anything here takes on a busy machine. */
const WAIT_MS = 120_000;
