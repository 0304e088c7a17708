/**
 * The L4 balancer of a local cluster, in two kinds:
 *
 *   redispatch    nftables pick a node by a hash of the client's address: UDP goes there, TCP to that node's haproxy front
 *                 end, which goes to its node, or to another when that refuses or is not ready. haproxy says with the
 *                 PROXY protocol who the client is. A node that changes its state gives its share to the others.
 *   kube-proxy    nftables alone: each connection goes to a random node of those that were ready at the last check.
 *                 Nobody tries again, and nobody closes connections to a node that is gone.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { eventually, sleep, within, type Lab } from '../harness/index.ts';
import { Member } from './member.ts';
import { GATEWAY, nodeName, nodePlace } from './network.ts';
import { GATEWAY_PORT, NODE_ADMIN_PORT } from './services.ts';

export type BalancerKind = 'redispatch' | 'kube-proxy';
export const BALANCER_KINDS: readonly BalancerKind[] = ['redispatch', 'kube-proxy'];

export class Balancer {
  readonly #lab: Lab;
  readonly #nodes: number;
  readonly #kind: BalancerKind;
  readonly #haproxy: Member | undefined;
  /** Indexes of nodes that take clients, as the map has them. */
  #ready: readonly number[] = [];
  #closed = false;
  #watch: Promise<void> = Promise.resolve();

  static async open(lab: Lab, nodes: number, kind: BalancerKind): Promise<Balancer> {
    const balancer = new Balancer(lab, nodes, kind);
    await balancer.#haproxy?.start();
    await balancer.#write([]);
    balancer.#watch = balancer.#follow();
    return balancer;
  }

  private constructor(lab: Lab, nodes: number, kind: BalancerKind) {
    this.#lab = lab;
    this.#nodes = nodes;
    this.#kind = kind;
    if (kind === 'kube-proxy') return;
    const config = join(lab.folder, 'haproxy.cfg');
    writeFileSync(config, haproxyConfiguration(nodes, this.#statsSocket));
    this.#haproxy = new Member({
      ...{ lab, name: 'haproxy', namespace: lab.namespace('balancer') },
      argv: ['haproxy', '-db', '-f', config],
      log: join(lab.folder, 'haproxy.log'),
      ready: () => existsSync(this.#statsSocket),
    });
  }

  /** Names of the nodes that new clients are sent to. */
  get ready(): string[] {
    return this.#ready.map(nodeName);
  }

  /** @param nodes how many, or their names */
  async whenReady(nodes: number | readonly string[], timeoutMs?: number): Promise<void> {
    const isSo = () =>
      typeof nodes === 'number' ? this.#ready.length === nodes : this.ready.join() === nodes.join();
    await eventually(`ready nodes: ${String(nodes)}`, isSo, timeoutMs);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#watch;
    await this.#haproxy?.stop();
  }

  async #follow(): Promise<void> {
    while (!this.#closed) {
      const ready = await (this.#kind === 'redispatch' ? this.#askHaproxy() : this.#askNodes());
      // With none left the map stays: it would send them nowhere.
      if (ready !== undefined && ready.length > 0 && ready.join() !== this.#ready.join())
        await this.#write(ready);
      await sleep(this.#kind === 'redispatch' ? FOLLOW_MS : PROBE_MS);
    }
  }

  async #write(ready: readonly number[]): Promise<void> {
    // Before anybody is ready all are as good.
    const to = ready.length > 0 ? ready : range(this.#nodes);
    const rules = this.#kind === 'redispatch' ? hashed(to, this.#nodes) : scattered(to);
    const table = `table inet balancer {\n chain prerouting {\n  type nat hook prerouting priority dstnat;\n${rules}\n }\n}\n`;
    const input = `add table inet balancer\ndelete table inet balancer\n${table}`;
    await this.#lab.exec(this.#lab.namespace('balancer'), ['nft', '-f', '-'], { input });
    this.#ready = ready;
  }

  get #statsSocket(): string {
    return join(this.#lab.folder, 'haproxy.sock');
  }

  /** haproxy knows first: each front end's view of its own node. */
  async #askHaproxy(): Promise<number[] | undefined> {
    const text = await ask(connect(this.#statsSocket), 'show stat\n').catch(() => undefined);
    if (text === undefined) return undefined;
    const states = new Map(
      text.split('\n').map((line): [string, string] => {
        const fields = line.split(',');
        return [`${fields[0]}/${fields[1]}`, fields[STATUS_FIELD] ?? ''];
      }),
    );
    return range(this.#nodes).filter((index) =>
      states.get(`${nodeName(index)}/${nodeName(index)}`)?.startsWith('UP'),
    );
  }

  async #askNodes(): Promise<number[]> {
    const answers = await Promise.all(range(this.#nodes).map((index) => this.#probe(index).catch(() => '')));
    return range(this.#nodes).filter((index) => answers[index]?.startsWith('HTTP/1.1 200 '));
  }

  async #probe(index: number): Promise<string> {
    const work = async () =>
      ask(
        await this.#lab.dial(this.#lab.namespace('balancer'), nodePlace(index).ipv4, NODE_ADMIN_PORT),
        'GET /health/ready HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n',
      );
    return within(PROBE_MS, 'health', work());
  }
}

/** All that comes back until the other side closes. */
function ask(socket: Socket, question: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    socket.setEncoding('utf8').setTimeout(PROBE_MS, () => socket.destroy(new Error('no answer')));
    socket.on('data', (chunk: string) => (text += chunk));
    socket.once('error', reject);
    socket.once('end', () => socket.destroy());
    socket.once('close', () => resolve(text));
    socket.resume().write(question);
  });
}

function haproxyConfiguration(nodes: number, statsSocket: string): string {
  const server = (index: number, how: string) =>
    `  server ${nodeName(index)} ${nodePlace(index).ipv4}:${GATEWAY_PORT} ${how}`;
  const fronts = range(nodes).flatMap((own) => [
    `listen ${nodeName(own)}`,
    `  bind :::${FIRST_FRONT_PORT + own} v4v6`,
    // Who has just lost its node is back within a millisecond, and would meet one that is still dying.
    '  tcp-request inspect-delay 100ms',
    '  tcp-request content accept if WAIT_END',
    // Not as the one active server among backups: then a refused connection is tried again on the same server, and
    // on-marked-down ends it while it waits for that.
    `  use-server ${nodeName(own)} if { nbsrv(only-${nodeName(own)}) gt 0 }`,
    ...range(nodes).map((index) => server(index, `check port ${NODE_ADMIN_PORT}`)),
    `backend only-${nodeName(own)}`,
    server(own, `track ${nodeName(own)}/${nodeName(own)}`),
  ]);
  return `${HAPROXY_HEAD.replace('STATS', statsSocket)}\n${fronts.join('\n')}\n`;
}

function hashed(ready: readonly number[], nodes: number): string {
  // A slot stays with its node while that is ready; the others share the slots of those that are not.
  const slots = range(SLOTS).map((slot) =>
    ready.includes(slot % nodes) ? slot % nodes : (ready[Math.floor(slot / nodes) % ready.length] ?? 0),
  );
  const map = (value: (node: number) => string) =>
    `{ ${slots.map((node, slot) => `${slot} : ${value(node)}`).join(', ')} }`;
  return (['ip', 'ip6'] as const)
    .flatMap((family) => {
      const [to, place] =
        family === 'ip' ? ([GATEWAY.ipv4, 'ipv4'] as const) : ([GATEWAY.ipv6, 'ipv6'] as const);
      const hash = `jhash ${family} saddr mod ${SLOTS} seed ${SEED}`;
      return [
        `${family} daddr ${to} tcp dport ${GATEWAY_PORT} redirect to :${hash} map ${map((node) => String(FIRST_FRONT_PORT + node))}`,
        `${family} daddr ${to} udp dport ${GATEWAY_PORT} dnat ${family} to ${hash} map ${map((node) => nodePlace(node)[place])}`,
      ];
    })
    .join('\n');
}

function scattered(ready: readonly number[]): string {
  const map = (place: 'ipv4' | 'ipv6') =>
    `numgen random mod ${ready.length} map { ${ready.map((node, at) => `${at} : ${nodePlace(node)[place]}`).join(', ')} }`;
  return ['tcp', 'udp']
    .flatMap((protocol) => [
      `ip daddr ${GATEWAY.ipv4} ${protocol} dport ${GATEWAY_PORT} dnat ip to ${map('ipv4')}`,
      `ip6 daddr ${GATEWAY.ipv6} ${protocol} dport ${GATEWAY_PORT} dnat ip6 to ${map('ipv6')}`,
    ])
    .join('\n');
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

/** Divides by all small numbers of nodes. */
const SLOTS = 60;
const SEED = '0x5a11';
const FIRST_FRONT_PORT = 10_001;
const FOLLOW_MS = 200;
const PROBE_MS = 1000;
/** Of `show stat`, in haproxy's documentation of its CSV form. */
const STATUS_FIELD = 17;

/*
 * A health check waits longer than a freeze and a start take: the supervisor holds the port of health, too, so it waits
 * there with the clients, which on-marked-down would end just before they are served. A node that is gone or cut off is
 * noticed by its connect.
 */
const HAPROXY_HEAD = `global
  log stderr format raw local0 info
  stats socket STATS mode 600
  maxconn 9000
  nbthread 2
defaults
  log global
  mode tcp
  option tcplog
  timeout connect 500ms
  timeout client 1h
  timeout server 1h
  timeout check 5s
  balance roundrobin
  retries 3
  option redispatch 1
  option httpchk GET /health/ready
  http-check disable-on-404
  http-check expect status 200
  default-server inter 300ms fall 2 rise 1 on-marked-down shutdown-sessions send-proxy-v2`;
