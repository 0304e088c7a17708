import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { defaultRedisSettings, type RedisSettings } from './redis-settings.ts';

/** Real servers for tests: on free ports of the loopback, with their data in folders of their own. */
export class RedisServer {
  readonly port: number;
  readonly folder: string;
  readonly #args: readonly string[];
  #process: ChildProcess | undefined;
  #log = '';

  private constructor(port: number, folder: string, args: readonly string[]) {
    this.port = port;
    this.folder = folder;
    this.#args = args;
  }

  /** @param args more of redis-server's options, e.g. `--requirepass`, `secret`. */
  static async start(...args: string[]): Promise<RedisServer> {
    const folder = await mkdtemp(join(tmpdir(), 'sallyport-redis-'));
    const server = new RedisServer(await freePort(), folder, args);
    await server.launch();
    return server;
  }

  static async sentinel(primary: RedisServer): Promise<RedisServer> {
    const folder = await mkdtemp(join(tmpdir(), 'sallyport-sentinel-'));
    const config = join(folder, 'sentinel.conf');
    await writeFile(
      config,
      [
        `sentinel monitor mymaster 127.0.0.1 ${primary.port} 1`,
        'sentinel down-after-milliseconds mymaster 800',
        'sentinel failover-timeout mymaster 5000',
        '',
      ].join('\n'),
    );
    const server = new RedisServer(await freePort(), folder, [config, '--sentinel']);
    await server.launch();
    return server;
  }

  get settings(): RedisSettings {
    return defaultRedisSettings({ url: `redis://127.0.0.1:${this.port}` });
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  /** Starts the process, or starts it again on the same port and folder. */
  async launch(): Promise<void> {
    const sentinel = this.#args.includes('--sentinel');
    const base = ['--port', String(this.port), '--bind', '127.0.0.1', '--dir', this.folder];
    const data = ['--save', '', '--appendonly', 'yes', '--appendfsync', 'no'];
    const args = sentinel ? [...this.#args, ...base] : [...base, ...data, ...this.#args];
    const child = spawn('redis-server', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#process = child;
    this.#log = '';
    await new Promise<void>((resolve, reject) => {
      const late = setTimeout(
        () => reject(new Error(`redis-server is not ready: ${this.#log}`)),
        START_MILLIS,
      );
      child.stdout?.on('data', (chunk: Buffer) => {
        this.#log += chunk.toString();
        if (!/Ready to accept connections|\+monitor/.test(this.#log)) return;
        clearTimeout(late);
        resolve();
      });
      child.once('error', reject);
      child.once('exit', () => reject(new Error(`redis-server ended: ${this.#log}`)));
    });
  }

  /** SIGKILL: without a last word to replicas or disk. */
  async kill(): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
  }

  pause(): void {
    this.#process?.kill('SIGSTOP');
  }

  resume(): void {
    this.#process?.kill('SIGCONT');
  }

  async stop(): Promise<void> {
    await this.kill();
    await rm(this.folder, { recursive: true, force: true });
  }

  /** What redis-cli prints. */
  async cli(...args: string[]): Promise<string> {
    const { stdout } = await promisify(execFile)('redis-cli', ['-p', String(this.port), ...args]);
    return stdout.trim();
  }
}

export interface RedisGroup {
  settings: RedisSettings;
  servers: RedisServer[];
  stop(): Promise<void>;
}

/** A primary, its replica and a sentinel, in this order. */
export async function startSentinelGroup(): Promise<RedisGroup> {
  const primary = await RedisServer.start('--min-replicas-to-write', '1', '--repl-diskless-sync-delay', '0');
  const replica = await RedisServer.start('--replicaof', '127.0.0.1', String(primary.port));
  await until(async () => (await primary.cli('INFO', 'replication')).includes('state=online'));
  const sentinel = await RedisServer.sentinel(primary);
  await until(async () =>
    (await sentinel.cli('SENTINEL', 'REPLICAS', 'mymaster')).includes(String(replica.port)),
  );
  const servers = [primary, replica, sentinel];
  return {
    settings: defaultRedisSettings({ sentinels: [`127.0.0.1:${sentinel.port}`] }),
    servers,
    stop: async () => void (await Promise.all(servers.map((server) => server.stop()))),
  };
}

/** A Redis Cluster of three primaries without replicas. */
export async function startRedisCluster(): Promise<RedisGroup> {
  const servers = await Promise.all(
    [0, 1, 2].map(async () =>
      RedisServer.start(
        '--cluster-enabled',
        'yes',
        '--cluster-port',
        String(await freePort()),
        '--cluster-node-timeout',
        '2000',
      ),
    ),
  );
  const nodes = servers.map((server) => `127.0.0.1:${server.port}`);
  await servers[0]?.cli('--cluster', 'create', ...nodes, '--cluster-yes');
  await until(async () => {
    const states = await Promise.all(servers.map((server) => server.cli('CLUSTER', 'INFO')));
    return states.every((state) => state.includes('cluster_state:ok'));
  });
  return {
    settings: defaultRedisSettings({ clusterNodes: nodes }),
    servers,
    stop: async () => void (await Promise.all(servers.map((server) => server.stop()))),
  };
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

export async function until(reached: () => Promise<boolean>, millis = START_MILLIS): Promise<void> {
  const end = performance.now() + millis;
  while (!(await reached().catch(() => false))) {
    if (performance.now() > end) throw new Error('did not happen in time');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const START_MILLIS = 120_000;
