/** Pings and TCP connections of all clients of a bench, from one light process: bench/tools/tunload.c. */
import type { ChildProcess } from 'node:child_process';
import { run, ROOT, within, type Lab } from '../harness/index.ts';
import type { Place } from '../cluster/network.ts';

/** Of one address family of one client. Times are seconds since 1970. */
export interface Gap {
  /** Longest time without an answer since mark(). */
  seconds: number;
  from: number;
  to: number;
  /** Since the last answer. */
  silent: number;
}

export interface ClientGaps {
  client: number;
  /** The family that is pinged every 50 ms. */
  main: Gap;
  /** Pinged every 500 ms. */
  other?: Gap;
}

/** Whether the connections of a client answer. */
export interface ClientTcp {
  client: number;
  idle: boolean;
  busy: boolean;
}

export class Traffic {
  readonly #child: ChildProcess;
  readonly #answers: ((line: string) => void)[] = [];

  /** Compiles the program if need be, and starts it. @param lab its LAN is what clients talk to */
  static async open(lab: Lab): Promise<Traffic> {
    await run(['make', '-s', '-f', '-'], { input: MAKEFILE, cwd: ROOT });
    const { child } = lab.spawn(lab.lan, [PROGRAM, lab.lan, String(PORT)], { holdInput: true });
    const traffic = new Traffic(child);
    await within(ANSWER_MS, 'traffic program', traffic.#next());
    return traffic;
  }

  private constructor(child: ChildProcess) {
    this.#child = child;
    let rest = '';
    child.stdout?.on('data', (chunk: string) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.#answers.shift()?.(line);
    });
  }

  /** @param lan `ipv6: undefined` = no IPv6 inside. @param family the one that is pinged every 50 ms */
  async add(
    client: number,
    namespace: string,
    lan: Pick<Place, 'ipv4'> & Partial<Place>,
    family: 4 | 6,
  ): Promise<void> {
    const answer = await this.#ask(`add ${client} ${namespace} ${lan.ipv4} ${lan.ipv6 ?? '-'} ${family}`);
    if (Reflect.get(answer, 'added') !== true) throw new Error(`no traffic for client ${client}`);
  }

  async drop(client: number): Promise<void> {
    await this.#ask(`drop ${client}`);
  }

  /** From here on gaps count. */
  async mark(): Promise<void> {
    await this.#ask('mark');
  }

  async gaps(): Promise<ClientGaps[]> {
    return listOf(await this.#ask('gaps'), 'gaps');
  }

  /** Opens the TCP connections that are not open. */
  async openTcp(timeoutMs: number): Promise<ClientTcp[]> {
    return listOf(await this.#ask(`open ${timeoutMs}`, timeoutMs + ANSWER_MS), 'open');
  }

  /** Asks each open TCP connection for an echo; those that do not answer in time are closed. */
  async checkTcp(timeoutMs: number): Promise<ClientTcp[]> {
    return listOf(await this.#ask(`check ${timeoutMs}`, timeoutMs + ANSWER_MS), 'check');
  }

  async #ask(command: string, timeoutMs = ANSWER_MS): Promise<object> {
    const answer = this.#next();
    this.#child.stdin?.write(`${command}\n`);
    const parsed: unknown = JSON.parse(await within(timeoutMs, command, answer));
    if (typeof parsed !== 'object' || parsed === null) throw new Error(`no answer to ${command}`);
    return parsed;
  }

  #next(): Promise<string> {
    return new Promise((resolve) => this.#answers.push(resolve));
  }
}

/** Our own program wrote it. */
function listOf<T>(answer: object, key: string): T[] {
  const list: unknown = Reflect.get(answer, key);
  if (!Array.isArray(list)) throw new Error(`no list of ${key}: ${JSON.stringify(answer)}`);
  return list;
}

const PORT = 7007;
const ANSWER_MS = 20_000;
const PROGRAM = `${ROOT}bench/build/tunload`;
const MAKEFILE = `bench/build/tunload: bench/tools/tunload.c
\t@mkdir -p bench/build
\tgcc -O2 -o $@ $<
`;
