import type { Clock } from './clock.ts';
import { systemClock } from './clock.ts';
import type { Counters } from './counters.ts';
import { seconds } from './session-decisions.ts';
import type { Micros } from './session.ts';

/** Counts of one process. Bounded: when it is full, what is over goes, and then the oldest. */
export class MemoryCounters implements Counters {
  readonly #clock: Clock;
  readonly #max: number;
  readonly #counts = new Map<string, { count: number; until: Micros }>();

  constructor(clock: Clock = systemClock(), max = COUNTS_LIMIT) {
    this.#clock = clock;
    this.#max = max;
  }

  async add(kind: string, key: string, spanSeconds: number): Promise<number> {
    const name = nameOf(kind, key);
    const now = this.#clock();
    const present = this.#counts.get(name);
    if (present !== undefined && present.until > now) return ++present.count;
    this.#counts.delete(name);
    if (this.#counts.size >= this.#max) this.#makeRoom(now);
    this.#counts.set(name, { count: 1, until: now + seconds(spanSeconds) });
    return 1;
  }

  async read(kind: string, key: string): Promise<number> {
    const present = this.#counts.get(nameOf(kind, key));
    return present !== undefined && present.until > this.#clock() ? present.count : 0;
  }

  async clear(kind: string, key: string): Promise<void> {
    this.#counts.delete(nameOf(kind, key));
  }

  get size(): number {
    return this.#counts.size;
  }

  #makeRoom(now: Micros): void {
    for (const [name, { until }] of this.#counts) if (until <= now) this.#counts.delete(name);
    for (const name of this.#counts.keys()) {
      if (this.#counts.size < this.#max) return;
      this.#counts.delete(name);
    }
  }
}

/** Counts that are kept, at about 200 bytes each. */
export const COUNTS_LIMIT = 100_000;

function nameOf(kind: string, key: string): string {
  return `${kind} ${key}`;
}
