/*
 * One change, in order:
 *   1. it waits until the batch before it is on disk or refused; a batch takes all that wait
 *   2. decide: a pure function gives events, or nothing
 *   3. apply: the events change the table; the former records are kept aside
 *   4. write: the lines of the whole batch go to the journal, with one sync
 *   5. publish: events to the log, notices to the nodes, then results to the callers: who goes on with an address has
 *      heard before that its former tunnel is gone
 * If 4 fails the former records come back in reverse order, and the callers of the batch are told StoreUnavailable. But
 * a change that says so (`owe`) is decided once more and takes hold: an end must cut its tunnel on a full disk too. The
 * records that it changed are owed to the journal: the next batch that can be written begins with them.
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
  /**
   * This change takes hold even if it cannot be written now. Not for one that takes an address or makes a session.
   * @param acknowledged false: its caller is told StoreUnavailable all the same, because a restart may take it back.
   */
  owe(acknowledged: boolean): void;
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
  /** Ids of records that the journal has not as they are. */
  readonly #owed = new Set<string>();

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

  /** These records are not in the journal as they are: they follow with the next batch. */
  owe(ids: Iterable<string>): void {
    for (const id of ids) this.#owed.add(id);
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
      await journal.append([...this.#owedLines(), encodeAlive(clock())], true);
    } catch {
      // The journal has said so. Without the mark the time since the last one counts as away.
    }
    await journal.close();
  }

  #commitAtOnce(): void {
    for (const change of this.#waiting.splice(0)) {
      const batch = this.#batch();
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
    const batch = this.#batch();
    const owed = this.#owedLines();
    try {
      if (journal.suspect) await this.rewrite(journal);
      for (const change of changes) change.run(batch);
      const lines = [...owed, ...batch.events.map(encodeEvent)];
      if (lines.length === 0 && this.#markDue) lines.push(encodeAlive(batch.now));
      this.#markDue = false;
      if (lines.length > 0) {
        await journal.append(
          lines,
          owed.length > 0 || changes.some((change) => change.durable && change.changed),
        );
        this.#owed.clear();
        this.#markedAt = batch.now;
      }
    } catch (cause) {
      batch.undo();
      this.#takeHold(changes, new StoreUnavailable('the journal cannot be written', { cause }));
      return;
    }
    this.#publish(batch);
    for (const change of changes) change.settle();
  }

  /** Decides what may be owed once more, on the records as they are without the rest of its batch. */
  #takeHold(changes: Change[], error: StoreUnavailable): void {
    const batch = this.#batch();
    for (const change of changes) {
      const mark = batch.mark();
      change.run(batch);
      if (change.owing === undefined) batch.undo(mark);
    }
    this.owe(batch.events.map((event) => event.sessionId));
    this.#publish(batch);
    for (const change of changes) {
      if (change.owing === 'acknowledged') change.settle();
      else change.reject(error);
    }
  }

  #batch(): Batch {
    return new Batch(this.#options.table, this.#options.clock(), this.#owed);
  }

  /** No event of theirs that comes later depends on an address that another one of them gave up: see `owe` of a step. */
  #owedLines(): string[] {
    return Array.from(this.#owed, (id) => this.#options.table.get(id))
      .filter((record) => record !== undefined)
      .map(encodeRecord);
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

type Owing = 'acknowledged' | 'rejected';

interface Change {
  readonly durable: boolean;
  readonly changed: boolean;
  /** Known after `run`. */
  readonly owing: Owing | undefined;
  run(batch: Batch): void;
  settle(): void;
  reject(error: Error): void;
}

class PendingChange<T> implements Change {
  readonly durable: boolean;
  changed = false;
  owing: Owing | undefined;
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
    batch.owing = undefined;
    try {
      const value = this.#decide(batch);
      this.changed = batch.mark().events > mark.events;
      this.owing = batch.owing;
      this.#outcome = () => this.#resolve(value);
    } catch (error) {
      this.owing = undefined;
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
  /** What the change that runs says of itself. */
  owing: Owing | undefined;
  readonly #owed: ReadonlySet<string>;
  readonly #undos: (() => void)[] = [];
  readonly #table: SessionTable;

  constructor(table: SessionTable, now: Micros, owed: ReadonlySet<string>) {
    this.#owed = owed;
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
    if (this.#owed.has(session.id)) return; // the journal does not know yet that it ended
    this.#put(session.id, session, undefined);
  }

  owe(acknowledged: boolean): void {
    this.owing = acknowledged ? 'acknowledged' : 'rejected';
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
