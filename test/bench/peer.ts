/** Debian's ocserv on one node of the network of a cluster, killed and started again under the same real clients. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { GATEWAY_PORT } from '../cluster/services.ts';
import { LAN, nodeName, nodeOnLan, nodePlace, openNetwork } from '../cluster/network.ts';
import { Authority, eventually, pinOf, ROOT, sleep, type Lab, type Spawned } from '../harness/index.ts';
import { Fleet } from './fleet.ts';
import { evaluate, type Row } from './outages.ts';

/** `kill -9` of the whole server and a new start at once, as a service manager does it. */
export async function killedPeer(clients: number): Promise<Row> {
  const lab = await openNetwork(1, clients);
  try {
    const authority = await Authority.create(join(lab.folder, 'tls'));
    const { cert, key } = await authority.server('ecdsa', 'vpn.example.test', [HOST]);
    const start = await adapter(lab, clients, { cert, key });
    const server = await start();
    const fleet = await Fleet.open({
      ...{ lab, clients, lan: { ipv4: LAN.ipv4 } },
      client: (index) => ({
        ...{ lab, pin: pinOf(cert), namespace: lab.client(index), url: `https://${HOST}` },
        ...{ user: `user${index}`, password: PASSWORD },
      }),
    });
    await fleet.whenSteady();
    const before = await fleet.before(fleet.clients.keys());
    killAll(server.pid);
    await server.exited;
    const restarted = start();
    await fleet.whenBack(before, BACK_MS);
    await restarted;
    await sleep(SETTLE_MS);
    const measured = await fleet.measure(before, (index) => fleet.addresses[index]);
    const refused = fleet.clients.filter(({ output }) =>
      /Cookie is no longer valid|401|rejected/i.test(output),
    );
    const note = `${refused.length} of ${clients} were refused with their cookie, and their client ended`;
    return { server: 'ocserv', scenario: 'kill', ...evaluate(measured), note };
  } catch (error) {
    const log = readFileSync(join(lab.folder, 'ocserv.log'), 'utf8');
    throw new Error(`ocserv:\n${log.slice(-TOLD_CHARACTERS)}`, { cause: error });
  } finally {
    await lab.close();
  }
}

/** @returns starts it and waits until it takes connections. */
async function adapter(
  lab: Lab,
  clients: number,
  { cert, key }: { cert: string; key: string },
): Promise<() => Promise<Spawned>> {
  const [work, users] = [join(lab.folder, 'ocserv'), join(lab.folder, 'peer-users')];
  mkdirSync(work);
  writeFileSync(users, Array.from({ length: clients }, (_, index) => `user${index}:${PASSWORD}\n`).join(''));
  const node = lab.namespace(nodeName(0));
  await lab.exec(node, ['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
  await lab.exec(lab.lan, ['ip', 'route', 'add', POOL.cidr, 'via', nodeOnLan(0).ipv4]);
  const env = {
    ...{ VB_LISTEN: HOST, VB_PORT: String(GATEWAY_PORT), VB_CERT: cert, VB_KEY: key, VB_USERS: users },
    ...{ VB_POOL_CIDR: POOL.cidr, VB_POOL_NET: POOL.network, VB_POOL_MASK: POOL.mask },
    ...{ VB_LAN_NET: '198.51.100.0/24', VB_WORK: work, VB_DPD: '20', VB_RUNAS: 'root', VB_RUNASG: 'root' },
  };
  return async () => {
    const server = lab.spawn(node, ['sh', ADAPTER], { env, log: join(lab.folder, 'ocserv.log') });
    const listens = async () => {
      if (server.child.exitCode !== null) throw new Error(`ocserv ended:\n${server.output()}`);
      const socket = await lab.dial(lab.namespace('balancer'), HOST, GATEWAY_PORT).catch(() => undefined);
      socket?.destroy();
      return socket !== undefined;
    };
    await eventually('ocserv listens', listens, START_MS);
    return server;
  };
}

function killAll(pid: number): void {
  const children = (of: number): number[] => {
    try {
      const text = readFileSync(`/proc/${of}/task/${of}/children`, 'utf8');
      return text.split(' ').filter(Boolean).map(Number);
    } catch {
      return [];
    }
  };
  const all = (of: number): number[] => [of, ...children(of).flatMap(all)];
  for (const one of all(pid)) {
    try {
      process.kill(one, 'SIGKILL');
    } catch {
      // went with its parent
    }
  }
}

const HOST = nodePlace(0).ipv4;
const PASSWORD = 'peer-password';
const POOL = { cidr: '10.77.0.0/16', network: '10.77.0.0', mask: '255.255.0.0' };
const ADAPTER = `${ROOT}bench/tools/servers/ocserv.sh`;
const START_MS = 30_000;
/** Its clients sleep 10 s after a refused connection, and know then that their cookie is gone. */
const BACK_MS = 90_000;
const TOLD_CHARACTERS = 2_000;
const SETTLE_MS = 2_000;
