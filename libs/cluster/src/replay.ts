/*
 * The session table from Kafka alone: from the compacted topic of records, or from the facts, through the same transition
 * table that made them. Facts come at least once and in order per session; what is not newer by (epoch, n) is old news.
 */
import type { CloudFact } from './cloud-events.ts';
import { decodeCloudEvent } from './cloud-events.ts';
import { STATE_GAP_KEY } from './event-sink.ts';
import { MalformedLine } from './journal-lines.ts';
import type { Kafka, TopicRecord } from './kafka.ts';
import type { Micros, Session, SessionEvent } from './session.ts';
import { apply, epochOf, ImpossibleTransition } from './session.ts';

/** Rebuilds sessions from facts. Pure. */
export class SessionReplay {
  readonly #live = new Map<string, Session>();
  readonly #closed = new Map<string, Position>();
  /** Per partition, the sessions without a fact since its gap; absent = no gap is open. */
  readonly #doubtful = new Map<number, Set<string>>();
  /** Per partition, when the whole table was last written. */
  readonly #resyncedAt = new Map<number, Micros>();
  /** Home of each live session. */
  readonly #partitions = new Map<string, number>();
  #unfit = 0;

  handleFact(fact: CloudFact, partition: number): void {
    switch (fact.kind) {
      case 'session':
        return this.#handleEvent(fact.event, partition);
      case 'snapshot':
        return this.#handleSnapshot(fact.record, partition);
      case 'gap':
        this.#doubtful.set(partition, new Set(this.#idsOf(partition)));
        return;
      case 'resynced':
        for (const id of this.#doubtful.get(partition) ?? []) this.#forget(id);
        this.#doubtful.delete(partition);
        this.#resyncedAt.set(partition, fact.resynced.at + CLOCK_TOLERANCE);
        return;
      case 'occurrence':
        return;
    }
  }

  /** Sessions that are not closed. */
  get sessions(): Session[] {
    return [...this.#live.values()];
  }

  /** Facts that could not follow on what is known of their session: some before them are missing. */
  get unfit(): number {
    return this.#unfit;
  }

  /** A gap is open: the outbox has yet to write the snapshot. */
  get incomplete(): boolean {
    return this.#doubtful.size > 0;
  }

  #handleEvent(event: SessionEvent, partition: number): void {
    const known = this.#live.get(event.sessionId);
    const last = known === undefined ? this.#closed.get(event.sessionId) : positionOf(known);
    if (last !== undefined && !isAfter(event, last)) return;
    this.#doubtful.get(partition)?.delete(event.sessionId);
    const base = baseOf(known, event);
    try {
      this.#keep(apply(base, event), partition);
    } catch (error) {
      if (!(error instanceof ImpossibleTransition)) throw error;
      // Facts that waited while the table was written: who is not in it had ended.
      const isOld = known === undefined && event.at <= (this.#resyncedAt.get(partition) ?? 0n);
      if (!isOld) this.#unfit++;
    }
  }

  #handleSnapshot(record: Session, partition: number): void {
    this.#doubtful.get(partition)?.delete(record.id);
    const known = this.#live.get(record.id);
    const last = known === undefined ? this.#closed.get(record.id) : positionOf(known);
    if (last === undefined || isAfter(positionOf(record), last)) this.#keep(record, partition);
  }

  #keep(session: Session, partition: number): void {
    if (session.state === 'closed') {
      this.#forget(session.id);
      this.#closed.set(session.id, positionOf(session));
      return;
    }
    this.#closed.delete(session.id);
    this.#live.set(session.id, session);
    this.#partitions.set(session.id, partition);
  }

  #forget(id: string): void {
    this.#live.delete(id);
    this.#partitions.delete(id);
  }

  #idsOf(partition: number): string[] {
    return [...this.#partitions].filter(([, home]) => home === partition).map(([id]) => id);
  }
}

export interface ReplayedTable {
  sessions: Session[];
  /** Records read. */
  read: number;
  /** Facts whose predecessors are missing: Kafka kept too little, or something was lost without a gap. */
  unfit: number;
  /** Records that are not ours, or damaged. */
  malformed: number;
  /** The outbox was just writing the table anew: ask again. */
  incomplete: boolean;
}

/**
 * The live sessions, from one topic alone.
 * @param from `state`: the compacted topic. `facts`: all facts that Kafka still has.
 * @throws SinkUnavailable, SinkRefused, NewerVersion
 */
export async function replaySessions(kafka: Kafka, from: 'state' | 'facts'): Promise<ReplayedTable> {
  const replay = new SessionReplay();
  const newest = new Map<string, Session>();
  let read = 0;
  let malformed = 0;
  let gap = false;
  await kafka.read(from, (record) => {
    read++;
    try {
      if (from === 'state' && record.key === STATE_GAP_KEY) gap = record.value !== null;
      else if (from === 'state') handleState(newest, record);
      else {
        const fact = factOf(record);
        if (fact !== undefined) replay.handleFact(fact, record.partition);
      }
    } catch (error) {
      if (!(error instanceof MalformedLine)) throw error;
      malformed++;
    }
  });
  const sessions = from === 'state' ? [...newest.values()] : replay.sessions;
  return { sessions, read, malformed, unfit: replay.unfit, incomplete: gap || replay.incomplete };
}

/** An event in the JSON format of CloudEvents, for people and programs. */
export interface TailedEvent {
  specversion: string;
  id: string;
  source: string;
  type: string;
  time: string;
  subject?: string;
  partitionkey?: string;
  datacontenttype: string;
  data: unknown;
  /** Where it stands in Kafka. */
  partition: number;
  offset: string;
}

/**
 * Delivers events as they come, until the returned function is called.
 * @param onFault told once per outage; it goes on by itself afterwards
 */
export async function tailEvents(
  kafka: Kafka,
  from: 'beginning' | 'end',
  deliver: (event: TailedEvent) => void | Promise<void>,
  onFault: (fault: Error) => void,
): Promise<() => Promise<void>> {
  return kafka.follow('facts', from, (record) => deliver(tailed(record)), onFault);
}

function handleState(newest: Map<string, Session>, record: TopicRecord): void {
  if (record.key === null) return;
  if (record.value === null) {
    newest.delete(record.key);
    return;
  }
  const fact = factOf(record);
  if (fact?.kind === 'snapshot' && fact.record.id === record.key) newest.set(record.key, fact.record);
  else throw new MalformedLine('not the record of its key');
}

function factOf({ headers, value }: TopicRecord): CloudFact | undefined {
  if (value === null) throw new MalformedLine('no value');
  return decodeCloudEvent(headers.ce_type ?? '', value);
}

function tailed({ headers, value, partition, offset }: TopicRecord): TailedEvent {
  return {
    specversion: headers.ce_specversion ?? '',
    id: headers.ce_id ?? '',
    source: headers.ce_source ?? '',
    type: headers.ce_type ?? '',
    time: headers.ce_time ?? '',
    ...(headers.ce_subject !== undefined && { subject: headers.ce_subject }),
    ...(headers.ce_partitionkey !== undefined && { partitionkey: headers.ce_partitionkey }),
    datacontenttype: headers['content-type'] ?? '',
    data: parsed(value ?? ''),
    partition,
    offset: offset.toString(),
  };
}

/** A tail shows what is there, also what is damaged. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function baseOf(known: Session | undefined, event: SessionEvent): Session | undefined {
  // A store that had forgotten a login got it back: it starts again, under a higher number.
  if (known === undefined || event.type === 'started') return undefined;
  // A store that lost its last writes counts again from below, in a higher epoch.
  return event.n <= known.n ? { ...known, n: event.n - 1 } : known;
}

interface Position {
  epoch: Micros;
  n: number;
}

function positionOf(session: Session): Position {
  return { epoch: epochOf(session), n: session.n };
}

function isAfter(a: Position, b: Position): boolean {
  return a.epoch === b.epoch ? a.n > b.n : a.epoch > b.epoch;
}

/** µs between the clocks of the store and of who wrote the table (CLUSTER.md C13). */
const CLOCK_TOLERANCE = 5_000_000n;
