import { tombstoneLifetime, type Micros, type Session } from '@sallyport/cluster';

/** Sessions that ended at this node, while their cookie may come back: a store that forgot it must not revive them (C1). */
export class EndedSessions {
  /** In the order of their ends. */
  readonly #bySession = new Map<string, Session>();

  /** @param session in state `closed`. */
  add(session: Session): void {
    this.#bySession.delete(session.id);
    this.#bySession.set(session.id, session);
    for (const oldest of this.#bySession.keys()) {
      if (this.#bySession.size <= MAX_ENDED_SESSIONS) return;
      this.#bySession.delete(oldest);
    }
  }

  list(now: Micros): Session[] {
    return Array.from(this.#bySession.values()).filter((session) => !isForgotten(session, now));
  }

  handleTick(now: Micros): void {
    for (const [id, session] of this.#bySession) {
      if (!isForgotten(session, now)) return;
      this.#bySession.delete(id);
    }
  }
}

function isForgotten(session: Session, now: Micros): boolean {
  return session.endedAt + tombstoneLifetime(session) <= now;
}

/** The oldest goes when there is one more. */
export const MAX_ENDED_SESSIONS = 16_384;
