/** What runs in a local cluster: configuration files, and how each process is started. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { initAuthority, issueCertificate, type PeerRole } from '@sallyport/cluster';
import { ROOT, type KeyPair, type Lab, type SettingsDocument } from '../harness/index.ts';
import { HAS_SUPERVISOR, Member, NodeMember, SUPERVISOR } from './member.ts';
import { BALANCER, CORE, LAN, LAN_NETWORKS, nodeName, nodePlace, POOL } from './network.ts';

export interface ServicesPlan {
  lab: Lab;
  nodes: number;
  returnPath: 'nat' | 'routed';
  /** The balancer says by the PROXY protocol who a client is. */
  proxied: boolean;
  server: KeyPair;
  usersFile: string;
  redisPort: number;
  kafkaPort: number;
  /** Added to, and replacing, keys of every configuration. */
  settings: SettingsDocument;
}

export interface Services {
  redis: Member;
  auth: Member[];
  portal: Member[];
  downloader: Member[];
  nodes: NodeMember[];
  /** Path of the admin socket of a member. */
  socket(name: string): string;
}

export async function planServices(plan: ServicesPlan): Promise<Services> {
  const { lab } = plan;
  const pki = join(lab.folder, 'peers');
  await initAuthority(pki, { cluster: 'local' });
  const member = async (role: PeerRole, name: string, own: SettingsDocument) => {
    await issueCertificate(pki, { name, roles: [role], hosts: [], days: 30 });
    const config = join(lab.folder, `${name}.yaml`);
    const files = { ca: join(pki, 'ca.pem'), cert: join(pki, `${name}.pem`), key: join(pki, `${name}.key`) };
    const document = { ...commonSettings(plan), pki: files, ...own, ...plan.settings };
    writeFileSync(config, `${JSON.stringify(document, null, 1)}\n`);
    const stateDir = join(lab.folder, name);
    mkdirSync(stateDir, { mode: 0o700 });
    return { role, name, argv: roleArgv(role, config, stateDir) };
  };
  const replicas = (role: 'auth' | 'portal' | 'downloader') =>
    Promise.all(
      Array.from({ length: REPLICAS }, async (_, index) => {
        const name = `${role}-${index + 1}`;
        const made = await member(role, name, replicaSettings(role, name, index));
        return new Member({ ...inNamespace(lab, name, 'core'), ...made, ready: /is ready"/ });
      }),
    );
  return {
    redis: redisMember(plan),
    auth: await replicas('auth'),
    portal: await replicas('portal'),
    downloader: await replicas('downloader'),
    nodes: await Promise.all(
      Array.from({ length: plan.nodes }, async (_, index) => {
        const name = nodeName(index);
        const made = await member('tunnel-node', name, nodeSettings(index, plan));
        const argv = supervised(made.argv, nodePlace(index).ipv4);
        return new NodeMember({
          ...inNamespace(lab, name, name),
          ...made,
          argv,
          ready: /the node is ready"/,
        });
      }),
    ),
    socket: (name) => join(lab.folder, name, 'sallyport.sock'),
  };
}

function commonSettings({
  server,
  usersFile,
  returnPath,
  redisPort,
  kafkaPort,
}: ServicesPlan): SettingsDocument {
  const all = (port: number) =>
    Array.from({ length: REPLICAS }, (_, at) => on(CORE.ipv4, port + PORT_STEP * at));
  return {
    'server-cert': server.cert,
    'server-key': server.key,
    'users-file': usersFile,
    'return-path': returnPath,
    'ipv4-network': POOL.ipv4,
    'ipv6-network': POOL.ipv6,
    // Clients reach each other, too.
    route: [...LAN_NETWORKS, POOL.ipv4, POOL.ipv6],
    dns: [LAN.ipv4],
    profiles: { staff: { label: 'Staff', methods: ['local'], default: true } },
    redis: { cluster: 'local', url: `redis://${CORE.ipv4}:${redisPort}/0` },
    kafka: { brokers: [on('127.0.0.1', kafkaPort)], prefix: 'local', partitions: 3, 'replication-factor': 1 },
    services: {
      auth: all(PORTS.auth),
      portal: all(PORTS.portal),
      downloader: all(PORTS.downloader),
      catalog: all(PORTS.catalog),
    },
  };
}

function replicaSettings(
  role: 'auth' | 'portal' | 'downloader',
  name: string,
  index: number,
): SettingsDocument {
  const port = (first: number) => on(CORE.ipv4, first + PORT_STEP * index);
  return {
    node: { name },
    'admin-address': on('127.0.0.1', PORTS[role] + PORT_STEP * index + PORTS.adminOffset),
    listen:
      role === 'downloader'
        ? { downloader: port(PORTS.downloader), catalog: port(PORTS.catalog) }
        : { [role]: port(PORTS[role]) },
  };
}

function nodeSettings(index: number, { proxied, nodes, returnPath }: ServicesPlan): SettingsDocument {
  const { ipv4 } = nodePlace(index);
  return {
    node: { name: nodeName(index), number: index + 1, ...(returnPath === 'routed' && { slices: nodes }) },
    'admin-address': on(ipv4, NODE_ADMIN_PORT),
    listen: { node: on(ipv4, PORTS.node) },
    ...(proxied && { 'trusted-proxies': [`${BALANCER.ipv4}/32`, `${BALANCER.ipv6}/128`] }),
  };
}

/** What `sallyport supervise` does, without its waiting Node process. */
function supervised(argv: readonly string[], ipv4: string): readonly string[] {
  if (!HAS_SUPERVISOR) return argv;
  return [SUPERVISOR, '--tcp', `*:${GATEWAY_PORT}`, '--health', on(ipv4, NODE_ADMIN_PORT), '--', ...argv];
}

function roleArgv(role: PeerRole, config: string, stateDir: string): string[] {
  return [process.execPath, `${ROOT}bin/sallyport`, role, '--config', config, '--state-dir', stateDir];
}

function redisMember({ lab, redisPort }: ServicesPlan): Member {
  const folder = join(lab.folder, 'redis');
  mkdirSync(folder);
  const argv = [
    ...['redis-server', '--port', String(redisPort), '--bind', '127.0.0.1', CORE.ipv4, '--dir', folder],
    // Nobody but the cluster reaches its namespace.
    ...['--protected-mode', 'no', '--appendonly', 'yes', '--maxmemory-policy', 'noeviction', '--save', ''],
  ];
  return new Member({ ...inNamespace(lab, 'redis', 'core'), name: 'redis', argv, ready: /Ready to accept/ });
}

function inNamespace(lab: Lab, name: string, role: string) {
  return { lab, namespace: lab.namespace(role), log: join(lab.folder, `${name}.log`) };
}

function on(host: string, port: number): string {
  return `${host}:${port}`;
}

const REPLICAS = 2;
const PORT_STEP = 100;
const PORTS = {
  auth: 9491,
  portal: 9492,
  downloader: 9493,
  catalog: 9494,
  node: 9495,
  adminOffset: 10,
} as const;
export const NODE_ADMIN_PORT = 9480;
export const GATEWAY_PORT = 443;
