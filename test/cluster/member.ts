import { existsSync, readFileSync } from 'node:fs';
import { eventually, ROOT, type Lab, type Spawned, type SpawnOptions } from '../harness/index.ts';

export interface MemberOptions {
  lab: Lab;
  name: string;
  namespace: string;
  argv: readonly string[];
  /** File that its output is added to. */
  log: string;
  /** What it prints when it serves, or another sign of it. */
  ready: RegExp | (() => boolean);
  spawn?: SpawnOptions;
}

/** One process of the cluster: a replica of a service, a node below its supervisor, a store. */
export class Member {
  readonly #options: MemberOptions;
  #process: Spawned | undefined;

  constructor(options: MemberOptions) {
    this.#options = options;
  }

  get name(): string {
    return this.#options.name;
  }
  get namespace(): string {
    return this.#options.namespace;
  }
  /** As it is started inside its namespace. */
  get argv(): readonly string[] {
    return this.#options.argv;
  }
  get pid(): number {
    return this.#process?.pid ?? -1;
  }
  get running(): boolean {
    const child = this.#process?.child;
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  }
  /** What it printed since its last start. */
  get output(): string {
    return this.#process?.output() ?? '';
  }

  /** Starts it. @throws with its output when it does not serve. */
  async start(timeoutMs = START_MS): Promise<void> {
    const { lab, name, namespace, argv, log, ready, spawn } = this.#options;
    if (this.running) throw new Error(`${name} runs already`);
    this.#process = lab.spawn(namespace, argv, { ...spawn, log });
    const serves = () => {
      if (!this.running) throw new Error(`${name} ended`);
      return typeof ready === 'function' ? ready() : ready.test(this.output);
    };
    await eventually(`${name} serves`, serves, timeoutMs).catch((error: unknown) => {
      throw new Error(`${name} does not serve:\n${this.output.slice(-TOLD_CHARACTERS)}`, { cause: error });
    });
  }

  /** Planned stop. @returns its exit code. */
  async stop(): Promise<number> {
    this.#process?.child.kill('SIGTERM');
    return (await this.#process?.exited) ?? -1;
  }

  /** `kill -9`; below a supervisor also what that serves with. */
  async kill(): Promise<void> {
    this.#process?.child.kill('SIGKILL');
    await this.#process?.exited;
  }

  signal(name: NodeJS.Signals): void {
    this.#process?.child.kill(name);
  }
}

/** A tunnel node below its supervisor, or by itself where there is none. */
export class NodeMember extends Member {
  /** The process that serves clients. */
  get servingPid(): number {
    return HAS_SUPERVISOR ? (childrenOf(this.pid)[0] ?? -1) : this.pid;
  }

  /** `kill -9` of the process that serves clients; its supervisor starts it again. */
  crash(): void {
    process.kill(this.servingPid, 'SIGKILL');
  }

  /** `kill -9` of all of it at once. */
  override async kill(): Promise<void> {
    const serving = this.servingPid;
    // The supervisor first: else it starts another.
    this.signal('SIGKILL');
    if (serving > 0 && serving !== this.pid) killQuietly(serving);
    await super.kill();
  }
}

function childrenOf(pid: number): number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
    return text.split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // went with its supervisor
  }
}

export const SUPERVISOR = `${ROOT}native/target/release/sallyport-supervisor`;
export const HAS_SUPERVISOR = existsSync(SUPERVISOR);
/** Ten processes start at once, on a machine that may have other work. */
const START_MS = 120_000;
const TOLD_CHARACTERS = 4_000;
