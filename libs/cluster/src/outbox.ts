/*
 * From the stream of facts to Kafka. One round of the active reader:
 *
 *   1. the lease: without it, stand by
 *   2. the writer: opening it fences every earlier one, so a reader that slept through its lease can do no harm
 *   3. the cap of the stream
 *   4. the first entries of the stream, confirmed by a replica; of them not those that the mark says were written
 *   5. a new reign: what Redis forgot comes back first (restore.ts). A new reign, a gap or a request: the whole table
 *      (resync.ts)
 *   6. one transaction: the facts, the present record of each session they touch (tombstone at its end), dead letters
 *   7. trim what Kafka acknowledged
 *
 * A round that fails changes nothing that the next one, here or elsewhere, would not repeat or recognize.
 */
import type { Log } from '@sallyport/chassis';
import { CloudEvents, decodeEntry } from './cloud-events.ts';
import type { Clock } from './clock.ts';
import type { EventStream, StreamBatch, StreamEntry } from './event-stream.ts';
import { compareEntryIds } from './event-stream.ts';
import type { FactSink, SinkMark, SinkMessage } from './event-sink.ts';
import { MessageRefused, SinkRefused, SinkUnavailable, WriterFenced } from './event-sink.ts';
import { MalformedLine } from './journal-lines.ts';
import { deadLetter, Letters, tombstone, toMessage } from './letters.ts';
import { AWAY_MICROS } from './redis.ts';
import { Restore, type RestoreTable } from './restore.ts';
import { resync } from './resync.ts';
import type { Session } from './session.ts';
import { NewerVersion } from './session.ts';
import type { Sessions } from './sessions.ts';
import { StoreUnavailable } from './sessions.ts';
import { SESSION_ID_BYTES } from './tokens.ts';
import type { StreamLevel } from './stream-cap.ts';
import { StreamCap } from './stream-cap.ts';

export interface OutboxOptions {
  stream: EventStream;
  /** The present records, for the topic of session state. */
  table: Pick<Sessions, 'list'> & {
    /** Of a session that has a fact in the stream; undefined = it is forgotten. */
    ofFact(id: string): Promise<Session | undefined>;
  };
  /** Absent = the store forgets nothing. */
  restore?: RestoreTable;
  sink: FactSink;
  /** Name of the cluster: part of each event's `source`. */
  cluster: string;
  /** Of this process; random. */
  holder: string;
  clock: Clock;
  log: Log;
  /** Bytes that the stream may have. */
  capBytes?: number;
  /** How long the reader's lease lives without it, ms. */
  leaseMs?: number;
}

/**
 * What a round did. `standby`: another reader has the lease. `waiting`: a newer release must read the next entry, and
 * this one gives the lease up. `blocked`: store or Kafka failed.
 */
export type RoundResult = 'standby' | 'idle' | 'sent' | 'waiting' | 'blocked';

export interface OutboxStatus {
  active: boolean;
  /** Why nothing is sent; '' = all is well. */
  trouble: string;
  /** Of the stream, as last seen by the active reader. */
  entries: number;
  bytes: number;
  /** Age of the oldest entry that waits, ms. */
  lagMillis: number;
  level: StreamLevel;
  /** Since the start of this process. */
  sent: number;
  deadLetters: number;
  resyncs: number;
}

export class Outbox {
  readonly #options: OutboxOptions;
  readonly #leaseMs: number;
  readonly #cap: StreamCap;
  readonly #events: CloudEvents;
  #status: OutboxStatus = {
    active: false,
    trouble: '',
    entries: 0,
    bytes: 0,
    lagMillis: 0,
    level: 'normal',
    sent: 0,
    deadLetters: 0,
    resyncs: 0,
  };
  #open = false;
  /** What is known to be written, and in which reign. */
  #mark = { reign: '', entryId: '' };
  #resyncWanted = false;
  /** Entries of one transaction; 1 while a message that Kafka refuses is looked for. */
  #batchEntries = BATCH_ENTRIES;
  /** Since when the first entry is one of a newer release. */
  #newer: { entryId: string; since: bigint } | undefined;
  #capCheckedAt = 0n;
  #restore: Restore | undefined;
  /** Since when the store does not answer, how long it was away in all before the table was settled, and when it came back. */
  #lostAt: bigint | undefined;
  #away = 0n;
  #backAt = 0n;
  #running: Promise<void> | undefined;
  #stop = new AbortController();

  constructor(options: OutboxOptions) {
    this.#options = options;
    this.#leaseMs = options.leaseMs ?? LEASE_MS;
    this.#cap = new StreamCap(options.stream, options.capBytes);
    this.#events = new CloudEvents(options.cluster);
  }

  get status(): OutboxStatus {
    return { ...this.#status };
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Writes the whole table to both topics: after a new reign has settled, or when somebody doubts a topic. */
  requestResync(): void {
    this.#resyncWanted = true;
  }

  /** Lets another reader take over at once. Idempotent. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.race([this.#running, pause(CLOSE_MS, new AbortController().signal)]);
    await this.#stepDown();
  }

  /** One round. Never rejects. */
  async round(): Promise<RoundResult> {
    try {
      const result = await this.#round();
      if (result !== 'waiting') this.#tell('');
      return result;
    } catch (error) {
      await this.#handleFailure(error);
      return 'blocked';
    }
  }

  async #round(): Promise<RoundResult> {
    const { stream, sink, holder } = this.#options;
    if (!(await stream.takeLease(holder, this.#leaseMs))) {
      this.#noteAnswer();
      // The one who has the lease has settled the table long since.
      if (this.#options.clock() - this.#backAt > AWAY_REMEMBERED) this.#away = 0n;
      await this.#closeWriter();
      // The one who sends says how much waits.
      Object.assign(this.#status, { entries: 0, bytes: 0, lagMillis: 0, level: 'normal' });
      return 'standby';
    }
    this.#noteAnswer();
    this.#status.active = true;
    await this.#keepCap();
    if (!this.#open) {
      await sink.open();
      this.#open = true;
      this.#mark = { reign: '', entryId: '' };
    }
    const batch = await stream.read(this.#batchEntries);
    if (batch.reign !== this.#mark.reign)
      this.#mark = { reign: batch.reign, entryId: await sink.mark(batch.reign) };
    const settled = await this.#settle(batch);
    const isNew = !batch.settled && this.#options.restore !== undefined;
    if (settled && (batch.gap !== undefined || this.#resyncWanted || isNew)) return this.#resync(batch);
    // Facts after a gap must not come before it.
    return !settled && batch.gap !== undefined ? 'idle' : this.#send(batch, settled);
  }

  /** @returns true = the table is whole, as far as it can be. */
  async #settle(batch: StreamBatch): Promise<boolean> {
    const { restore: table, sink, holder, log } = this.#options;
    if (batch.settled || table === undefined) {
      this.#away = 0n;
      return true;
    }
    if (this.#restore?.reign !== batch.reign) {
      const fence = { holder, reign: batch.reign };
      const away = this.#away > AWAY_MICROS ? this.#away : 0n;
      this.#restore = new Restore({ table, sink, fence, away, log });
    }
    const restore = this.#restore;
    return this.#keepingLease(() => restore.step(batch, this.#mark.entryId));
  }

  /** For what may take longer than the lease lasts. */
  async #keepingLease<T>(work: () => Promise<T>): Promise<T> {
    const { stream, holder } = this.#options;
    const renew = () => void stream.takeLease(holder, this.#leaseMs).catch(() => undefined);
    const timer = setInterval(renew, this.#leaseMs / LEASE_RENEWALS);
    try {
      return await work();
    } finally {
      clearInterval(timer);
    }
  }

  #noteAnswer(): void {
    if (this.#lostAt === undefined) return;
    this.#backAt = this.#options.clock();
    this.#away += this.#backAt - this.#lostAt; // a store that comes back may go again at once
    this.#lostAt = undefined;
  }

  async #keepCap(): Promise<void> {
    const now = this.#options.clock();
    if (now - this.#capCheckedAt < CAP_CHECK_EVERY) return;
    this.#capCheckedAt = now;
    const { entries, bytes, lagMillis, level } = await this.#cap.check();
    Object.assign(this.#status, { entries, bytes, lagMillis, level });
  }

  async #resync(batch: StreamBatch): Promise<RoundResult> {
    const { stream, sink, table, restore, holder, clock, log } = this.#options;
    this.#resyncWanted = false;
    try {
      const sessions = await this.#keepingLease(async () =>
        resync({
          sink,
          events: this.#events,
          gap: batch.gap,
          sessions: await table.list(),
          now: clock(),
          between: () => stream.takeLease(holder, this.#leaseMs),
        }),
      );
      log.info({ sessions, lost: batch.gap?.count ?? 0 }, 'wrote the whole session table to Kafka');
    } catch (error) {
      this.#resyncWanted = true;
      throw error;
    }
    this.#status.resyncs++;
    if (batch.gap !== undefined) await stream.clearGap(holder, batch.gap);
    if (!batch.settled) await restore?.finish({ holder, reign: batch.reign });
    return 'sent';
  }

  /** @param settled the table is whole: what it lacks has ended. */
  async #send(batch: StreamBatch, settled: boolean): Promise<RoundResult> {
    const fresh = batch.entries.filter((entry) => compareEntryIds(entry.id, this.#mark.entryId) > 0);
    const written = batch.entries.length > fresh.length;
    if (fresh.length === 0) {
      if (!written) return 'idle';
      await this.#trim(batch.reign);
      return 'sent';
    }
    const letters = await this.#letters(fresh, settled);
    const last = letters.taken.at(-1);
    if (last === undefined) return this.#waitForNewer(fresh[0]);
    const mark = { reign: batch.reign, entryId: last.id };
    const dead = await this.#write(letters, mark);
    this.#mark = mark;
    this.#status.sent += letters.taken.length - dead;
    this.#status.deadLetters += dead;
    this.#newer = undefined;
    await this.#trim(batch.reign);
    if (this.#batchEntries < BATCH_ENTRIES)
      this.#batchEntries = Math.min(BATCH_ENTRIES, this.#batchEntries * 2);
    return 'sent';
  }

  /** The messages of as many entries as fit into one transaction. */
  async #letters(entries: readonly StreamEntry[], settled: boolean): Promise<Letters> {
    const records = await this.#records(entries);
    const letters = new Letters(this.#options.sink.batchBytes);
    for (const entry of entries) {
      let messages: SinkMessage[];
      let dead = false;
      try {
        const fact = decodeEntry(entry);
        messages = [
          toMessage('facts', this.#events.ofFact(fact, entry.id)),
          ...('epoch' in fact ? this.#state(fact.sessionId, records) : []),
        ];
      } catch (error) {
        if (error instanceof NewerVersion && !this.#isOverdue(entry)) break;
        if (!(error instanceof MalformedLine) && !(error instanceof NewerVersion)) throw error;
        messages = [deadLetter(entry, error.message), ...this.#stateOfDead(entry, records, settled)];
        dead = true;
        this.#warnOfDeadLetter(entry, error.message);
      }
      if (!letters.take(entry, messages, dead)) break;
    }
    return letters;
  }

  async #records(entries: readonly StreamEntry[]): Promise<Map<string, Session | undefined>> {
    const ids = [...new Set(entries.map((entry) => entry.sessionId))].filter((id) => id !== '');
    const records = await Promise.all(ids.map((id) => this.#options.table.ofFact(id)));
    return new Map(ids.map((id, i) => [id, records[i]]));
  }

  #state(sessionId: string, records: ReadonlyMap<string, Session | undefined>): SinkMessage[] {
    const record = records.get(sessionId);
    if (record === undefined || record.state === 'closed') return [tombstone(sessionId)];
    return [toMessage('state', this.#events.state(record))];
  }

  /**
   * The fact is lost, but not what came of it: a restore must not bring back what it has ended. While the table may lack
   * a session that is alive nothing is said of it; the snapshot that follows tells.
   */
  #stateOfDead(
    { sessionId }: StreamEntry,
    records: ReadonlyMap<string, Session | undefined>,
    settled: boolean,
  ): SinkMessage[] {
    if (sessionId === '' || sessionId.length > SESSION_ID_CHARACTERS) return [];
    return settled || records.get(sessionId) !== undefined ? this.#state(sessionId, records) : [];
  }

  /**
   * When Kafka refuses one of these for good, they go one by one until it is found, and then it becomes a dead letter.
   * @returns the number of dead letters.
   */
  async #write({ messages, taken, dead: already }: Letters, mark: SinkMark): Promise<number> {
    const { sink } = this.#options;
    try {
      await sink.write(messages, mark);
      return already;
    } catch (error) {
      if (!(error instanceof MessageRefused)) throw error;
      this.#batchEntries = 1;
      const [entry] = taken;
      if (taken.length > 1 || entry === undefined) throw error;
      this.#warnOfDeadLetter(entry, error.message);
      const dead = deadLetter(entry, 'refused by Kafka');
      const state = messages.filter(({ topic }) => topic === 'state');
      await sink.open();
      try {
        await sink.write([dead, ...state], mark);
      } catch (again) {
        // It is the record itself that Kafka does not take.
        if (!(again instanceof MessageRefused) || state.length === 0) throw again;
        await sink.open();
        await sink.write([dead], mark);
      }
      return 1;
    }
  }

  #warnOfDeadLetter(entry: StreamEntry, detail: string): void {
    this.#options.log.warn({ entry: entry.id, detail }, 'a fact could not be sent and became a dead letter');
  }

  async #waitForNewer(entry: StreamEntry | undefined): Promise<RoundResult> {
    if (entry !== undefined && this.#newer?.entryId !== entry.id)
      this.#newer = { entryId: entry.id, since: this.#options.clock() };
    this.#tell('the next fact was written by a newer release, which must also send it');
    await this.#stepDown();
    return 'waiting';
  }

  /** Nobody newer came: one strange entry must not hold up all others for ever. */
  #isOverdue(entry: StreamEntry): boolean {
    return this.#newer?.entryId === entry.id && this.#options.clock() - this.#newer.since > NEWER_WAIT;
  }

  async #trim(reign: string): Promise<void> {
    const { stream, holder } = this.#options;
    await stream.trim(holder, reign, this.#mark.entryId);
  }

  async #handleFailure(error: unknown): Promise<void> {
    if (error instanceof StoreUnavailable) this.#lostAt ??= this.#options.clock();
    await this.#closeWriter();
    if (error instanceof MessageRefused) return; // being looked for
    const known =
      error instanceof SinkUnavailable ||
      error instanceof SinkRefused ||
      error instanceof WriterFenced ||
      error instanceof StoreUnavailable ||
      error instanceof NewerVersion;
    this.#tell(known ? error.message : 'a fault of the outbox', known ? undefined : error);
    // Another one writes: it must not be fenced in turn by us.
    if (error instanceof WriterFenced) await this.#stepDown();
  }

  async #stepDown(): Promise<void> {
    await this.#closeWriter();
    const { stream, holder } = this.#options;
    await stream.dropLease(holder).catch(() => undefined);
  }

  async #closeWriter(): Promise<void> {
    this.#status.active = false;
    if (!this.#open) return;
    this.#open = false;
    this.#restore = undefined;
    await this.#options.sink.close();
  }

  /** Once per trouble, and once when it is over. */
  #tell(trouble: string, fault?: unknown): void {
    if (trouble === this.#status.trouble) return;
    const { log } = this.#options;
    if (fault !== undefined) log.error({ err: fault }, 'the outbox failed');
    else if (trouble !== '') log.warn({ detail: trouble }, 'events wait: they cannot be sent to Kafka');
    else log.info({ entries: this.#status.entries }, 'events go to Kafka again');
    this.#status.trouble = trouble;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const result = await this.round();
      await pause(WAIT_MS[result], signal);
    }
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (ms === 0 || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
}

/** Entries of one transaction. */
export const BATCH_ENTRIES = 500;
/** Longer than any round: calls to Kafka have deadlines. Kafka's fence protects where it is not. */
export const LEASE_MS = 30_000;
/** Microseconds that an old release waits for a newer one before it files a newer fact as a dead letter. */
export const NEWER_WAIT = 600_000_000n;
/** Microseconds that a reader without the lease remembers how long the store was away: longer than a restore takes. */
const AWAY_REMEMBERED = 600_000_000n;
/** Microseconds. */
const CAP_CHECK_EVERY = 1_000_000n;
const SESSION_ID_CHARACTERS = 2 * SESSION_ID_BYTES;
const LEASE_RENEWALS = 3;
const CLOSE_MS = 5000;
const WAIT_MS: Record<RoundResult, number> = {
  standby: 2000,
  idle: 200,
  sent: 0,
  waiting: LEASE_MS / 2,
  blocked: 1000,
};
