/*
 * Facts as CloudEvents 1.0 in the binary mode of its Kafka binding: attributes are headers `ce_*`, the value is the JSON
 * of the fact, the key (attribute `partitionkey`) is the session id, so that Kafka keeps the order of each session.
 * docs/events.md is the consumers' page; docs/events/ has the schemas.
 *
 * Whatever comes out of the stream is parsed and written again: a field that we do not know never leaves the cluster.
 */
import type { Reason } from '@sallyport/protocol';
import { REASONS } from '@sallyport/protocol';
import type { StreamEntry, StreamGap } from './event-stream.ts';
import type { Fact, Occurrence } from './events.ts';
import {
  bigintAsText,
  decodeEvent,
  decodeLine,
  encodeEvent,
  encodeRecord,
  Fields,
  MalformedLine,
} from './journal-lines.ts';
import type { Micros, Session, SessionEvent } from './session.ts';
import { epochOf, NewerVersion, SESSION_VERSION } from './session.ts';

/** Facts, and what the outbox says about its own stream. */
export type CloudFact =
  | { kind: 'session'; event: SessionEvent }
  | { kind: 'occurrence'; occurrence: Occurrence }
  | { kind: 'snapshot'; record: Session }
  | { kind: 'gap'; gap: Gap }
  | { kind: 'resynced'; resynced: Resynced };

/** Facts may be missing before this one. A snapshot of every live session follows, then `resynced`. */
export interface Gap {
  v: number;
  at: Micros;
  /** `cap`: the stream was full. `request`: the store came back without its last writes, or somebody asked. */
  reason: 'cap' | 'request';
  /** Facts that were given up, and the stream's ids of the first and last; 0 and '' when nothing is known to be lost. */
  count: number;
  from: string;
  to: string;
}

/** A session that had no fact since the gap does not exist any more. */
export interface Resynced {
  v: number;
  at: Micros;
  /** Sessions in the snapshot, over all partitions. */
  sessions: number;
}

/** One event, as Kafka carries it. */
export interface CloudEvent {
  type: CloudEventType;
  /** The record key; '' = none. */
  key: string;
  headers: Record<string, string>;
  value: string;
}

const SESSION_TYPES = {
  started: 'sallyport.session.started.v1',
  connected: 'sallyport.session.connected.v1',
  resumed: 'sallyport.session.resumed.v1',
  moved: 'sallyport.session.moved.v1',
  parked: 'sallyport.session.parked.v1',
  stats: 'sallyport.session.stats.v1',
  ended: 'sallyport.session.ended.v1',
} as const;

const STREAM_TYPES = {
  snapshot: 'sallyport.session.snapshot.v1',
  state: 'sallyport.session.state.v1',
  gap: 'sallyport.events.gap.v1',
  resynced: 'sallyport.events.resynced.v1',
} as const;

/** What the compacted topic holds. */
export const STATE_TYPE = STREAM_TYPES.state;

type OccurrenceType = `sallyport.${Occurrence['type']}.v1`;

export type CloudEventType =
  | (typeof SESSION_TYPES)[keyof typeof SESSION_TYPES]
  | (typeof STREAM_TYPES)[keyof typeof STREAM_TYPES]
  | OccurrenceType;

/** The text fields of each occurrence besides `type`; `subject` is the field that the fact is about and its key. */
const OCCURRENCES: { [T in Occurrence['type']]: OccurrenceForm<T> } = {
  'auth.succeeded': { fields: ['user', 'profile', 'method', 'address', 'sessionId'], subject: 'user' },
  'auth.failed': { fields: ['user', 'profile', 'method', 'address', 'reason'], subject: 'user' },
  'connect.refused': {
    fields: ['user', 'profile', 'address', 'reason', 'sessionId', 'node'],
    subject: 'user',
  },
  'node.ready': { fields: ['node', 'incarnation'], subject: 'node' },
  'node.stopping': { fields: ['node', 'incarnation'], subject: 'node' },
  'config.applied': { fields: ['revision', 'detail'], subject: 'revision' },
  'config.rejected': { fields: ['revision', 'detail'], subject: 'revision' },
  'admin.changed': { fields: ['verb', 'subject'], subject: 'subject' },
};

interface OccurrenceForm<T extends Occurrence['type']> {
  fields: readonly FieldOf<Occurrence, T>[];
  subject: FieldOf<Occurrence, T>;
}

/** Names of the fields of that one of `O` whose `type` can be `T`. */
type FieldOf<O extends Occurrence, T> = O extends Occurrence
  ? T extends O['type']
    ? Exclude<keyof O, 'v' | 'at' | 'type'>
    : never
  : never;

export const CLOUD_EVENT_TYPES: readonly CloudEventType[] = [
  ...Object.values(SESSION_TYPES),
  ...Object.values(STREAM_TYPES),
  ...occurrenceNames().map(occurrenceType),
];

/** JSON of an occurrence, as it stands in the stream. */
export function encodeOccurrence(occurrence: Occurrence): string {
  const names: readonly string[] = ['v', 'at', 'type', ...OCCURRENCES[occurrence.type].fields];
  return JSON.stringify(
    Object.fromEntries(Object.entries(occurrence).filter(([name]) => names.includes(name))),
    bigintAsText,
  );
}

/** @throws MalformedLine, NewerVersion */
export function decodeOccurrence(text: string): Occurrence {
  const fields = Fields.parse(text);
  const v = fields.count('v');
  const name = fields.text('type');
  if (v > SESSION_VERSION) throw new NewerVersion(`occurrence ${name}`, v);
  const head = { v, at: fields.whole('at') };
  switch (name) {
    case 'auth.succeeded':
      return { ...head, type: name, ...attempt(fields), sessionId: fields.text('sessionId') };
    case 'auth.failed':
      return { ...head, type: name, ...attempt(fields), reason: reasonOf(fields.text('reason')) };
    case 'connect.refused':
      return {
        ...head,
        type: name,
        user: fields.text('user'),
        profile: fields.text('profile'),
        address: fields.text('address'),
        reason: reasonOf(fields.text('reason')),
        sessionId: fields.text('sessionId'),
        node: fields.text('node'),
      };
    case 'node.ready':
    case 'node.stopping':
      return { ...head, type: name, node: fields.text('node'), incarnation: fields.text('incarnation') };
    case 'config.applied':
    case 'config.rejected':
      return { ...head, type: name, revision: fields.text('revision'), detail: fields.text('detail') };
    case 'admin.changed':
      return { ...head, type: name, verb: fields.text('verb'), subject: fields.text('subject') };
    default:
      throw new MalformedLine('type: unknown');
  }
}

/**
 * The fact of a stream entry.
 * @throws MalformedLine (never a later release's fact), NewerVersion
 */
export function decodeEntry(entry: StreamEntry): Fact {
  if (entry.data.length > FACT_BYTES) throw new MalformedLine('larger than any fact');
  const fact = entry.sessionId === '' ? decodeOccurrence(entry.data) : decodeEvent(entry.data);
  if (fact.type !== entry.type) throw new MalformedLine('type: not that of the entry');
  if ('epoch' in fact && fact.sessionId !== entry.sessionId)
    throw new MalformedLine('sessionId: not that of the entry');
  if (fact.at > LATEST_TIME) throw new MalformedLine('at: not a time');
  return fact;
}

/** Makes the events of one cluster. */
export class CloudEvents {
  readonly #source: string;

  /** @param cluster name of the cluster, part of `source` */
  constructor(cluster: string) {
    this.#source = `/sallyport/${encodeURIComponent(cluster)}`;
  }

  /** @param entryId of the stream: names an occurrence, which has no number of its own. */
  ofFact(fact: Fact, entryId: string): CloudEvent {
    if (!('epoch' in fact)) {
      const subject = subjectOf(fact);
      const head = { type: occurrenceType(fact.type), id: `${fact.type}/${entryId}`, at: fact.at, subject };
      return this.#event(head, encodeOccurrence(fact));
    }
    const id = `${fact.sessionId}/${fact.epoch}/${fact.n}`;
    return this.#event(
      { type: sessionType(fact), id, at: fact.at, subject: fact.sessionId },
      encodeEvent(fact),
    );
  }

  snapshot(record: Session): CloudEvent {
    return this.#ofRecord(STREAM_TYPES.snapshot, record);
  }

  /** What the compacted topic holds of a session. */
  state(record: Session): CloudEvent {
    return this.#ofRecord(STREAM_TYPES.state, record);
  }

  /** Goes to every partition, so its id names the partition. */
  gap(lost: StreamGap | undefined, at: Micros, partition: number): CloudEvent {
    const gap: Gap = {
      v: SESSION_VERSION,
      at: lost?.at ?? at,
      reason: lost === undefined ? 'request' : 'cap',
      count: lost?.count ?? 0,
      from: lost?.from ?? '',
      to: lost?.to ?? '',
    };
    const id = `gap/${gap.at}/${gap.count}/${partition}`;
    return this.#event({ type: STREAM_TYPES.gap, id, at: gap.at, subject: '' }, asJson('gap', gap));
  }

  resynced(sessions: number, at: Micros, partition: number): CloudEvent {
    const id = `resynced/${at}/${partition}`;
    const resynced: Resynced = { v: SESSION_VERSION, at, sessions };
    return this.#event({ type: STREAM_TYPES.resynced, id, at, subject: '' }, asJson('resynced', resynced));
  }

  #ofRecord(type: CloudEventType, record: Session): CloudEvent {
    const id = `${record.id}/${epochOf(record)}/${record.n}/${type === STREAM_TYPES.state ? 'state' : 'snapshot'}`;
    return this.#event({ type, id, at: lastChange(record), subject: record.id }, encodeRecord(record));
  }

  // cloudevents spec 1.0.2, Kafka protocol binding §3.2: binary content mode.
  #event(head: { type: CloudEventType; id: string; at: Micros; subject: string }, value: string): CloudEvent {
    const headers: Record<string, string> = {
      'content-type': 'application/json',
      ce_specversion: '1.0',
      ce_id: head.id,
      ce_source: this.#source,
      ce_type: head.type,
      ce_time: timeText(head.at),
    };
    // Both must be non-empty strings if present (spec §3.1, extension `partitionkey`).
    if (head.subject !== '') {
      headers.ce_subject = head.subject;
      headers.ce_partitionkey = head.subject;
    }
    return { type: head.type, key: head.subject, headers, value };
  }
}

/**
 * Reads an event of a topic.
 * @returns undefined for types that this release does not know: consumers skip those.
 * @throws MalformedLine, NewerVersion
 */
export function decodeCloudEvent(type: string, value: string): CloudFact | undefined {
  if (value.length > FACT_BYTES) throw new MalformedLine('larger than any fact');
  if (Object.values<string>(SESSION_TYPES).includes(type)) {
    const event = decodeEvent(value);
    if (sessionType(event) !== type) throw new MalformedLine('type: not that of the header');
    return { kind: 'session', event };
  }
  if (type === STREAM_TYPES.snapshot || type === STREAM_TYPES.state) {
    const line = decodeLine(value);
    if (line.type !== 'record') throw new MalformedLine('not a record');
    return { kind: 'snapshot', record: line.record };
  }
  if (type === STREAM_TYPES.gap) return { kind: 'gap', gap: decodeGap(value) };
  if (type === STREAM_TYPES.resynced) return { kind: 'resynced', resynced: decodeResynced(value) };
  if (!occurrenceNames().some((name) => occurrenceType(name) === type)) return undefined;
  const occurrence = decodeOccurrence(value);
  if (occurrenceType(occurrence.type) !== type) throw new MalformedLine('type: not that of the header');
  return { kind: 'occurrence', occurrence };
}

function sessionType(event: SessionEvent): CloudEventType {
  if (event.type !== 'claimed') return SESSION_TYPES[event.type];
  if (event.moved) return SESSION_TYPES.moved;
  return event.resumed ? SESSION_TYPES.resumed : SESSION_TYPES.connected;
}

function occurrenceType(name: Occurrence['type']): OccurrenceType {
  return `sallyport.${name}.v1`;
}

function occurrenceNames(): Occurrence['type'][] {
  return Object.keys(OCCURRENCES).filter((name): name is Occurrence['type'] =>
    Object.hasOwn(OCCURRENCES, name),
  );
}

function subjectOf(occurrence: Occurrence): string {
  const value: unknown = Reflect.get(occurrence, OCCURRENCES[occurrence.type].subject);
  return typeof value === 'string' ? value : '';
}

function attempt(fields: Fields) {
  return {
    user: fields.text('user'),
    profile: fields.text('profile'),
    method: fields.text('method'),
    address: fields.text('address'),
  };
}

function reasonOf(name: string): Reason {
  const known = (text: string): text is Reason => Object.hasOwn(REASONS, text);
  if (!known(name)) throw new MalformedLine('reason: unknown');
  return name;
}

function decodeGap(value: string): Gap {
  const fields = ofVersion(value);
  const reason = fields.text('reason');
  if (reason !== 'cap' && reason !== 'request') throw new MalformedLine('reason: unknown');
  return {
    v: fields.count('v'),
    at: fields.whole('at'),
    reason,
    count: fields.count('count'),
    from: fields.text('from'),
    to: fields.text('to'),
  };
}

function decodeResynced(value: string): Resynced {
  const fields = ofVersion(value);
  return { v: fields.count('v'), at: fields.whole('at'), sessions: fields.count('sessions') };
}

function ofVersion(value: string): Fields {
  const fields = Fields.parse(value);
  const v = fields.count('v');
  if (v > SESSION_VERSION) throw new NewerVersion('event', v);
  return fields;
}

function asJson(type: string, fields: object): string {
  return JSON.stringify({ type, ...fields }, bigintAsText);
}

function lastChange(record: Session): Micros {
  const times = [record.createdAt, record.upAt, record.parkedAt, record.activeAt, record.endedAt];
  const last = times.reduce((a, b) => (a > b ? a : b));
  return last > LATEST_TIME ? LATEST_TIME : last;
}

/** RFC 3339 in UTC, to the microsecond. */
function timeText(at: Micros): string {
  const whole = new Date(Number(at / 1000n)).toISOString().slice(0, -1);
  return `${whole}${String(at % 1000n).padStart(3, '0')}Z`;
}

/** Characters of one fact's JSON. The largest grant that the configuration takes stays far below. */
export const FACT_BYTES = 512 * 1024;
/** The last µs of the year 9999: RFC 3339 has four digits. */
const LATEST_TIME: Micros = 253_402_300_799_999_999n;
