/** Our gateway in a laboratory's gateway namespace. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab, Spawned } from './lab.ts';
import { ByteReader } from './tls-client.ts';
import { eventually, PATIENCE_MS, ROOT, run, type Finished } from './run.ts';

/** A configuration document: keys as in docs/configuration.md. JSON is YAML, so it is written as JSON. */
export type SettingsDocument = Record<string, unknown>;

export interface LogLine {
  level: number;
  name: string;
  msg: string;
  [field: string]: unknown;
}

/** From the arguments of bin/sallyport to the program that is started. */
export type Launch = (role: readonly string[]) => readonly string[];

const DIRECTLY: Launch = (role) => [process.execPath, `${ROOT}bin/sallyport`, ...role];

export class Gateway {
  readonly #lab: Lab;
  readonly #launch: Launch;
  readonly stateDir: string;
  readonly configFile: string;
  #process: Spawned | undefined;
  #earlierLogs = '';

  static async start(
    lab: Lab,
    settings: SettingsDocument,
    { folder = join(lab.folder, 'gateway'), launch = DIRECTLY }: { folder?: string; launch?: Launch } = {},
  ): Promise<Gateway> {
    const gateway = new Gateway(lab, folder, launch);
    gateway.configure(settings);
    await gateway.start();
    return gateway;
  }

  private constructor(lab: Lab, folder: string, launch: Launch) {
    this.#lab = lab;
    this.#launch = launch;
    this.stateDir = folder;
    this.configFile = `${folder}.yaml`;
  }

  /** Writes the configuration; a running gateway takes it with `reload`. */
  configure(settings: SettingsDocument): void {
    writeFileSync(this.configFile, `${JSON.stringify(settings, null, 1)}\n`);
  }

  get pid(): number {
    return this.#process?.pid ?? -1;
  }
  get running(): boolean {
    const child = this.#process?.child;
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  }
  get socket(): string {
    return join(this.stateDir, 'sallyport.sock');
  }

  /** Starts it and waits until it serves. @throws with its log when it does not. */
  async start(): Promise<void> {
    if (this.running) throw new Error('the gateway runs already');
    this.#earlierLogs += this.#process?.output() ?? '';
    const role = ['gateway', '--config', this.configFile, '--state-dir', this.stateDir];
    this.#process = this.#lab.spawn(this.#lab.gateway, this.#launch(role));
    await eventually(
      'the gateway serves',
      async () => {
        if (!this.running) throw new Error(`the gateway ended: ${this.logs()}`);
        return (await this.health('ready').catch(() => 0)) === 200;
      },
      PATIENCE_MS,
    ).catch((error: unknown) => {
      throw new Error(`the gateway does not serve:\n${this.logs()}`, { cause: error });
    });
  }

  /** Planned stop. @returns its exit code. */
  async stop(): Promise<number> {
    this.#process?.child.kill('SIGTERM');
    return (await this.#process?.exited) ?? -1;
  }

  /** `kill -9`. */
  async kill(): Promise<void> {
    this.#process?.child.kill('SIGKILL');
    await this.#process?.exited;
  }

  signal(name: NodeJS.Signals): void {
    this.#process?.child.kill(name);
  }

  /** Log of all starts so far. */
  logs(): string {
    return this.#earlierLogs + (this.#process?.output() ?? '');
  }

  logLines(): LogLine[] {
    return this.logs()
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .flatMap((line): LogLine[] => {
        const parsed: unknown = JSON.parse(line);
        return isLogLine(parsed) ? [parsed] : [];
      });
  }

  /** Status of `/health/NAME`. */
  async health(name: 'live' | 'ready' | 'startup'): Promise<number> {
    return (await this.#admin(`/health/${name}`)).status;
  }

  /** All samples of `/metrics`: `name{labels}` to value. */
  async metrics(): Promise<Map<string, number>> {
    const { body } = await this.#admin('/metrics');
    const samples = new Map<string, number>();
    for (const line of body.split('\n')) {
      const at = line.lastIndexOf(' ');
      if (!line.startsWith('#') && at > 0) samples.set(line.slice(0, at), Number(line.slice(at + 1)));
    }
    return samples;
  }

  /** Sum of the samples of a metric whose labels hold all of `labels`. */
  async metric(name: string, labels: Record<string, string> = {}): Promise<number> {
    return sumOf(await this.metrics(), name, labels);
  }

  /** Runs `sallyport ARGUMENTS` against this gateway. */
  cli(argv: readonly string[], options: { input?: string; anyCode?: boolean } = {}): Promise<Finished> {
    return run([process.execPath, `${ROOT}bin/sallyport`, ...argv, '-s', this.socket], options);
  }

  /** `sallyport show WHAT -j`, parsed. */
  async show(...what: string[]): Promise<unknown> {
    return JSON.parse((await this.cli(['show', ...what, '-j'])).stdout);
  }

  /** `show users` as a list of objects with occtl's keys. */
  async users(): Promise<Record<string, unknown>[]> {
    const shown = await this.show('users');
    if (!Array.isArray(shown)) throw new Error('show users -j is not a list');
    return shown.filter(isRecord);
  }

  /** Resident memory of its process in bytes. */
  residentBytes(): number {
    const status = readFileSync(`/proc/${this.pid}/status`, 'utf8');
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
  }

  async #admin(path: string): Promise<{ status: number; body: string }> {
    const socket = await this.#lab.dial(this.#lab.gateway, '127.0.0.1', ADMIN_PORT);
    try {
      const reader = new ByteReader(socket);
      socket.write(`GET ${path} HTTP/1.0\r\nHost: admin\r\nConnection: close\r\n\r\n`);
      const text = (await reader.toEnd()).toString();
      const [head = '', ...body] = text.split('\r\n\r\n');
      return { status: Number(/^HTTP\/1\.\d (\d+)/.exec(head)?.[1] ?? 0), body: body.join('\r\n\r\n') };
    } finally {
      socket.destroy();
    }
  }
}

export function sumOf(
  samples: Map<string, number>,
  name: string,
  labels: Record<string, string> = {},
): number {
  let sum = 0;
  for (const [sample, value] of samples) {
    if (sample !== name && !sample.startsWith(`${name}{`)) continue;
    if (Object.entries(labels).every(([label, text]) => sample.includes(`${label}="${text}"`))) sum += value;
  }
  return sum;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isLogLine(value: unknown): value is LogLine {
  return isRecord(value) && typeof value['level'] === 'number' && typeof value['msg'] === 'string';
}

export const ADMIN_PORT = 9480;
