import type { Micros } from './session.ts';

/** Where a message goes: the facts in order, the newest record of each session (compacted), what could not be sent. */
export type SinkTopic = 'facts' | 'state' | 'dead';

export interface SinkMessage {
  topic: SinkTopic;
  /** null = any partition. */
  key: string | null;
  /** null = tombstone. */
  value: string | null;
  headers: Record<string, string>;
  /** Absent = by the key. */
  partition?: number;
}

/** The last stream entry of a transaction, in its reign. */
export interface SinkMark {
  reign: string;
  entryId: string;
}

/** Where the newest record of a session stands, and its number. */
export interface StateMark {
  partition: number;
  offset: bigint;
  epoch: Micros;
  n: number;
}

export interface StateIndex {
  /** By session id; without those that have ended. */
  marks: Map<string, StateMark>;
  /** Facts were given up and the table was not written anew since: it may hold sessions that have ended. */
  gap: boolean;
}

/**
 * Where the outbox writes. One writer at a time: `open` fences every earlier one, however long it slept.
 * Any method may reject with `SinkUnavailable`, `SinkRefused` or `WriterFenced`; the writer is closed then, and `open`
 * begins anew. Forms: `kafka.ts`; `event-sink.fake.ts` in tests.
 */
export interface FactSink {
  open(): Promise<void>;
  /** Partitions of the topic of facts; known after `open`. */
  readonly partitions: number;
  /** Bytes of keys, values and headers that one transaction may have per topic; known after `open`. */
  readonly batchBytes: number;

  /**
   * All messages and the mark, or nothing; in order per key. When it rejects, nobody knows whether they were written:
   * `mark` tells, after the next `open`.
   * @throws MessageRefused when one of them can never be written
   */
  write(messages: readonly SinkMessage[], mark?: SinkMark): Promise<void>;
  /** Id of the newest stream entry that was written in this reign; '' = none. Only right after `open`. */
  mark(reign: string): Promise<string>;
  /** What the topic of records holds, after all that this writer has written. */
  stateIndex(): Promise<StateIndex>;
  /** Delivers the records at these marks, one after the other. */
  stateRecords(
    marks: ReadonlyMap<string, StateMark>,
    deliver: (sessionId: string, value: string) => Promise<void>,
  ): Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}

/** Not there, or not ready: try again later. */
export class SinkUnavailable extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'SinkUnavailable';
  }
}

/** Will not have us as we are: password, certificate, rights, a topic with the wrong settings. Somebody must mend it. */
export class SinkRefused extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'SinkRefused';
  }
}

/** Another writer was opened after this one. */
export class WriterFenced extends Error {
  constructor(options?: ErrorOptions) {
    super('another outbox has taken over', options);
    this.name = 'WriterFenced';
  }
}

/** A message that can never be written, whatever is tried. */
export class MessageRefused extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'MessageRefused';
  }
}

/** Key of the topic of records that has a value while `StateIndex.gap`. */
export const STATE_GAP_KEY = 'gap';

/** @param id `ce_id` of a record: SESSION/EPOCH/N/state. @returns undefined = it is none. */
export function markOf(id: string, partition: number, offset: bigint): StateMark | undefined {
  const [, epoch, n] = STATE_ID.exec(id) ?? [];
  if (epoch === undefined || n === undefined) return undefined;
  return { partition, offset, epoch: BigInt(epoch), n: Number(n) };
}

const STATE_ID = /\/(\d{1,20})\/(\d{1,15})\/state$/;
