import { readFileSync } from 'node:fs';
import { attempt, CommandFailed } from './commands.ts';

/**
 * Takes connections of addresses that left this node out of the kernel's tracking: when the address comes back, what was
 * tracked before its absence would make firewalls drop its packets as invalid, or let in what belonged to somebody else.
 * Works where the program `conntrack` is installed and something is tracked; else there is nothing to do.
 */
export class Conntrack {
  /** Prefixes, each once, the oldest first. */
  readonly #waiting = new Set<string>();
  #working: Promise<void> | undefined;
  #missing = false;
  #closed = false;

  get waiting(): number {
    return this.#waiting.size;
  }

  /** @param prefix as `10.90.0.5/32` or `fd90::5/128`. */
  forget(prefix: string): void {
    if (this.#missing || this.#closed) return;
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
        await attempt('conntrack', ['--load-file', '-'], prefixes.map(deletions).join(''));
      } catch (error) {
        if (!(error instanceof CommandFailed)) throw error;
        this.#missing ||= error.missing;
      }
      if (this.#missing) this.#waiting.clear();
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

export const MAX_WAITING_PREFIXES = 16_384;
/** Each reads the whole table, so a run must end within the limit of a command. */
const PREFIXES_PER_RUN = 128;
