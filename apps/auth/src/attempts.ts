import { performance } from 'node:perf_hooks';
import type { Reason } from '@sallyport/protocol';
import { StoreUnavailable, type EventLog, type LoginFailures } from '@sallyport/cluster';
import type { Log, Metrics } from '@sallyport/chassis';
import type { Method, MethodContext, MethodResult, Answers } from './method.ts';
import type { Login } from './login.ts';

/** What is remembered of each attempt: one counter, one time, one fact, one line; of failures their number in the cluster. */
export class Attempts {
  readonly #events: Pick<EventLog, 'append'>;
  readonly #failures: Pick<LoginFailures, 'add'>;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #total;
  readonly #seconds;
  readonly #counted;
  readonly #uncounted;

  constructor(parts: AttemptsParts) {
    this.#events = parts.events;
    this.#failures = parts.failures;
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
    this.#counted = parts.metrics.counter(
      'sallyport_auth_failures_total',
      'Failed proofs, by whose they are counted (of) and by which of this user or address they are in the span, on all replicas.',
      ['of', 'number'],
    );
    this.#uncounted = parts.metrics.counter(
      'sallyport_auth_failures_uncounted_total',
      'Failed proofs that the store did not take: counts of users and addresses lack them.',
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
    // Nobody waits for it: the store may be slow or away, and the answer is the same.
    if (FAILED_PROOFS.has(reason)) void this.#count(user, address);
  }

  async #count(user: string, address: string): Promise<void> {
    try {
      const count = await this.#failures.add(user, address);
      if (count.user > 0) this.#counted.inc({ of: 'user', number: orderOf(count.user) });
      if (count.address > 0) this.#counted.inc({ of: 'address', number: orderOf(count.address) });
    } catch (error) {
      this.#uncounted.inc();
      if (!(error instanceof StoreUnavailable)) this.#log.error({ err: error }, 'a failure was not counted');
    }
  }

  /** Names and addresses not above debug. */
  #who(user: string, address: string): object {
    return this.#log.level === 'debug' || this.#log.level === 'trace' ? { user, address } : {};
  }

  #micros(): bigint {
    return BigInt(this.#now()) * 1000n;
  }
}

export interface AttemptsParts {
  events: Pick<EventLog, 'append'>;
  metrics: Metrics;
  log: Log;
  /** ms since 1970. */
  now: () => number;
  failures: Pick<LoginFailures, 'add'>;
}

/** Many of one user or address are guesses; a few are fingers. */
function orderOf(count: number): string {
  if (count < SOME_FAILURES) return 'few';
  return count < MANY_FAILURES ? 'some' : 'many';
}

/** Somebody claimed to be who he is not. Others, a full table or an expired form, are no guesses. */
const FAILED_PROOFS: ReadonlySet<Reason> = new Set([
  'login-failed',
  'user-locked',
  'certificate-user-mismatch',
]);
/** From the how many-th failure on it is `some`, and `many`: ocserv's sample bans at the eighth wrong password. */
const SOME_FAILURES = 8;
const MANY_FAILURES = 40;
const DURATION_BUCKETS = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
