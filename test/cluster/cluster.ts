/**
 * A whole cluster on this machine, without containers: Redis, Kafka, two of auth, portal and downloader, tunnel nodes, a
 * balancer, a LAN behind and clients before it, in network namespaces (network.ts). `npm run cluster` and the end-to-end
 * tests stand on it.
 */
import { writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import {
  Authority,
  eventually,
  Openconnect,
  pinOf,
  ROOT,
  run,
  type Lab,
  type OpenconnectOptions,
  type SettingsDocument,
} from '../harness/index.ts';
import { Balancer, type BalancerKind } from './balancer.ts';
import { HAS_SUPERVISOR, Member, type NodeMember } from './member.ts';
import { clientPlace, GATEWAY, LAN, nodePlace, openNetwork } from './network.ts';
import { Router } from './router.ts';
import { GATEWAY_PORT, planServices, type Services } from './services.ts';

export interface ClusterOptions {
  nodes?: number;
  clients?: number;
  balancer?: BalancerKind;
  returnPath?: 'nat' | 'routed';
  /** Who may log in, instead of `userN` with `password-N`: one for each client, 100 at least. */
  users?: readonly ClusterUser[];
  /** Added to, and replacing, keys of every configuration. */
  settings?: SettingsDocument;
  /** One line at a time about what goes on. */
  say?: (line: string) => void;
}

export interface ClusterUser {
  name: string;
  password: string;
}

export class Cluster {
  readonly lab: Lab;
  readonly pin: string;
  readonly users: readonly ClusterUser[];
  readonly balancer: Balancer;
  readonly services: Services;
  readonly kafka: Member;
  readonly #ports: Ports;
  readonly #forwards: readonly Server[];
  readonly #clients: number;
  readonly #router: Router | undefined;

  static async open(options: ClusterOptions = {}): Promise<Cluster> {
    const { nodes = 3, clients = 100, balancer: kind = 'redispatch', say = () => {} } = options;
    const { returnPath = 'routed' } = options;
    say(`making ${nodes} nodes and ${clients} clients`);
    const lab = await openNetwork(nodes, clients);
    try {
      const ports = { redis: await freePort(), kafka: await freePort(), controller: await freePort() };
      const users = options.users ?? usersOf(Math.max(LEAST_USERS, clients));
      const usersFile = join(lab.folder, 'users');
      writeFileSync(usersFile, await userLines([...users, OWN_USER]), { mode: 0o600 });
      const authority = await Authority.create(join(lab.folder, 'tls'));
      const addresses = [GATEWAY.ipv4, GATEWAY.ipv6];
      const server = await authority.server('ecdsa', 'vpn.example.test', addresses);
      const services = await planServices({
        ...{ lab, nodes, server, usersFile, redisPort: ports.redis, kafkaPort: ports.kafka },
        returnPath,
        proxied: kind === 'redispatch',
        settings: options.settings ?? {},
      });
      const kafka = kafkaMember(lab, ports);
      const router = returnPath === 'routed' ? new Router(lab, nodes) : undefined;
      await startAll(services, kafka, lab, say);
      const balancer = await Balancer.open(lab, nodes, kind);
      await balancer.whenReady(nodes);
      const forwards = await Promise.all([forward(lab, ports.redis), forward(lab, ports.kafka)]);
      const pin = pinOf(server.cert);
      return new Cluster({ lab, pin, users, balancer, services, kafka, ports, forwards, clients, router });
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  private constructor(parts: ClusterParts) {
    this.lab = parts.lab;
    this.pin = parts.pin;
    this.users = parts.users;
    this.balancer = parts.balancer;
    this.services = parts.services;
    this.kafka = parts.kafka;
    this.#ports = parts.ports;
    this.#forwards = parts.forwards;
    this.#clients = parts.clients;
    this.#router = parts.router;
  }

  /** Of the broker, not of what started it. */
  get kafkaPid(): number {
    return Number(KAFKA_READY.exec(this.kafka.output)?.[1] ?? -1);
  }
  get redisPort(): number {
    return this.#ports.redis;
  }
  get nodes(): readonly NodeMember[] {
    return this.services.nodes;
  }
  /** @throws when there is none of this name */
  node(name: string): NodeMember {
    const found = this.nodes.find((node) => node.name === name);
    if (found === undefined) throw new Error(`there is no node ${name}`);
    return found;
  }
  /** Admin socket; any answers for the whole cluster. */
  get admin(): string {
    return this.services.socket('auth-1');
  }

  /** Runs `sallyport ARGUMENTS`. @param socket of another member than auth-1 */
  async cli(argv: readonly string[], socket = this.admin): Promise<string> {
    return (await run([process.execPath, `${ROOT}bin/sallyport`, ...argv, '-s', socket])).stdout;
  }

  /** `show WHAT -j`, parsed: a list of objects. */
  async show(...what: string[]): Promise<Record<string, unknown>[]> {
    const shown: unknown = JSON.parse(await this.cli(['show', ...what, '-j']));
    return Array.isArray(shown) ? shown.filter(isRecord) : [];
  }

  /** Name of the node that has the tunnel of a user; undefined = none has. */
  async nodeOf(user: string): Promise<string | undefined> {
    const found = (await this.show('users')).find((shown) => shown['Username'] === user);
    return typeof found?.['Node'] === 'string' ? found['Node'] : undefined;
  }

  /** Options of the real client in the namespace of a client, as the user of the same number. */
  client(index: number, more: Partial<OpenconnectOptions> = {}): OpenconnectOptions {
    const { name: user = '', password = '' } = this.users[index] ?? {};
    return { lab: this.lab, pin: this.pin, namespace: this.lab.client(index), user, password, ...more };
  }

  /** The same with a cookie instead of a login. */
  withCookie(index: number, cookie: string, more: Partial<OpenconnectOptions> = {}): OpenconnectOptions {
    const { lab, pin } = this;
    return { lab, pin, namespace: lab.client(index), more: ['-C', cookie], ...more };
  }

  /** One login, one tunnel, one logout, by way of the balancer. @throws when one of them fails */
  async probe(): Promise<void> {
    const { name: user, password } = OWN_USER;
    const { cookie } = await Openconnect.authenticate(this.client(this.#clients - 1, { user, password }));
    const connect = () => Openconnect.connect(this.withCookie(this.#clients - 1, cookie));
    // A Redis that nobody knows gives no new addresses for its first seconds: nodes might still say what they hold.
    const client = await eventually('the first tunnel', () => connect().catch(waitsForNodes));
    const code = await client.stop();
    if (code !== 0) throw new Error(`the logout of the first client failed:\n${client.output}`);
    await eventually(
      'the first client is logged out',
      async () => (await this.show('sessions')).length === 0,
    );
  }

  /** What scripts need to know. */
  describe(): object {
    const all = Array.from({ length: this.#clients }, (_, index) => index);
    return {
      gateway: { host: GATEWAY.ipv4, host6: GATEWAY.ipv6, port: GATEWAY_PORT, pin: this.pin },
      clients: all.map((index) => {
        const { ipv4, ipv6 } = clientPlace(index);
        return { namespace: this.lab.client(index), address: ipv4, address6: ipv6 };
      }),
      lan: { host: LAN.ipv4, host6: LAN.ipv6, port: LAN_PORT, namespace: this.lab.lan },
      nodes: this.nodes.map((node, index) => ({
        name: node.name,
        pid: node.servingPid,
        supervisor: node.pid,
        namespace: node.namespace,
        address: nodePlace(index).ipv4,
        address6: nodePlace(index).ipv6,
        port: GATEWAY_PORT,
        command: ['ip', 'netns', 'exec', node.namespace, ...node.argv],
        socket: this.services.socket(node.name),
      })),
      users: this.users,
      admin: this.admin,
      redis: { pid: this.services.redis.pid, port: this.#ports.redis },
      kafka: { pid: this.kafkaPid, port: this.#ports.kafka, prefix: 'local' },
      services: [...this.services.auth, ...this.services.portal, ...this.services.downloader].map(
        ({ name, pid, namespace }) => ({ name, pid, namespace }),
      ),
      balancer: { namespace: this.lab.namespace('balancer') },
      supervised: HAS_SUPERVISOR,
      logs: this.lab.folder,
    };
  }

  /** Takes everything down. */
  async close(): Promise<void> {
    for (const server of this.#forwards) server.close();
    await this.balancer.close();
    this.#router?.close();
    await this.lab.close();
  }
}

interface ClusterParts extends Pick<Cluster, 'lab' | 'pin' | 'users' | 'balancer' | 'services' | 'kafka'> {
  ports: Ports;
  forwards: readonly Server[];
  clients: number;
  router: Router | undefined;
}

interface Ports {
  redis: number;
  kafka: number;
  controller: number;
}

async function startAll(
  services: Services,
  kafka: Member,
  lab: Lab,
  say: (line: string) => void,
): Promise<void> {
  say('starting Redis, Kafka and the host behind');
  const page = new Member({
    ...{ lab, name: 'lan', namespace: lab.lan, log: join(lab.folder, 'lan.log'), ready: /ready/ },
    argv: [process.execPath, '-e', LAN_SERVER],
  });
  await Promise.all([services.redis.start(), kafka.start(), page.start()]);
  say('starting auth, portal and downloader');
  await Promise.all(services.auth.map((member) => member.start()));
  await Promise.all([...services.portal, ...services.downloader].map((member) => member.start()));
  say('starting the nodes');
  await Promise.all(services.nodes.map((node) => node.start()));
}

function kafkaMember(lab: Lab, { kafka, controller }: Ports): Member {
  const folder = join(lab.folder, 'kafka');
  return new Member({
    ...{ lab, name: 'kafka', namespace: lab.namespace('core'), log: join(lab.folder, 'kafka.log') },
    argv: [
      ...[process.execPath, `${ROOT}tools/kafka.mjs`, '--dir', folder],
      ...['--port', String(kafka), '--controller-port', String(controller)],
    ],
    spawn: { holdInput: true },
    ready: KAFKA_READY,
  });
}

/** A port of the core on this machine's loopback: the stores are reached from outside the namespaces, too. */
async function forward(lab: Lab, port: number): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (near) => {
    near.on('error', () => {});
    lab.dial(lab.namespace('core'), '127.0.0.1', port).then(
      (far) => {
        near.once('close', () => far.destroy());
        far.once('close', () => near.destroy());
        near.pipe(far);
        far.pipe(near);
      },
      () => near.destroy(),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  return server;
}

/** Nobody listens there, neither here nor in a new namespace. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const bound = server.address();
      server.close(() => resolve(typeof bound === 'object' && bound !== null ? bound.port : 0));
    });
  });
}

function usersOf(count: number): ClusterUser[] {
  return Array.from({ length: count }, (_, index) => ({
    name: `user${index + 1}`,
    password: `password-${index + 1}`,
  }));
}

/** Lines of a users file, all hashes made by one process, and equal passwords hashed once. */
async function userLines(users: readonly ClusterUser[]): Promise<string> {
  const passwords = [...new Set(users.map(({ password }) => password))];
  const input = passwords.map((password) => `${password}\n`).join('');
  const { stdout } = await run(['openssl', 'passwd', '-5', '-stdin'], { input });
  const hashes = stdout.trim().split('\n');
  return users.map(({ name, password }) => `${name}:*:${hashes[passwords.indexOf(password)]}\n`).join('');
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function waitsForNodes(error: unknown): undefined {
  if (error instanceof Error && /VPN service unavailable/.test(error.message)) return undefined;
  throw error;
}

/** Of the first login; not among those that scripts are told. */
const OWN_USER: ClusterUser = { name: 'first', password: 'first-password' };
const LEAST_USERS = 100;
const LAN_PORT = 80;
const KAFKA_READY = /"pid":(\d+),"port"/;
/** Pages on IPv4 and IPv6; `/busy` sends without end, for connections that are to survive. */
const LAN_SERVER = `
  require('node:http').createServer((request, answer) => {
    answer.writeHead(200, { 'Content-Type': 'text/plain' });
    if (!request.url.startsWith('/busy')) return answer.end('behind the gateway\\n');
    const timer = setInterval(() => answer.write('.'.repeat(1000) + '\\n'), 100);
    answer.once('close', () => clearInterval(timer));
  }).listen(80, '::', () => console.log('ready'));
`;
