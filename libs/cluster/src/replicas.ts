/**
 * Several replicas of one service, each reached by its own address:
 *
 *   unknown ──answers──▶ good ──a check fails twice, or a call cannot reach it──▶ bad ──a check answers──▶ good
 *
 * A call goes to the next good one in turn. One that is under way is given up when two checks in a row that began after it
 * got no answer, so that it is repeated elsewhere, if it may be, instead of waiting for its deadline (a frozen process closes
 * nothing). Older checks say nothing about it: the replica may have just come back.
 */
import type { Log } from '@sallyport/chassis';
import { reasonText, type Reason } from '@sallyport/protocol';

/** No replica of a service could do it: the edge answers 503 with the reason. */
export class ServiceUnavailable extends Error {
  readonly reason: Reason;

  constructor(message: string, options?: ErrorOptions & { reason?: Reason }) {
    super(message, options);
    this.name = 'ServiceUnavailable';
    this.reason = options?.reason ?? 'service-unavailable';
  }

  get text(): string {
    return reasonText(this.reason);
  }
}

/** This replica cannot be reached, or died with the call: another may be asked if the call may be repeated. */
export class ReplicaLost extends Error {
  /** The call never left this process: repeating is safe whatever it does. */
  readonly unsent: boolean;

  constructor(message: string, options: ErrorOptions & { unsent: boolean }) {
    super(message, options);
    this.name = 'ReplicaLost';
    this.unsent = options.unsent;
  }
}

/** One replica as the rest sees it. */
export interface Replica {
  readonly address: string;
  /** Asks whether it would take calls. Rejects or resolves to false: no. */
  check(signal: AbortSignal): Promise<boolean>;
  close(): void;
}

export interface ReplicasOptions {
  /** For messages, e.g. `auth`. */
  service: string;
  /** Is told once when a replica cannot be used, with the cause, and once when it can again. */
  log?: Log | undefined;
  checkEveryMs?: number;
  /** ms, monotonic. */
  now?: () => number;
}

export interface CallOptions {
  /** Repeating is safe, also when the first time was done and only its answer was lost. */
  repeatable: boolean;
  deadlineMs: number;
}

export class Replicas<R extends Replica> {
  readonly #states: State<R>[];
  readonly #options: ReplicasOptions;
  readonly #timer: NodeJS.Timeout;
  readonly #pulse: NodeJS.Timeout;
  readonly #now: () => number;
  #next: number;
  #closed = false;
  /** Last turn of our own event loop, and the last one that came late. */
  #turnedAt: number;
  #stalledAt = -Infinity;

  constructor(replicas: readonly R[], options: ReplicasOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#states = replicas.map((replica) => ({
      replica,
      health: 'unknown',
      told: 'good',
      failures: 0,
      failedSince: -Infinity,
      checking: false,
      calls: new Map(),
    }));
    // Many clients that start at once do not all begin with the first.
    this.#next = Math.floor(Math.random() * Math.max(1, replicas.length));
    this.#timer = setInterval(() => this.checkAll(), options.checkEveryMs ?? CHECK_EVERY_MS);
    this.#timer.unref();
    this.#turnedAt = this.#now();
    this.#pulse = setInterval(() => this.#handlePulse(), PULSE_MS);
    this.#pulse.unref();
    this.checkAll();
  }

  /** Addresses with what is known of them. */
  get states(): { address: string; health: Health }[] {
    return this.#states.map(({ replica, health }) => ({ address: replica.address, health }));
  }

  /**
   * @param work one try with one replica; rejects with ReplicaLost when that replica is the problem.
   * @throws ServiceUnavailable when none could do it in time; what `work` throws otherwise.
   */
  async call<T>(
    { repeatable, deadlineMs }: CallOptions,
    work: (replica: R, signal: AbortSignal, leftMs: number) => Promise<T>,
  ): Promise<T> {
    const until = this.#now() + deadlineMs;
    let last: unknown;
    for (const state of this.#inOrder()) {
      const left = until - this.#now();
      if (left <= 0 || this.#closed) break;
      try {
        return await this.#try(state, left, work);
      } catch (error) {
        if (!(error instanceof ReplicaLost)) throw error;
        last = error;
        if (!error.unsent && !repeatable) break;
      }
    }
    const { service } = this.#options;
    throw new ServiceUnavailable(
      this.#closed
        ? `the client of ${service} is closed`
        : last instanceof Error
          ? `${service}: ${last.message}`
          : `no replica of ${service} answered in time`,
      { cause: last },
    );
  }

  /** Looks at all of them now, without waiting for what comes of it. */
  checkAll(): void {
    for (const state of this.#states) void this.#check(state);
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#timer);
    clearInterval(this.#pulse);
    for (const { replica, calls } of this.#states) {
      for (const call of calls.keys()) call.abort();
      replica.close();
    }
  }

  async #try<T>(
    state: State<R>,
    leftMs: number,
    work: (replica: R, signal: AbortSignal, leftMs: number) => Promise<T>,
  ): Promise<T> {
    const abort = new AbortController();
    state.calls.set(abort, this.#now());
    try {
      const result = await work(state.replica, abort.signal, leftMs);
      state.failures = 0;
      // One that says that it takes no calls any more may finish those that it has.
      if (state.health === 'unknown') state.health = 'good';
      return result;
    } catch (error) {
      if (error instanceof ReplicaLost && error.unsent) state.health = 'bad';
      throw error;
    } finally {
      state.calls.delete(abort);
    }
  }

  /** Good ones first, in turn; then those nobody knows of, then bad ones: a check may be late. */
  #inOrder(): State<R>[] {
    const start = this.#next++ % Math.max(1, this.#states.length);
    const turned = [...this.#states.slice(start), ...this.#states.slice(0, start)];
    return ORDER.flatMap((health) => turned.filter((state) => state.health === health));
  }

  async #check(state: State<R>): Promise<void> {
    if (state.checking || this.#closed) return;
    state.checking = true;
    const begun = this.#now();
    let fault: unknown = 'it takes no new calls';
    const good = await state.replica
      .check(AbortSignal.timeout(CHECK_DEADLINE_MS))
      .catch((error: unknown) => void (fault = error))
      .finally(() => (state.checking = false));
    if (good) {
      state.failures = 0;
      state.health = 'good';
      return this.#tell(state, 'good');
    }
    this.#handlePulse();
    // An answer that we had no time to read says nothing about who gave it.
    if (good === undefined && this.#stalledAt >= begun) return;
    state.failures += 1;
    // One that says no is asked no more, and finishes what it has; one that says nothing may only be slow.
    if (good === false) state.health = 'bad';
    else if (state.failures >= FAILURES_UNTIL_BAD) {
      state.health = 'bad';
      for (const [call, at] of state.calls) if (at <= state.failedSince) call.abort();
    }
    state.failedSince = begun;
    if (state.health === 'bad') this.#tell(state, 'bad', causeOf(fault));
  }

  #tell(state: State<R>, now: 'good' | 'bad', problem?: string): void {
    if (state.told === now || this.#closed) return;
    state.told = now;
    const { service, log } = this.#options;
    const { address } = state.replica;
    if (now === 'bad') log?.warn({ service, address, problem }, 'a replica cannot be used');
    else log?.info({ service, address }, 'a replica can be used again');
  }

  #handlePulse(): void {
    const now = this.#now();
    if (now - this.#turnedAt > STALL_MS) this.#stalledAt = now;
    this.#turnedAt = now;
  }
}

export type Health = 'good' | 'unknown' | 'bad';

interface State<R> {
  replica: R;
  health: Health;
  /** What the log said last. */
  told: 'good' | 'bad';
  /** Checks in a row without an answer. */
  failures: number;
  /** When the last of them began. */
  failedSince: number;
  checking: boolean;
  /** Each with the time when it began. */
  calls: Map<AbortController, number>;
}

/** Messages of an error and of what brought it about, each once. */
export function causeOf(error: unknown): string {
  const said: string[] = [];
  if (typeof error === 'string') said.push(error);
  for (let one = error; one instanceof Error && said.length < MAX_CAUSES; one = one.cause) {
    const text = one.message;
    if (text !== '' && !said.some((before) => before.includes(text))) said.push(text);
  }
  return said.join(': ');
}

const MAX_CAUSES = 5;
const ORDER: readonly Health[] = ['good', 'unknown', 'bad'];
const PULSE_MS = 100;
/** Our own event loop was busy for so long. */
const STALL_MS = 300;
export const CHECK_EVERY_MS = 1000;
export const CHECK_DEADLINE_MS = 1000;
export const FAILURES_UNTIL_BAD = 2;
