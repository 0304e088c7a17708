import { readFileSync } from 'node:fs';
import { attempt, CommandFailed } from './commands.ts';

/**
 * Takes connections of addresses that left this node out of the kernel's tracking: when the address comes back, what was
 * tracked before its absence would make firewalls drop its packets as invalid, or let in what belonged to somebody else.
 * Works where the program `conntrack` (1.4.7, with --load-file) is installed and something is tracked; else not.
 */
export class Conntrack {
  /** Prefixes, each once, the oldest first. */
  readonly #waiting = new Set<string>();
  #working: Promise<void> | undefined;
  #unusable = false;
  #closed = false;

  get waiting(): number {
    return this.#waiting.size;
  }

  /** @param prefix as `10.90.0.5/32` or `fd90::5/128`. */
  forget(prefix: string): void {
    if (this.#unusable || this.#closed) return;
    for (const oldest of this.#waiting) {
      if (this.#waiting.size < MAX_WAITING_PREFIXES) break;
      // Untold it ends by its own timeout.
      this.#waiting.delete(oldest);
    }
    this.#waiting.add(prefix);
    this.#working ??= this.#work();
  }

  /** What waits still is left to the kernel's timeouts. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#waiting.clear();
    await this.#working;
  }

  async #work(): Promise<void> {
    // What is released together goes together.
    await new Promise(setImmediate);
    while (this.#waiting.size > 0) {
      const prefixes = [...this.#waiting].slice(0, PREFIXES_PER_RUN);
      for (const prefix of prefixes) this.#waiting.delete(prefix);
      if (tracksNothing()) continue;
      try {
        const { code } = await attempt('sh', ['-c', LOAD], prefixes.map(deletions).join(''));
        this.#unusable = code !== 0;
      } catch (error) {
        // It took too long: the next ones are tried all the same.
        if (!(error instanceof CommandFailed)) throw error;
      }
      if (this.#unusable) this.#waiting.clear();
    }
    this.#working = undefined;
  }
}

function deletions(prefix: string): string {
  const begin = `-D -f ${prefix.includes(':') ? 'ipv6' : 'ipv4'}`;
  return `${begin} -s ${prefix}\n${begin} -d ${prefix}\n`;
}

function tracksNothing(): boolean {
  try {
    return readFileSync('/proc/sys/net/netfilter/nf_conntrack_count', 'latin1').trim() === '0';
  } catch {
    return true;
  }
}

/** It opens /dev/stdin by name, which must be a pipe then; ours is a socket. It finds nothing to delete: 0. */
const LOAD = 'cat | conntrack --load-file -';
export const MAX_WAITING_PREFIXES = 16_384;
/** Each reads the whole table, so a run must end within the limit of a command. */
const PREFIXES_PER_RUN = 128;
