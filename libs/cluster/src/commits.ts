/*
 * One change, in order:
 *   1. it waits until the batch before it is on disk or refused; a batch takes all that wait
 *   2. decide: a pure function gives events, or nothing
 *   3. apply: the events change the table; the former records are kept aside
 *   4. write: the lines of the whole batch go to the journal, with one sync
 *   5. publish: events to the log, notices to the nodes, then results to the callers: who goes on with an address has
 *      heard before that its former tunnel is gone
 * If 4 fails the former records come back in reverse order, and every caller of the batch is told StoreUnavailable.
 * Without a journal 2, 3 and 5 happen at once.
 */
import type { Clock } from './clock.ts';
import type { EventLog } from './events.ts';
import type { Journal } from './journal.ts';
import { encodeAlive, encodeEvent, encodeHint, encodeRecord } from './journal-lines.ts';
import type { Mailboxes } from './notices.ts';
import type { SessionTable } from './session-table.ts';
import type { Micros, NodeIdentity, Session, SessionEvent } from './session.ts';
import { apply } from './session.ts';
import type { Notice } from './sessions.ts';
import { StoreUnavailable } from './sessions.ts';

/** What a change does to the table, seen by what decides it. */
export interface Step {
  readonly now: Micros;
  /** Applies it. A tunnel that loses its session by it is told, unless its own node asked. @returns the new record. */
  emit(event: SessionEvent, askedByOwner?: boolean): Session;
  /** Drops a tombstone. */
  forget(session: Session): void;
  /** Takes back what a change did outside the table, if it cannot be written. */
  onUndo(undo: () => void): void;
}

export interface CommitsOptions {
  table: SessionTable;
  clock: Clock;
  mailboxes: Mailboxes;
  journal: Journal | undefined;
  events: EventLog | undefined;
}

/** Makes changes of the table durable, in order. */
export class Commits {
  readonly #options: CommitsOptions;
  readonly #waiting: Change[] = [];
  #draining: Promise<void> | undefined;
  #closed = false;
  /** When the journal last got a line. */
  #markedAt: Micros = 0n;
  #markDue = false;

  constructor(options: CommitsOptions) {
    this.#options = options;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * @param durable resolve only when the events are synced to disk, not just written.
   * @throws StoreUnavailable (rejection), and what `decide` throws; nothing is changed then.
   */
  change<T>(durable: boolean, decide: (step: Step) => T): Promise<T> {
    if (this.#closed) return Promise.reject(new StoreUnavailable('the session store is closed'));
    if (this.#waiting.length >= WAITING_LIMIT) {
      return Promise.reject(new StoreUnavailable('too many changes wait for the disk'));
    }
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push(new PendingChange(durable, decide, resolve, reject));
      if (this.#options.journal === undefined) this.#commitAtOnce();
      else this.#draining ??= this.#drain(this.#options.journal);
    });
  }

  /** Writes a sign of life when nothing else was written for a while; asked for by the sweep. */
  mark(step: Step): void {
    if (step.now - this.#markedAt >= ALIVE_EVERY_MICROS) this.#markDue = true;
    void this.#options.journal?.touch();
  }

  /** Replaces the journal by what the table holds now. Only between batches. */
  async rewrite(journal: Journal): Promise<void> {
    await journal.rewrite(this.#snapshot());
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#draining;
    const { journal, clock } = this.#options;
    if (journal === undefined) return;
    try {
      await journal.append([encodeAlive(clock())], true);
    } catch {
      // The mark is a courtesy: without it the time since the last one counts as away.
    }
    await journal.close();
  }

  #commitAtOnce(): void {
    for (const change of this.#waiting.splice(0)) {
      const batch = new Batch(this.#options.table, this.#options.clock());
      change.run(batch);
      this.#publish(batch);
      change.settle();
    }
  }

  async #drain(journal: Journal): Promise<void> {
    await Promise.resolve(); // what is asked for in the same turn goes into one batch
    try {
      while (this.#waiting.length > 0) {
        await this.#commit(this.#waiting.splice(0, BATCH_LIMIT), journal);
        // In the background; the journal reports a failure itself and tries again when it has grown further.
        if (journal.grown) void this.rewrite(journal).catch(() => undefined);
      }
    } finally {
      this.#draining = undefined;
    }
  }

  async #commit(changes: Change[], journal: Journal): Promise<void> {
    const batch = new Batch(this.#options.table, this.#options.clock());
    try {
      if (journal.suspect) await this.rewrite(journal);
      for (const change of changes) change.run(batch);
      const lines = batch.events.map(encodeEvent);
      if (lines.length === 0 && this.#markDue) lines.push(encodeAlive(batch.now));
      this.#markDue = false;
      if (lines.length > 0) {
        await journal.append(
          lines,
          changes.some((change) => change.durable && change.changed),
        );
        this.#markedAt = batch.now;
      }
    } catch (cause) {
      batch.undo();
      const error = new StoreUnavailable('the journal cannot be written', { cause });
      for (const change of changes) change.reject(error);
      return;
    }
    this.#publish(batch);
    for (const change of changes) change.settle();
  }

  #publish(batch: Batch): void {
    if (batch.events.length > 0) this.#options.events?.append(batch.events);
    for (const { node, notice } of batch.notices) this.#options.mailboxes.post(node, notice);
  }

  /** The lines that rebuild the table, from records that nobody changes: it can be read while the table goes on. */
  *#lines(hints: ReturnType<SessionTable['addresses']['hints']>, records: Session[], now: Micros) {
    for (const hint of hints) yield encodeHint(hint);
    for (const record of records) yield encodeRecord(record);
    yield encodeAlive(now);
  }

  #snapshot(): Iterable<string> {
    const { table, clock } = this.#options;
    return this.#lines(table.addresses.hints(), Array.from(table.all()), clock());
  }
}

/** Changes that wait for the disk; above it further ones are refused. */
export const WAITING_LIMIT = 65_536;
/** Changes of one batch. */
export const BATCH_LIMIT = 1024;
/** How old the last line of a live journal may be: by so much a time away can be taken too long. */
export const ALIVE_EVERY_MICROS = 10_000_000n;

interface Change {
  readonly durable: boolean;
  readonly changed: boolean;
  run(batch: Batch): void;
  settle(): void;
  reject(error: Error): void;
}

class PendingChange<T> implements Change {
  readonly durable: boolean;
  changed = false;
  readonly #decide: (step: Step) => T;
  readonly #resolve: (value: T) => void;
  readonly #reject: (error: unknown) => void;
  #outcome: () => void = () => undefined;

  constructor(
    durable: boolean,
    decide: (step: Step) => T,
    resolve: (value: T) => void,
    reject: (error: unknown) => void,
  ) {
    this.durable = durable;
    this.#decide = decide;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  run(batch: Batch): void {
    const mark = batch.mark();
    try {
      const value = this.#decide(batch);
      this.changed = batch.mark().events > mark.events;
      this.#outcome = () => this.#resolve(value);
    } catch (error) {
      batch.undo(mark); // one bad change does not stop a batch
      this.#outcome = () => this.#reject(error);
    }
  }

  settle(): void {
    this.#outcome();
  }

  reject(error: Error): void {
    this.#reject(error);
  }
}

interface Mark {
  events: number;
  notices: number;
  undos: number;
}

class Batch implements Step {
  readonly now: Micros;
  readonly events: SessionEvent[] = [];
  readonly notices: { node: NodeIdentity; notice: Notice }[] = [];
  readonly #undos: (() => void)[] = [];
  readonly #table: SessionTable;

  constructor(table: SessionTable, now: Micros) {
    this.#table = table;
    this.now = now;
  }

  emit(event: SessionEvent, askedByOwner = false): Session {
    const before = this.#table.get(event.sessionId);
    const after = apply(before, event);
    this.#put(event.sessionId, before, after);
    this.events.push(event);
    if (before?.state === 'up' && before.lease !== undefined && !askedByOwner)
      this.#tell(before.lease, event);
    return after;
  }

  forget(session: Session): void {
    this.#put(session.id, session, undefined);
  }

  onUndo(undo: () => void): void {
    this.#undos.push(undo);
  }

  mark(): Mark {
    return { events: this.events.length, notices: this.notices.length, undos: this.#undos.length };
  }

  undo(to: Mark = { events: 0, notices: 0, undos: 0 }): void {
    while (this.#undos.length > to.undos) this.#undos.pop()?.();
    this.events.length = to.events;
    this.notices.length = to.notices;
  }

  #put(id: string, before: Session | undefined, after: Session | undefined): void {
    this.#undos.push(() => this.#table.put(id, before, this.now));
    this.#table.put(id, after, this.now);
  }

  #tell(owner: NodeIdentity & { epoch: Micros }, event: SessionEvent): void {
    if (event.type !== 'claimed' && event.type !== 'ended') return;
    const reason = event.type === 'claimed' ? 'superseded' : event.reason;
    const node = { name: owner.name, incarnation: owner.incarnation };
    this.notices.push({ node, notice: { sessionId: event.sessionId, upToEpoch: owner.epoch, reason } });
  }
}
