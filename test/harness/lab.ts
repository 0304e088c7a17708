/**
 * Network namespaces for one test or demonstration. Nothing of it touches the network of the machine.
 *
 *   client 0  192.0.2.2/30 ─────── 192.0.2.1 ┐
 *   2001:db8:1:0::2/64          …:0::1       │
 *                                            ├ gateway  198.51.100.1/24 ─────── 198.51.100.2  lan
 *   client 1  192.0.2.6/30 ─────── 192.0.2.5 │          2001:db8:2::1/64        2001:db8:2::2
 *   2001:db8:1:1::2/64          …:1::1       ┘
 *
 * Names are `sp-PID-N-ROLE`, so laboratories can stand side by side, and what a dead process left is found again.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import {
  createWriteStream,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
} from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  each,
  eventually,
  PATIENCE_MS,
  run,
  runSync,
  within,
  type Finished,
  type RunOptions,
} from './run.ts';

export interface LabOptions {
  /** Client namespaces; 1 unless told. */
  clients?: number;
  /** Switch IP forwarding on in the gateway's namespace (our gateway does that by itself). */
  forwarding?: boolean;
  /** The LAN host gets a default route to the gateway; false = replies only reach the gateway itself (NAT). */
  lanRoute?: boolean;
  /** Instead of gateway and LAN: namespaces of these roles, which the caller joins by himself. Clients come besides. */
  roles?: readonly string[];
}

export interface SpawnOptions {
  input?: string;
  /** stdin stays open until the program ends, for those that end with it. */
  holdInput?: boolean;
  env?: NodeJS.ProcessEnv;
  /** File that its output is added to. */
  log?: string;
}

export interface Spawned {
  child: ChildProcess;
  pid: number;
  /** What it wrote so far, stdout and stderr together. */
  output(): string;
  /** Exit code, or -1 when a signal ended it. */
  readonly exited: Promise<number>;
}

export class Lab {
  static #count = 0;
  static readonly #open = new Set<Lab>();

  readonly #prefix: string;
  readonly #clients: number;
  readonly #roles: readonly string[];
  readonly #relays = new Map<string, Promise<string>>();
  readonly #children = new Set<ChildProcess>();
  #closed = false;
  /** Folder for files of this laboratory; removed with it. */
  readonly folder: string;

  readonly gatewayIpv4 = '192.0.2.1';
  readonly gatewayIpv6 = '2001:db8:1:0::1';
  readonly clientIpv4 = '192.0.2.2';
  readonly lanIpv4 = '198.51.100.2';
  readonly lanIpv6 = '2001:db8:2::2';
  readonly lanNetIpv4 = '198.51.100.0/24';
  readonly lanNetIpv6 = '2001:db8:2::/64';

  /** @throws one sentence when this machine cannot have namespaces. */
  static async open(options: LabOptions = {}): Promise<Lab> {
    if (process.getuid?.() !== 0) throw new Error('network namespaces need root');
    sweep();
    const lab = new Lab(options.clients ?? 1, options.roles ?? ['gw', 'lan']);
    guardExit();
    Lab.#open.add(lab);
    try {
      await lab.#make();
      if (options.roles === undefined) await lab.#build(options);
    } catch (error) {
      lab.closeSync();
      throw error;
    }
    return lab;
  }

  private constructor(clients: number, roles: readonly string[]) {
    this.#prefix = `${PREFIX}-${process.pid}-${Lab.#count++}`;
    this.#clients = clients;
    this.#roles = roles;
    this.folder = mkdtempSync(join(tmpdir(), `${this.#prefix}-`));
  }

  get gateway(): string {
    return this.namespace('gw');
  }
  get lan(): string {
    return this.namespace('lan');
  }
  namespace(role: string): string {
    return `${this.#prefix}-${role}`;
  }
  client(index = 0): string {
    return `${this.#prefix}-c${index}`;
  }
  gatewayIpv4For(index: number): string {
    return `192.0.2.${4 * index + 1}`;
  }

  /** Runs a program in a namespace to its end. */
  exec(namespace: string, argv: readonly string[], options: RunOptions = {}): Promise<Finished> {
    return run(['ip', 'netns', 'exec', namespace, ...argv], options);
  }

  /** Starts a program in a namespace; its pid is the program's own. */
  spawn(namespace: string, argv: readonly string[], options: SpawnOptions = {}): Spawned {
    const wantsInput = options.input !== undefined || options.holdInput === true;
    const child = spawn('ip', ['netns', 'exec', namespace, ...argv], {
      stdio: [wantsInput ? 'pipe' : 'ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
      // Ctrl-C on a terminal is for us alone: we end them in order.
      detached: true,
    });
    this.#children.add(child);
    let output = '';
    const file = options.log === undefined ? undefined : createWriteStream(options.log, { flags: 'a' });
    file?.on('error', () => {});
    const collect = (chunk: string) => {
      output = (output + chunk).slice(-OUTPUT_CHARACTERS);
      file?.write(chunk);
    };
    child.stdout?.setEncoding('utf8').on('data', collect);
    child.stderr?.setEncoding('utf8').on('data', collect);
    child.stdin?.on('error', () => {});
    if (options.holdInput !== true) child.stdin?.end(options.input);
    const exited = new Promise<number>((resolve) => {
      child.on('error', () => resolve(-1));
      child.on('close', (code) => {
        this.#children.delete(child);
        file?.end();
        resolve(code ?? -1);
      });
    });
    return { child, pid: child.pid ?? -1, output: () => output, exited };
  }

  /**
   * A TCP connection that begins in a namespace. The bytes come through a Unix socket of a small relay that lives there,
   * because a Node process cannot enter a namespace.
   */
  async dial(namespace: string, host: string, port: number): Promise<Socket> {
    const socket = connect({ path: await this.#relay(namespace), allowHalfOpen: true });
    socket.on('error', () => {});
    const verdict = await within(
      PATIENCE_MS,
      `connection to ${host}:${port}`,
      new Promise<string>((resolve) => {
        const closed = () => resolve('-');
        socket.once('close', closed);
        socket.on('readable', function read() {
          const first: unknown = socket.read(1);
          if (!(first instanceof Buffer)) return;
          socket.off('readable', read);
          socket.off('close', closed);
          resolve(first.toString('latin1'));
        });
        socket.write(`${host} ${port}\n`);
      }),
    ).catch((error: unknown) => {
      socket.destroy();
      throw error;
    });
    if (verdict !== '+') {
      socket.destroy();
      throw new ConnectionRefused(`${host}:${port} does not accept connections`);
    }
    return socket;
  }

  /** Pings; @returns how many answers came. */
  async ping(
    target: string,
    options: { namespace?: string; count?: number; source?: string; size?: number } = {},
  ): Promise<number> {
    const argv = ['ping', '-n', '-i', '0.1', '-W', '2', '-c', String(options.count ?? 3)];
    if (options.source !== undefined) argv.push('-I', options.source);
    if (options.size !== undefined) argv.push('-M', 'do', '-s', String(options.size));
    const { stdout } = await this.exec(options.namespace ?? this.client(), [...argv, target], {
      anyCode: true,
    });
    return Number(/(\d+) received/.exec(stdout)?.[1] ?? 0);
  }

  /** Ends everything that runs in the namespaces and removes them. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    for (const child of this.#children) child.kill('SIGTERM');
    const gone = () => this.#children.size === 0;
    await eventually('children end', gone, CHILDREN_MS).catch(() => {});
    this.closeSync();
  }

  closeSync(): void {
    if (this.#closed) return;
    this.#closed = true;
    Lab.#open.delete(this);
    for (const child of this.#children) child.kill('SIGKILL');
    removeNamespaces(this.#namespaces());
    rmSync(this.folder, { recursive: true, force: true });
  }

  static closeAllSync(): void {
    for (const lab of Lab.#open) lab.closeSync();
  }

  #namespaces(): string[] {
    return [
      ...this.#roles.map((role) => this.namespace(role)),
      ...Array.from({ length: this.#clients }, (_, index) => this.client(index)),
    ];
  }

  async #make(): Promise<void> {
    const names = this.#namespaces();
    await ipBatch(names.map((name) => `netns add ${name}`));
    await each(names, (name) => run(['ip', '-n', name, 'link', 'set', 'lo', 'up']));
    // A new namespace has what the machine has.
    await each([...this.#roles], (role) =>
      this.exec(this.namespace(role), ['sysctl', '-qw', 'net.ipv4.ip_forward=0']),
    );
  }

  async #build(options: LabOptions): Promise<void> {
    await this.#join(this.gateway, 'lan', ['198.51.100.1/24', '2001:db8:2::1/64'], this.lan, [
      '198.51.100.2/24',
      '2001:db8:2::2/64',
    ]);
    if (options.lanRoute !== false) await this.#routeAll(this.lan, '198.51.100.1', '2001:db8:2::1');
    for (let index = 0; index < this.#clients; index++) {
      const near = `192.0.2.${4 * index + 1}`;
      await this.#join(
        this.gateway,
        `c${index}`,
        [`${near}/30`, `2001:db8:1:${index}::1/64`],
        this.client(index),
        [`192.0.2.${4 * index + 2}/30`, `2001:db8:1:${index}::2/64`],
      );
      await this.#routeAll(this.client(index), near, `2001:db8:1:${index}::1`);
    }
    if (options.forwarding === true) {
      await this.exec(this.gateway, [
        'sysctl',
        '-qw',
        'net.ipv4.ip_forward=1',
        'net.ipv6.conf.all.forwarding=1',
      ]);
    }
  }

  async #join(gateway: string, device: string, near: string[], other: string, far: string[]): Promise<void> {
    await run([
      'ip',
      'link',
      'add',
      device,
      'netns',
      gateway,
      'type',
      'veth',
      'peer',
      'name',
      'eth0',
      'netns',
      other,
    ]);
    for (const [namespace, link, addresses] of [
      [gateway, device, near],
      [other, 'eth0', far],
    ] as const) {
      for (const address of addresses) {
        const nodad = address.includes(':') ? ['nodad'] : [];
        await run(['ip', '-n', namespace, 'addr', 'add', address, 'dev', link, ...nodad]);
      }
      await run(['ip', '-n', namespace, 'link', 'set', link, 'up']);
    }
  }

  async #routeAll(namespace: string, ipv4: string, ipv6: string): Promise<void> {
    await run(['ip', '-n', namespace, 'route', 'add', 'default', 'via', ipv4]);
    await run(['ip', '-n', namespace, '-6', 'route', 'add', 'default', 'via', ipv6]);
  }

  #relay(namespace: string): Promise<string> {
    const known = this.#relays.get(namespace);
    if (known !== undefined) return known;
    const path = join(this.folder, `relay-${this.#relays.size}.sock`);
    const program = fileURLToPath(new URL('./relay.js', import.meta.url));
    const relay = this.spawn(namespace, [process.execPath, program, path]);
    // Its socket is there before it takes connections.
    const ready = eventually('relay', () => relay.output().includes('listening') && path, PATIENCE_MS);
    this.#relays.set(namespace, ready);
    return ready;
  }
}

export class ConnectionRefused extends Error {}

/** Namespaces and interfaces that laboratories of this process still hold, for "nothing is left" checks. */
export function leftovers(): string[] {
  return namespaceNames().filter((name) => name.startsWith(`${PREFIX}-${process.pid}-`));
}

/** Removes what laboratories of processes that are gone have left: namespaces with what runs there, and folders. */
export function sweep(): void {
  removeNamespaces(namespaceNames().filter(isOrphan));
  for (const name of readdirSync(tmpdir())) {
    if (isOrphan(name)) rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}

function isOrphan(name: string): boolean {
  const pid = new RegExp(`^${PREFIX}-(\\d+)-\\d+-`).exec(name)?.[1];
  return pid !== undefined && !isNode(pid);
}

function isNode(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('node');
  } catch {
    return false;
  }
}

function namespaceNames(): string[] {
  return runSync(['ip', 'netns', 'list'])
    .split('\n')
    .map((line) => line.split(' ')[0] ?? '')
    .filter((name) => name !== '');
}

/** Kills what runs in them, too. One look at all processes for all namespaces: `ip netns pids` takes one for each. */
function removeNamespaces(names: readonly string[]): void {
  if (names.length === 0) return;
  const doomed = new Set(names.map(inodeOf).filter((inode) => inode !== undefined));
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    try {
      const inode = /\[(\d+)\]/.exec(readlinkSync(`/proc/${pid}/ns/net`))?.[1];
      if (inode !== undefined && doomed.has(inode)) process.kill(Number(pid), 'SIGKILL');
    } catch {
      // ended by itself
    }
  }
  runSync(['ip', '-force', '-batch', '-'], names.map((name) => `netns del ${name}\n`).join(''));
}

function inodeOf(namespace: string): string | undefined {
  try {
    return String(statSync(`/run/netns/${namespace}`).ino);
  } catch {
    return undefined;
  }
}

/** Many commands of `ip` in one process. @param namespace where; undefined = here. */
export async function ipBatch(lines: readonly string[], namespace?: string): Promise<void> {
  const where = namespace === undefined ? [] : ['-n', namespace];
  await run(['ip', ...where, '-batch', '-'], { input: lines.map((line) => `${line}\n`).join('') });
}

let guarded = false;
function guardExit(): void {
  if (guarded) return;
  guarded = true;
  process.on('exit', () => Lab.closeAllSync());
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    process.on(signal, () => {
      if (process.listenerCount(signal) === 1) process.exit(code);
    });
  }
}

const PREFIX = 'sp';
const CHILDREN_MS = 5_000;
const OUTPUT_CHARACTERS = 4_000_000;
