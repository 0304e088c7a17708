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
  /** Keys that have a value in the topic of records. */
  stateKeys(): Promise<Set<string>>;
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
