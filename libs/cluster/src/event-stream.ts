/*
 * The stream of facts between the store's scripts, which append, and the outbox, which reads. In Redis:
 *
 *   {CLUSTER}:events              the stream; fields k (session id, '' for occurrences), t (type), d (JSON of the fact)
 *   {CLUSTER}:events:hold-stats   while it exists, a checkpoint appends nothing and leaves the record's counters alone
 *   {CLUSTER}:events:gap          what was given up at the cap: count, from, to, at
 *   {CLUSTER}:outbox:lease        name of the one active reader, with a time to live
 *
 * There is no cursor: what Kafka acknowledged is trimmed, so the first entry is always the next one to send.
 */
import type { Micros } from './session.ts';

export interface StreamEntry {
  /** `MS-SEQ`, as Redis gave it; grows. */
  id: string;
  /** '' for occurrences. */
  sessionId: string;
  type: string;
  /** JSON of the fact: `encodeEvent`, or an Occurrence with whole numbers as text. */
  data: string;
}

/** Entries that were given up because the stream had reached its cap. */
export interface StreamGap {
  count: number;
  /** Ids of the first and the last of them. */
  from: string;
  to: string;
  at: Micros;
}

export interface StreamBatch {
  /** The history that these entries belong to (CLUSTER.md C1): another one may have other facts under the same ids. */
  reign: string;
  /** In this reign the table was restored from the topics, and written to them: `RestoreTable.finish`. */
  settled: boolean;
  gap: StreamGap | undefined;
  entries: StreamEntry[];
}

export interface StreamSize {
  entries: number;
  /** Bytes of memory, as the store counts them. */
  bytes: number;
  /** Age of the oldest entry, ms; 0 = there is none. */
  lagMillis: number;
  /** `holdStats` holds, whoever asked for it. */
  statsHeld: boolean;
}

/** All methods reject with `StoreUnavailable` when the store does not answer. */
export interface EventStream {
  /** Takes the lease, or renews it. @returns false = another reader holds it. */
  takeLease(holder: string, millis: number): Promise<boolean>;
  /** Gives the lease back, if it is ours. */
  dropLease(holder: string): Promise<void>;

  /**
   * The oldest entries. Only what can no longer be lost: where there is a replica, one has confirmed it (C11); rejects
   * when none confirms in time.
   */
  read(limit: number): Promise<StreamBatch>;
  /**
   * Removes the entries up to and including `upTo`.
   * @returns false = nothing was done, because the lease is not ours or another reign has begun.
   */
  trim(holder: string, reign: string, upTo: string): Promise<boolean>;

  size(): Promise<StreamSize>;
  /** Tells the scripts to append no interim statistics. */
  holdStats(hold: boolean): Promise<void>;
  /** Replaces the oldest entries by a gap, which grows if there is one. @returns the number of entries given up. */
  dropOldest(count: number): Promise<number>;
  /** Forgets the gap, unless it has grown since. @returns done? */
  clearGap(holder: string, gap: StreamGap): Promise<boolean>;
}

/** Compares ids of entries: negative, 0 or positive. '' is before all. */
export function compareEntryIds(a: string, b: string): number {
  const [aMillis, aSequence] = partsOf(a);
  const [bMillis, bSequence] = partsOf(b);
  return aMillis === bMillis ? Number(aSequence - bSequence) : aMillis < bMillis ? -1 : 1;
}

function partsOf(id: string): [bigint, bigint] {
  const [, millis = '0', sequence = '0'] = ENTRY_ID.exec(id) ?? [];
  return [BigInt(millis), BigInt(sequence)];
}

const ENTRY_ID = /^(\d+)-(\d+)$/;
