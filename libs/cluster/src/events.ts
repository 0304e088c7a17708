import type { Reason } from '@sallyport/protocol';
import type { Micros, SessionEvent } from './session.ts';

/** A fact that is not a transition of a session. Never holds a password, cookie, token or key. */
export type Occurrence = { v: number; at: Micros } & (
  | {
      type: 'auth.succeeded';
      user: string;
      profile: string;
      method: string;
      address: string;
      sessionId: string;
    }
  | { type: 'auth.failed'; user: string; profile: string; method: string; address: string; reason: Reason }
  /** A CONNECT with the token of a session that is not closed; reason as in the client's answer. */
  | {
      type: 'connect.refused';
      user: string;
      profile: string;
      address: string;
      reason: Reason;
      sessionId: string;
      node: string;
    }
  | { type: 'node.ready' | 'node.stopping'; node: string; incarnation: string }
  | { type: 'config.applied' | 'config.rejected'; revision: string; detail: string }
  | { type: 'admin.changed'; verb: string; subject: string }
);

export type Fact = SessionEvent | Occurrence;

/** Facts in order, for whoever listens: `show events`, an outbox to Kafka later. */
export interface EventLog {
  append(facts: readonly Fact[]): void;
  /** The last facts kept, oldest first. */
  recent(limit: number): Fact[];
  follow(deliver: (fact: Fact) => void): () => void;
}
