import type { Micros } from '@sallyport/cluster';
import type { Reason } from '@sallyport/protocol';

/** Leases that this node was told it lost, also before it had attached them (C2), for longer than a claim may take. */
export class LostLeases {
  /** In the order of arrival, so the first is the oldest. */
  readonly #bySession = new Map<string, Lost>();

  get size(): number {
    return this.#bySession.size;
  }

  /** @param now monotonic, ms. */
  add(sessionId: string, upToEpoch: Micros, reason: Reason, now: number): void {
    // Else a session that is lost again would keep its old place and stand before what has to be forgotten.
    this.#bySession.delete(sessionId);
    this.#bySession.set(sessionId, { upToEpoch, reason, at: now });
    for (const oldest of this.#bySession.keys()) {
      if (this.#bySession.size <= MAX_LOST_LEASES) return;
      this.#bySession.delete(oldest);
    }
  }

  /** Why the lease of this epoch is not ours any more; undefined = it is. */
  reasonOf(sessionId: string, epoch: Micros): Reason | undefined {
    const lost = this.#bySession.get(sessionId);
    return lost && lost.upToEpoch >= epoch ? lost.reason : undefined;
  }

  handleTick(now: number): void {
    for (const [sessionId, { at }] of this.#bySession) {
      if (now - at < LOST_SECONDS * 1000) return;
      this.#bySession.delete(sessionId);
    }
  }
}

interface Lost {
  upToEpoch: Micros;
  reason: Reason;
  /** Monotonic, ms. */
  at: number;
}

/** Longer than any claim may take (C2). */
export const LOST_SECONDS = 120;
/** The oldest goes when there is one more: far more than claims can be under way. */
export const MAX_LOST_LEASES = 65_536;
