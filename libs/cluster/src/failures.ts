import { clientPlace } from './client-place.ts';
import type { Counters } from './counters.ts';

/** Failed logins of one user or address in the span that began with the first of them. */
export interface FailureCount {
  user: number;
  address: number;
}

/**
 * Failed logins of users and client addresses, counted over all replicas of auth. Of a user only where we know him: names
 * that somebody invents count for the address alone. An address counts by its `clientPlace`.
 * Rejects with `StoreUnavailable`.
 */
export class LoginFailures {
  readonly #counters: Counters;

  constructor(counters: Counters) {
    this.#counters = counters;
  }

  /** One more of both. @param user '' = nobody whom we know. @returns what they are now; 0 = not counted. */
  async add(user: string, address: string): Promise<FailureCount> {
    const [ofUser, ofAddress] = await Promise.all([
      user === '' ? 0 : this.#counters.add(KINDS.user, user, FAILURE_SPAN_SECONDS),
      address === '' ? 0 : this.#counters.add(KINDS.address, clientPlace(address), FAILURE_SPAN_SECONDS),
    ]);
    return { user: ofUser, address: ofAddress };
  }

  async read(user: string, address: string): Promise<FailureCount> {
    const [ofUser, ofAddress] = await Promise.all([
      user === '' ? 0 : this.#counters.read(KINDS.user, user),
      address === '' ? 0 : this.#counters.read(KINDS.address, clientPlace(address)),
    ]);
    return { user: ofUser, address: ofAddress };
  }
}

const KINDS = { user: 'login-failed-user', address: 'login-failed-address' } as const;
/** As long as ocserv's `ban-reset-time` in its sample. */
export const FAILURE_SPAN_SECONDS = 1200;
