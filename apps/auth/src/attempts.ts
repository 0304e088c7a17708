import { performance } from 'node:perf_hooks';
import type { Reason } from '@sallyport/protocol';
import type { EventLog } from '@sallyport/cluster';
import type { Log, Metrics } from '@sallyport/chassis';
import type { Method, MethodContext, MethodResult, Answers } from './method.ts';
import type { Login } from './login.ts';

/** What is remembered of each attempt: one counter, one time, one fact, one line. */
export class Attempts {
  readonly #events: Pick<EventLog, 'append'>;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #total;
  readonly #seconds;

  constructor(parts: { events: Pick<EventLog, 'append'>; metrics: Metrics; log: Log; now: () => number }) {
    this.#events = parts.events;
    this.#log = parts.log;
    this.#now = parts.now;
    this.#total = parts.metrics.counter(
      'sallyport_auth_attempts_total',
      'Login steps judged, by method and result.',
      ['method', 'result'],
    );
    this.#seconds = parts.metrics.histogram(
      'sallyport_auth_duration_seconds',
      'Time that a method took to judge one step.',
      DURATION_BUCKETS,
      ['method'],
    );
  }

  /** Verifies and takes the time. A fault of the method is a refusal: fail closed. */
  async verify(method: Method, context: MethodContext, answers: Answers): Promise<MethodResult> {
    const started = performance.now();
    try {
      return await method.verify(context, answers);
    } catch (error) {
      this.#log.error({ err: error, method: method.name }, 'login method failed');
      return { type: 'refused', reason: 'login-failed', cause: 'error', user: '' };
    } finally {
      this.#seconds.observe({ method: method.name }, (performance.now() - started) / 1000);
    }
  }

  /** One method was satisfied, or asks on. */
  passed(method: string, result: 'proven' | 'challenge'): void {
    this.#total.inc({ method, result });
  }

  succeeded(login: Login, user: string, sessionId: string): void {
    const { profile, address } = login;
    const method = login.methods.join('+');
    this.#events.append([
      { v: 1, at: this.#micros(), type: 'auth.succeeded', user, profile, method, address, sessionId },
    ]);
    this.#log.info({ profile, method, sessionId, ...this.#who(user, address) }, 'login granted');
  }

  /** @param reason the true one, also where the client is told less. @param user '' = nobody whom we know. */
  failed(attempt: { method: string; profile: string; address: string; user: string; reason: Reason }): void {
    const { method, profile, address, user, reason } = attempt;
    this.#total.inc({ method, result: reason });
    this.#events.append([
      { v: 1, at: this.#micros(), type: 'auth.failed', user, profile, method, address, reason },
    ]);
    this.#log.info({ profile, method, reason, ...this.#who(user, address) }, 'login refused');
  }

  /** Names and addresses not above debug. */
  #who(user: string, address: string): object {
    return this.#log.level === 'debug' || this.#log.level === 'trace' ? { user, address } : {};
  }

  #micros(): bigint {
    return BigInt(this.#now()) * 1000n;
  }
}

const DURATION_BUCKETS = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
