import type { EventLog, Fact } from './events.ts';

/**
 * The facts of one process, the last ones kept (without `stats`: every session's counters each minute would push out
 * what an operator looks for; followers get them). Followers are called in order, each from its own queue, never inside
 * `append`: a follower that throws is dropped from that fact on, one that falls behind loses the oldest facts.
 */
export class MemoryEventLog implements EventLog {
  readonly #kept: number;
  /** A ring: `#next` is where the coming fact goes. */
  readonly #ring: Fact[] = [];
  #next = 0;
  readonly #followers = new Set<Follower>();
  #lost = 0;

  /** @param kept number of facts that `recent` can give. */
  constructor(kept = FACTS_KEPT) {
    this.#kept = kept;
  }

  append(facts: readonly Fact[]): void {
    for (const fact of facts) {
      if (fact.type === 'stats') continue;
      this.#ring[this.#next] = fact;
      this.#next = (this.#next + 1) % this.#kept;
    }
    for (const follower of this.#followers) this.#offer(follower, facts);
  }

  recent(limit: number): Fact[] {
    const length = this.#ring.length;
    const from = length < this.#kept ? 0 : this.#next;
    const wanted = Math.max(0, Math.min(limit, length));
    const out: Fact[] = [];
    for (let i = length - wanted; i < length; i++) {
      const fact = this.#ring[(from + i) % length];
      if (fact !== undefined) out.push(fact);
    }
    return out;
  }

  follow(deliver: (fact: Fact) => void): () => void {
    const follower: Follower = { deliver, waiting: [], scheduled: false, stopped: false };
    this.#followers.add(follower);
    return () => this.#stop(follower);
  }

  /** Facts that slow followers did not get, since the start. */
  get lost(): number {
    return this.#lost;
  }

  #offer(follower: Follower, facts: readonly Fact[]): void {
    follower.waiting.push(...facts);
    const excess = follower.waiting.length - FOLLOWER_BACKLOG;
    if (excess > 0) {
      follower.waiting.splice(0, excess);
      this.#lost += excess;
    }
    if (follower.scheduled) return;
    follower.scheduled = true;
    setImmediate(() => this.#deliver(follower));
  }

  #deliver(follower: Follower): void {
    follower.scheduled = false;
    for (const fact of follower.waiting.splice(0)) {
      if (follower.stopped) return;
      try {
        follower.deliver(fact);
      } catch {
        this.#stop(follower);
      }
    }
  }

  #stop(follower: Follower): void {
    follower.stopped = true;
    follower.waiting.length = 0;
    this.#followers.delete(follower);
  }
}

interface Follower {
  deliver: (fact: Fact) => void;
  waiting: Fact[];
  scheduled: boolean;
  stopped: boolean;
}

/** Facts kept for `recent`. */
export const FACTS_KEPT = 1000;
/** Facts that wait for one follower; above it the oldest are lost and counted. */
export const FOLLOWER_BACKLOG = 4096;
