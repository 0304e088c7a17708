import type { EventLog, Fact, Micros } from '@sallyport/cluster';
import { isFault } from '@sallyport/protocol';

/** Counts of `show status` since the start of the process, from the facts that pass by. */
export class Tally {
  totalSessions = 0;
  sessionsHandled = 0;
  authenticationFailures = 0;
  timedOutSessions = 0;
  timedOutIdleSessions = 0;
  closedErrorSessions = 0;
  maxSessionSeconds = 0;
  rxBytes = 0n;
  txBytes = 0n;
  #sessionSeconds = 0;
  /** Sessions with a known length; those from before the start of the process have none. */
  #measured = 0;
  readonly #started = new Map<string, Micros>();
  readonly #stop: () => void;

  constructor(events: Pick<EventLog, 'follow'>) {
    this.#stop = events.follow((fact) => this.#count(fact));
  }

  get averageSessionSeconds(): number {
    return this.#measured === 0 ? 0 : Math.round(this.#sessionSeconds / this.#measured);
  }

  close(): void {
    this.#stop();
  }

  #count(fact: Fact): void {
    if (fact.type === 'auth.failed') this.authenticationFailures++;
    if (fact.type === 'started') {
      this.totalSessions++;
      this.#started.set(fact.sessionId, fact.at);
    }
    if (fact.type !== 'ended') return;
    this.sessionsHandled++;
    this.rxBytes += fact.rxBytes;
    this.txBytes += fact.txBytes;
    if (fact.reason === 'session-timeout') this.timedOutSessions++;
    else if (fact.reason === 'idle-timeout') this.timedOutIdleSessions++;
    else if (isFault(fact.reason)) this.closedErrorSessions++;
    this.#measure(fact.sessionId, fact.at);
  }

  #measure(sessionId: string, endedAt: Micros): void {
    const startedAt = this.#started.get(sessionId);
    if (startedAt === undefined) return;
    this.#started.delete(sessionId);
    const seconds = Number((endedAt - startedAt) / 1_000_000n);
    this.#measured++;
    this.#sessionSeconds += seconds;
    this.maxSessionSeconds = Math.max(this.maxSessionSeconds, seconds);
  }
}
