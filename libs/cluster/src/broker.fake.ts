import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** A real Kafka broker, started by tools/kafka.mjs; it ends with the process that started it. */
export class TestBroker {
  readonly port: number;
  readonly pid: number;
  readonly listeners: Record<string, number>;
  /** With `--nodes`: all of them. */
  readonly brokers: { pid: number; port: number }[];
  readonly #controllerPort: number;
  readonly #process: ChildProcess;

  private constructor(child: ChildProcess, said: Started) {
    this.#process = child;
    this.port = said.port;
    this.pid = said.pid;
    this.listeners = said.listeners;
    this.brokers = said.brokers ?? [];
    this.#controllerPort = said.controllerPort;
  }

  /** @param dir of its data; the caller removes it. @throws with the words of the tool: what to install. */
  static async start(dir: string, args: readonly string[] = []): Promise<TestBroker> {
    const child = spawn(process.execPath, [join(root(), 'tools', 'kafka.mjs'), '--dir', dir, ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let words = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (words += text));
    const line = await Promise.race([
      once(createInterface({ input: child.stdout }), 'line'),
      once(child, 'exit').then(() => undefined),
    ]);
    if (line === undefined) throw new Error(`no Kafka broker: ${words}`);
    return new TestBroker(child, JSON.parse(String(line[0])) as Started);
  }

  get broker(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** What brings the same broker back, after `stop`. */
  get again(): string[] {
    return ['--port', String(this.port), '--controller-port', String(this.#controllerPort)];
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    this.#process.kill('SIGTERM');
    await once(this.#process, 'exit');
  }

  /** The broker alone, as a machine dies. */
  async kill(): Promise<void> {
    process.kill(this.pid, 'SIGKILL');
    if (this.#process.exitCode === null) await once(this.#process, 'exit');
  }
}

interface Started {
  port: number;
  pid: number;
  controllerPort: number;
  listeners: Record<string, number>;
  brokers?: { pid: number; port: number }[];
}

function root(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'tools', 'kafka.mjs'))) {
    if (folder === dirname(folder)) throw new Error('tools/kafka.mjs is not above this file');
    folder = dirname(folder);
  }
  return folder;
}
