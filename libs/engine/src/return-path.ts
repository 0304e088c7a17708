import type { Owner } from './routes.ts';

/**
 * How answers find back to the clients of this node. Forms: `routed` (return-path.routed.ts) sets a kernel route for each
 * tunnel; with `nat` and `none` nothing depends on which tunnels there are.
 */
export interface ReturnPath {
  /**
   * This node takes the packets for these addresses from now on, instead of any node that took them before.
   * @param returning this node had them last: no other can still announce them.
   */
  announce(tunnelId: number, addresses: Owner, returning?: boolean): void;
  /** Idempotent. Addresses that another tunnel of this node has announced meanwhile stay. */
  withdraw(tunnelId: number): void;
  /**
   * This node takes the packets for all of these networks, instead of those that it said before: what of them has no
   * tunnel here has one elsewhere, with a longer prefix, or none. No other node may say the same.
   * @param home CIDRs; none = each address is announced alone.
   */
  settle(home: readonly string[]): void;
  stats(): ReturnPathStats;
  /** Ends what it started; what it set in the kernel goes with the device. Idempotent. */
  close(): Promise<void>;
}

export interface ReturnPathStats {
  routes?: RouteStats;
  translation?: TranslationStats;
}

export interface RouteStats {
  /** Prefixes that are announced. */
  announced: number;
  /** Prefixes whose routes the kernel does not have as they should be, yet. */
  waiting: number;
  /** Changes that the kernel refused since the start; each is tried again. */
  failures: number;
}

/** Each connection that is translated takes a port of an address of ours. */
export interface TranslationStats {
  connections: number;
  /** More than these the kernel does not track. */
  limit: number;
}

/** `none`: the operator's routers know the way to the pools. */
export const NO_RETURN_PATH: ReturnPath = {
  announce: () => undefined,
  withdraw: () => undefined,
  settle: () => undefined,
  stats: () => ({}),
  close: () => Promise.resolve(),
};
