import type { Reason } from '@sallyport/protocol';
import type { ClientFacts, FormField } from '@sallyport/cluster';

/**
 * One way to prove who somebody is. A profile names one or several; all must name the same user.
 * A method keeps nothing between calls: what a challenge needs later stands in its `state`, stored with the login.
 */
export interface Method {
  readonly name: string;
  /** Fields of its first form; empty = it needs none, and is asked before methods that do. */
  readonly fields: readonly FormField[];
  /** Stands above the first form. */
  readonly message: string;
  /**
   * Judges the answers. Takes the same time for an unknown user as for a wrong password. A fault rejects the promise
   * and counts as a refusal.
   */
  verify(context: MethodContext, answers: Answers): Promise<MethodResult>;
}

export type Answers = Readonly<Record<string, string>>;

export interface MethodContext {
  client: ClientFacts;
  /** Of the challenge that is answered here; '' = the first form. */
  state: string;
}

export type MethodResult =
  /** `mark`: `Directory.markOf` of the record that the proof rests on; the proof falls when the record changes. */
  | { type: 'proven'; user: string; mark: string }
  /** Another form first; `state` comes back in the context. It may be read by who reads the store: no secret in clear. */
  | { type: 'challenge'; message: string; fields: FormField[]; state: string }
  | {
      type: 'refused';
      /** What the client is told. */
      reason: Reason;
      /** What operators are told, when the client must not learn it. */
      cause?: Reason;
      /** Whom the answers claim to be, if that user exists; else ''. */
      user: string;
    };
