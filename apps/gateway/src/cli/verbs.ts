/** What the verbs of the command line share: where the gateway is, how results are printed, what surrounds the program. */
import { statSync } from 'node:fs';
import { Argument, Command, Option } from 'commander';
import type { PeerRole } from '@sallyport/cluster';
import type { AdminClient } from './admin-client.ts';
import type { Input } from './prompt.ts';

export { Argument, Command, Option };

/** What the program takes from its surroundings. */
export interface Surroundings {
  version: string;
  /** Value of $SALLYPORT_SOCKET. */
  socketVariable: string | undefined;
  input: Input;
  /** Where a question for a password is put, and what goes wrong meanwhile: a terminal, never `out`. */
  prompts: NodeJS.WriteStream;
  out(text: string): void;
  now(): number;
  /** Resolves when somebody wants a verb that does not end by itself to end. */
  interrupted(): Promise<void>;
  runGateway(options: GatewayCommand): Promise<void>;
  /** A role of a cluster. */
  runRole(role: PeerRole, options: RoleCommand): Promise<void>;
  supervise(role: string, args: readonly string[]): Promise<void>;
}

/** `sallyport auth …` and the other roles of a cluster. */
export interface RoleCommand {
  config: string;
  stateDir: string;
}

/** `sallyport gateway …`. */
export interface GatewayCommand {
  /** '' = sallyport.yaml in the state folder. */
  config: string;
  stateDir: string;
  /** Make what the state folder lacks, and say how to try the gateway. */
  firstRun: boolean;
}

export interface GlobalOptions {
  socketFile?: string;
  json?: boolean;
}

export class Verbs {
  readonly #program: Command;
  readonly #around: Surroundings;

  constructor(program: Command, around: Surroundings) {
    this.#program = program;
    this.#around = around;
  }

  get socket(): string {
    const { socketFile } = this.#program.opts<GlobalOptions>();
    const named = socketFile ?? this.#around.socketVariable;
    if (named) return named;
    return SOCKETS.find(mayBeThere) ?? SOCKETS[1] ?? '';
  }

  /** Runs against the gateway. */
  async ask(work: (client: AdminClient) => Promise<void>): Promise<void> {
    const { AdminClient } = await import('./admin-client.ts');
    const client = await AdminClient.open(this.socket);
    try {
      await work(client);
    } finally {
      client.close();
    }
  }

  get now(): number {
    return this.#around.now();
  }

  get interrupted(): Promise<void> {
    return this.#around.interrupted();
  }

  /** What goes wrong without ending the verb. */
  warn(text: string): void {
    this.#around.prompts.write(`${text}\n`);
  }

  get isJson(): boolean {
    return this.#program.opts<GlobalOptions>().json ?? false;
  }

  print(json: unknown, text: string): void {
    this.#around.out(`${this.isJson ? JSON.stringify(json, null, 2) : text}\n`);
  }

  /** One line at a time, for what does not end. */
  printLine(json: unknown, text: string): void {
    this.#around.out(`${this.isJson ? JSON.stringify(json) : text}\n`);
  }
}

function mayBeThere(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EACCES';
  }
}

/** Sockets that are looked for, the first that exists (also where we may not look: then the connection says so). */
export const SOCKETS = [
  './state/sallyport.sock',
  '/var/lib/sallyport/sallyport.sock',
  // Of the units of a cluster: auth first, which can do more.
  '/var/lib/sallyport/auth/sallyport.sock',
  '/var/lib/sallyport/tunnel-node/sallyport.sock',
];
export const DEFAULT_STATE_DIR = '/var/lib/sallyport';
