import type { Reason } from '@sallyport/protocol';
import type { NodeIdentity, Session } from './session.ts';

/**
 * What a node does when Redis may have forgotten (CLUSTER.md C1): it says what it holds. Until all have done so, at most
 * 10 s, an unknown token is answered by `StoreUnavailable`, and a claim that needs a new address too.
 * Only the Redis form of the session table has it.
 */
export interface Assertions {
  /**
   * Calls back when a reign begins, also the first one that this process sees: then assert. Notices must be listened
   * to, because the answer to fetching them is what tells of it. @returns how to stop.
   */
  onNewReign(deliver: (reign: string) => void): () => void;

  /**
   * Writes what the table lacks. Repeating it is safe.
   * @param sessions each live tunnel's session as this node knows it (state `up`), and what it knows to have ended in
   *   the last cookie lifetime (state `closed`).
   * @returns one verdict per session, in order.
   */
  assert(node: NodeIdentity, sessions: readonly Session[]): Promise<AssertionVerdict[]>;
}

export type AssertionVerdict =
  | { sessionId: string; kept: true }
  /** The tunnel is lost: `superseded` = another node has a higher lease; else the session has ended. */
  | { sessionId: string; kept: false; reason: Reason };
