import type { Micros } from './session.ts';

/**
 * What operators changed of the users of a cluster (decision 0007): it wins over users-file, which all replicas of auth read.
 * Forms: `account-records.memory.ts`, `account-records.redis.ts`; both pass `account-records.contract.ts`. Rejects with
 * `StoreUnavailable`.
 */
export interface AccountRecords {
  /** Every change, whoever made it, those of before first; once each unless it changes again. @returns how to stop. */
  follow(deliver: (changed: readonly AccountRecord[]) => void): () => void;
  /** Resolves when followers have heard of every change that was made before this call. */
  refresh(): Promise<void>;
  /**
   * One change, and its event in the same step. Followers have heard of it when this resolves.
   * @param inFile does users-file have him? It decides where no record does.
   */
  change(change: AccountChange, inFile: boolean): Promise<AccountOutcome>;
}

/** Of one user. What is absent is as users-file says. */
export interface AccountRecord {
  name: string;
  /** When it changed last, by the store's clock; of one name it only grows. */
  at: Micros;
  /** There is no such user, whatever users-file says. */
  deleted: boolean;
  /** Set: he was added, and users-file does not count for him. */
  groups?: readonly string[];
  locked?: boolean;
  /** Of the password. */
  hash?: string;
  /** When `hash` was set. */
  hashAt?: Micros;
}

/** What `sallyport user` asks for, with the password hashed. */
export type AccountChange =
  | { verb: 'add'; name: string; groups: readonly string[]; hash: string }
  | { verb: 'passwd'; name: string; hash: string }
  | { verb: 'lock' | 'unlock' | 'delete'; name: string };

/** `exists`: he cannot be added. `unknown`: he cannot be changed. */
export type AccountOutcome = 'done' | 'exists' | 'unknown';

/** PURE. The rules of a change; `lua/account-records.lua` repeats them. */
export function changedRecord(
  before: AccountRecord | undefined,
  change: AccountChange,
  inFile: boolean,
  now: Micros,
): AccountRecord | Exclude<AccountOutcome, 'done'> {
  const { name, verb } = change;
  const present = before?.deleted === true ? false : before?.groups !== undefined || inFile;
  if (present !== (verb !== 'add')) return present ? 'exists' : 'unknown';
  const at = before !== undefined && before.at >= now ? before.at + 1n : now;
  switch (verb) {
    case 'add':
      return { name, at, deleted: false, groups: change.groups, hash: change.hash, hashAt: at };
    case 'delete':
      return { name, at, deleted: true };
    case 'passwd':
      return { ...before, name, at, deleted: false, hash: change.hash, hashAt: at };
    case 'lock':
    case 'unlock':
      return { ...before, name, at, deleted: false, locked: verb === 'lock' };
  }
}
