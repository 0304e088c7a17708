/**
 * Counts over all processes of a cluster: failures of an address or a user, codes that were used. Forms:
 * `counters.memory.ts`, `counters.redis.ts`; both pass `counters.contract.ts`. Rejects with `StoreUnavailable`.
 */
export interface Counters {
  /**
   * One more. The span begins with the first; after it the count is 0 again.
   * @param kind what is counted, e.g. `login-failed-address`; letters and dashes.
   * @param key whose, e.g. the address.
   * @returns the count, this one included. A value that must be used once only was used before if it is above 1.
   */
  add(kind: string, key: string, spanSeconds: number): Promise<number>;
  read(kind: string, key: string): Promise<number>;
  clear(kind: string, key: string): Promise<void>;
}
