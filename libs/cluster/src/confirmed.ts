import { ATTEMPT_MILLIS, TimedOut, withDeadline } from './deadline.ts';
import { StoreUnavailable } from './sessions.ts';

/** A connection to Redis, as far as it is needed here. */
export interface WaitConnection {
  readonly ready: boolean;
  open(millis: number): Promise<void>;
  call(key: string, command: string, args: readonly (string | number)[]): Promise<unknown>;
  /** What was asked got no answer. */
  renew(): void;
  close(): Promise<void>;
}

/**
 * Waits for a replica. WAIT stops the connection that it runs on, so it has one of its own; on that one a last write
 * comes first, and a replica that has it has all that was written before. Those that wait together share one WAIT, as long
 * as the most patient of them waits; each has a deadline of its own.
 */
export class Confirmed<C extends WaitConnection> {
  readonly #make: () => C;
  readonly #write: (connection: C, reign: string) => Promise<unknown>;
  #connection: C | undefined;
  #waiting: Waiter[] = [];
  #running = false;

  constructor(make: () => C, write: (connection: C, reign: string) => Promise<unknown>) {
    this.#make = make;
    this.#write = write;
  }

  /**
   * @param reign in which it was written.
   * @param until as `performance.now()` tells it, ms.
   * @throws StoreUnavailable if no replica has confirmed it by then.
   */
  async confirm(reign: string, until: number): Promise<void> {
    const confirmed = new Promise<void>((resolve, reject) => {
      this.#waiting.push({ reign, until, resolve, reject });
      if (!this.#running) void this.#drain();
    });
    try {
      await withDeadline(confirmed, until - performance.now());
    } catch (cause) {
      throw new StoreUnavailable('no replica of Redis has confirmed the change', { cause });
    }
  }

  async close(): Promise<void> {
    await this.#connection?.close();
  }

  async #drain(): Promise<void> {
    this.#running = true;
    await Promise.resolve(); // those that are asked for in the same turn go together
    for (;;) {
      const now = performance.now();
      this.#waiting = this.#waiting.filter((waiter) => waiter.until > now); // the others have been told
      const reign = this.#waiting[0]?.reign;
      if (reign === undefined) break;
      const together = this.#waiting.filter((waiter) => waiter.reign === reign);
      this.#waiting = this.#waiting.filter((waiter) => waiter.reign !== reign);
      try {
        await this.#wait(reign, Math.max(now + ATTEMPT_MILLIS, ...together.map((waiter) => waiter.until)));
        for (const waiter of together) waiter.resolve();
      } catch (error) {
        for (const waiter of together) waiter.reject(error);
      }
    }
    this.#running = false;
  }

  async #wait(reign: string, until: number): Promise<void> {
    const connection = await this.#open(until);
    const left = () => Math.max(1, Math.floor(until - performance.now()));
    try {
      await withDeadline(this.#write(connection, reign), left());
      const replicas = await withDeadline(
        connection.call('', 'WAIT', [1, left()]),
        left() + WAIT_GRACE_MILLIS,
      );
      if (!(Number(replicas) >= 1)) throw new Error('none has it in time');
    } catch (error) {
      if (error instanceof TimedOut) connection.renew();
      throw error;
    }
  }

  async #open(until: number): Promise<C> {
    this.#connection ??= this.#make();
    if (!this.#connection.ready) await this.#connection.open(Math.max(1, until - performance.now()));
    return this.#connection;
  }
}

interface Waiter {
  reign: string;
  until: number;
  resolve: () => void;
  reject: (error: unknown) => void;
}

const WAIT_GRACE_MILLIS = 200;
