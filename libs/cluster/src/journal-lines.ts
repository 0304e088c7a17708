/*
 * The journal's lines: one JSON object each, numbers above 2^53 as decimal text. `type` tells which:
 *   an event's type    one event, as it is in memory
 *   record             a whole session: the short form of all its events so far
 *   hint               an address that rests
 *   alive              the store was running at that time
 * Whatever is read is checked, because a file can be edited and a disk can fail.
 */
import type { Grant, GrantOrigins, Origin, Reason } from '@sallyport/protocol';
import { REASONS } from '@sallyport/protocol';
import type { Hint } from './addresses.ts';
import { DEFAULT_GRANT, forGrantFields, GRANT_FIELDS, isGrantValue } from './grant-fields.ts';
import type { Lease, Micros, Session, SessionAddresses, SessionClient, SessionEvent } from './session.ts';
import { NewerVersion, SESSION_VERSION } from './session.ts';

export type Entry =
  | { type: 'event'; event: SessionEvent }
  | { type: 'record'; record: Session }
  | { type: 'hint'; hint: Hint }
  | { type: 'alive'; at: Micros };

/** The JSON of an event: also what other transports carry. Without a line end. */
export function encodeEvent(event: SessionEvent): string {
  return JSON.stringify(event, bigintAsText);
}

export function encodeRecord(record: Session): string {
  return JSON.stringify({ type: 'record', ...record }, bigintAsText);
}

export function encodeHint(hint: Hint): string {
  return JSON.stringify({ v: SESSION_VERSION, type: 'hint', ...hint }, bigintAsText);
}

export function encodeAlive(at: Micros): string {
  return JSON.stringify({ v: SESSION_VERSION, type: 'alive', at }, bigintAsText);
}

/** @throws MalformedLine, NewerVersion */
export function decodeEvent(text: string): SessionEvent {
  const entry = decodeLine(text);
  if (entry.type !== 'event') throw new MalformedLine(`${entry.type} is not an event`);
  return entry.event;
}

/** @throws MalformedLine, NewerVersion */
export function decodeLine(text: string, checked = new Checked()): Entry {
  return decodeFields(Fields.parse(text), checked);
}

/** A line that somebody else has parsed. @throws MalformedLine, NewerVersion */
export function decodeObject(line: object, checked: Checked): Entry {
  return decodeFields(Fields.of(line), checked);
}

function decodeFields(line: Fields, checked: Checked): Entry {
  const v = line.count('v');
  const type = line.text('type');
  if (v > SESSION_VERSION) throw new NewerVersion(`line of type ${type}`, v);
  if (v < 1) throw new MalformedLine(`v: ${v} is no version`);
  switch (type) {
    case 'record':
      return { type, record: record(line, v, checked) };
    case 'hint':
      return { type, hint: hint(line) };
    case 'alive':
      return { type, at: line.whole('at') };
    default:
      return { type: 'event', event: event(line, v, type, checked) };
  }
}

/** Grants that were read before: most lines repeat one, and checking costs more than comparing. */
export class Checked {
  readonly grants = new Seen(grant);
  readonly origins = new Seen(origins);
}

/** What is wrong with a line, without its data. */
export class MalformedLine extends Error {
  /** Not even JSON: what a torn write leaves. */
  readonly torn: boolean;

  constructor(message: string, torn = false) {
    super(message);
    this.name = 'MalformedLine';
    this.torn = torn;
  }
}

function event(line: Fields, v: number, type: string, checked: Checked): SessionEvent {
  const head = {
    v,
    sessionId: line.text('sessionId'),
    epoch: line.whole('epoch'),
    n: line.count('n'),
    at: line.whole('at'),
  };
  switch (type) {
    case 'started':
      return {
        ...head,
        type,
        ...owner(line, checked),
        client: client(line.object('client')),
        strapKeys: line.texts('strapKeys'),
      };
    case 'claimed':
      return {
        ...head,
        type,
        lease: lease(line.object('lease')),
        addresses: addresses(line.object('addresses')),
        client: client(line.object('client')),
        strapKeys: line.texts('strapKeys'),
        mtuBytes: line.count('mtuBytes'),
        resumed: line.flag('resumed'),
        moved: line.flag('moved'),
      };
    case 'parked':
    case 'ended':
      return { ...head, type, reason: reason(line.text('reason')), ...usage(line) };
    case 'stats':
      return { ...head, type, ...usage(line) };
    default:
      throw new MalformedLine(`type: unknown`);
  }
}

function record(line: Fields, v: number, checked: Checked): Session {
  const endReason = line.text('endReason');
  return {
    v,
    id: line.text('id'),
    ...owner(line, checked),
    client: client(line.object('client')),
    state: state(line.text('state')),
    lease: line.has('lease') ? lease(line.object('lease')) : undefined,
    addresses: addresses(line.object('addresses')),
    strapKeys: line.texts('strapKeys'),
    mtuBytes: line.count('mtuBytes'),
    createdAt: line.whole('createdAt'),
    upAt: line.whole('upAt'),
    parkedAt: line.whole('parkedAt'),
    endedAt: line.whole('endedAt'),
    endReason: endReason === '' ? '' : reason(endReason),
    ...usage(line),
    tunnelRxBytes: line.whole('tunnelRxBytes'),
    tunnelTxBytes: line.whole('tunnelTxBytes'),
    n: line.count('n'),
  };
}

function owner(line: Fields, checked: Checked) {
  return {
    tokenHash: line.text('tokenHash'),
    user: line.text('user'),
    profile: line.text('profile'),
    grant: checked.grants.of(line.object('grant')),
    origins: checked.origins.of(line.object('origins')),
  };
}

function usage(line: Fields) {
  return { activeAt: line.whole('activeAt'), rxBytes: line.whole('rxBytes'), txBytes: line.whole('txBytes') };
}

function lease(fields: Fields): Lease {
  return {
    name: fields.text('name'),
    incarnation: fields.text('incarnation'),
    epoch: fields.whole('epoch'),
    claimId: fields.text('claimId'),
  };
}

function addresses(fields: Fields): SessionAddresses {
  return { ipv4: fields.text('ipv4'), ipv6: fields.text('ipv6') };
}

function client(fields: Fields): SessionClient {
  return {
    address: fields.text('address'),
    userAgent: fields.text('userAgent'),
    platform: fields.text('platform'),
    hostname: fields.text('hostname'),
  };
}

function hint(line: Fields): Hint {
  const family = line.text('family');
  if (family !== 'ipv4' && family !== 'ipv6') throw new MalformedLine('family: unknown');
  return {
    family,
    address: line.text('address'),
    length: line.count('length'),
    user: line.text('user'),
    profile: line.text('profile'),
    freedAt: line.whole('freedAt'),
  };
}

function reason(name: string): Reason {
  if (!isReason(name)) throw new MalformedLine('reason: unknown');
  return name;
}

function isReason(name: string): name is Reason {
  return Object.hasOwn(REASONS, name);
}

function state(name: string): Session['state'] {
  if (name !== 'authed' && name !== 'up' && name !== 'parked' && name !== 'closed') {
    throw new MalformedLine('state: unknown');
  }
  return name;
}

/** A field that a record of an older release lacks has its default; its origin too. */
function grant(fields: Fields): Grant {
  const values = { ...DEFAULT_GRANT };
  for (const field of GRANT_FIELDS) {
    if (!fields.has(field)) continue;
    const value = fields.value(field);
    if (!isGrantValue(field, value)) throw new MalformedLine(`${field}: is of the wrong kind`);
    Object.assign(values, { [field]: value });
  }
  return values;
}

function origins(fields: Fields): GrantOrigins {
  return forGrantFields((field): Origin => {
    if (!fields.has(field)) return { scope: 'default', name: '' };
    const from = fields.object(field);
    const scope = from.text('scope');
    if (!isScope(scope)) throw new MalformedLine('scope: unknown');
    return { scope, name: from.text('name') };
  });
}

const SCOPES = ['default', 'global', 'profile', 'group', 'user'] as const;

function isScope(text: string): text is (typeof SCOPES)[number] {
  return SCOPES.some((scope) => scope === text);
}

/** For JSON.stringify: whole numbers above 2^53 as decimal text. */
export function bigintAsText(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value;
}

class Seen<T extends object> {
  readonly #read: (fields: Fields) => T;
  readonly #values = new Map<string, T>();
  /** By the very object: nobody changes one that was read. */
  readonly #same = new WeakMap<object, T>();

  constructor(read: (fields: Fields) => T) {
    this.#read = read;
  }

  of(fields: Fields): T {
    const same = this.#same.get(fields.source);
    if (same !== undefined) return same;
    const value = this.#equal(fields);
    this.#same.set(fields.source, value);
    return value;
  }

  #equal(fields: Fields): T {
    const { key } = fields;
    const known = this.#values.get(key);
    if (known !== undefined) return known;
    const value = this.#read(fields);
    if (this.#values.size >= SEEN_LIMIT) this.#values.clear();
    this.#values.set(key, value);
    return value;
  }
}

const SEEN_LIMIT = 1024;

/** Checked reads of one JSON object. */
export class Fields {
  readonly #object: object;

  private constructor(value: unknown, name: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new MalformedLine(`${name}: must be an object`);
    }
    this.#object = value;
  }

  static parse(text: string): Fields {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      throw new MalformedLine('not JSON', true);
    }
    return new Fields(value, 'line');
  }

  static of(object: object): Fields {
    return new Fields(object, 'line');
  }

  get source(): object {
    return this.#object;
  }

  /** The same for equal objects. */
  get key(): string {
    return JSON.stringify(this.#object);
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#object, name);
  }

  value(name: string): unknown {
    return this.has(name) ? Reflect.get(this.#object, name) : undefined;
  }

  object(name: string): Fields {
    return new Fields(this.value(name), name);
  }

  text(name: string): string {
    const value = this.value(name);
    if (typeof value !== 'string') throw new MalformedLine(`${name}: must be text`);
    return value;
  }

  texts(name: string): string[] {
    const value = this.value(name);
    if (!Array.isArray(value)) throw new MalformedLine(`${name}: must be a list`);
    return value.map((item: unknown) => {
      if (typeof item !== 'string') throw new MalformedLine(`${name}: must be a list of texts`);
      return item;
    });
  }

  flag(name: string): boolean {
    const value = this.value(name);
    if (typeof value !== 'boolean') throw new MalformedLine(`${name}: must be true or false`);
    return value;
  }

  count(name: string): number {
    const value = this.value(name);
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
      throw new MalformedLine(`${name}: must be a whole number`);
    }
    return value;
  }

  whole(name: string): bigint {
    const value = this.value(name);
    if (typeof value !== 'string' || !WHOLE.test(value)) throw new MalformedLine(`${name}: must be digits`);
    return BigInt(value);
  }
}

const WHOLE = /^\d{1,20}$/;
