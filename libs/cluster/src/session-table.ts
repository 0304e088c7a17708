import type { Grant } from '@sallyport/protocol';
import { AddressBook } from './addresses.ts';
import type { Family } from './session-decisions.ts';
import { lifetimeEnd, tombstoneLifetime } from './session-decisions.ts';
import type { Micros, Session } from './session.ts';
import type { PoolUse } from './sessions.ts';

/**
 * The records of the memory form with all that is derived from them: who is up where, whose addresses are taken, what
 * is due when. `put` is the only way to change it, so the derived parts cannot disagree with the records.
 */
export class SessionTable {
  readonly #sessions = new Map<string, Session>();
  readonly #byToken = new Map<string, string>();
  /** Sessions that are not closed. */
  readonly #byUser = new Map<string, Set<string>>();
  /** Sessions that are up, by the name of their node. */
  readonly #upByNode = new Map<string, Set<string>>();
  readonly #counts: Record<Session['state'], number> = { authed: 0, up: 0, parked: 0, closed: 0 };
  /** Tombstones, oldest first. */
  readonly #closed = new Set<string>();
  /** When a record must be looked at, in µs; a number is exact enough and cheap to compare. */
  readonly #due = new Map<string, number>();
  readonly #addresses: AddressBook;

  constructor(addresses = new AddressBook()) {
    this.#addresses = addresses;
  }

  get addresses(): AddressBook {
    return this.#addresses;
  }

  /** Records by state; the closed ones are tombstones. */
  get counts(): Readonly<Record<Session['state'], number>> {
    return this.#counts;
  }

  oldestClosed(count: number): Session[] {
    const oldest: Session[] = [];
    for (const id of this.#closed) {
      if (oldest.length >= count) break;
      const session = this.#sessions.get(id);
      if (session !== undefined) oldest.push(session);
    }
    return oldest;
  }

  get(id: string): Session | undefined {
    return this.#sessions.get(id);
  }

  find(tokenHash: string): Session | undefined {
    const id = this.#byToken.get(tokenHash);
    return id === undefined ? undefined : this.#sessions.get(id);
  }

  /** All records, tombstones too. */
  all(): IterableIterator<Session> {
    return this.#sessions.values();
  }

  live(): Session[] {
    return Array.from(this.all()).filter((session) => session.state !== 'closed');
  }

  /** Not closed, with an id that begins so. */
  startingWith(idPrefix: string): Session[] {
    const found: Session[] = [];
    for (const session of this.all())
      if (session.state !== 'closed' && session.id.startsWith(idPrefix)) found.push(session);
    return found;
  }

  /** Sessions of a user that are not closed. */
  ofUser(user: string): Session[] {
    return this.#records(this.#byUser.get(user));
  }

  countOfUser(user: string): number {
    return this.#byUser.get(user)?.size ?? 0;
  }

  upOfNode(name: string): Session[] {
    return this.#records(this.#upByNode.get(name));
  }

  fixedHolder(grant: Grant, family: Family): Session | undefined {
    const id = this.#addresses.fixedHolder(grant, family);
    return id === undefined ? undefined : this.#sessions.get(id);
  }

  /** Other parked sessions whose address the pools of this one may give. Goes through all. */
  parkedInPools(session: Session, family: Family): Session[] {
    const found: Session[] = [];
    for (const other of this.all()) {
      if (other.state === 'parked' && other.id !== session.id)
        if (this.#addresses.mayPass(other, session.grant, family)) found.push(other);
    }
    return found;
  }

  /** Runs `look` as if these sessions had given up their addresses. */
  without<T>(leaving: readonly Session[], now: Micros, look: () => T): T {
    for (const session of leaving) this.#addresses.release(session, now);
    try {
      return look();
    } finally {
      for (const session of leaving) this.#addresses.hold(session);
    }
  }

  pools(): PoolUse[] {
    const grants = new Set<Grant>();
    for (const session of this.all()) if (session.state !== 'closed') grants.add(session.grant);
    return this.#addresses.use(grants);
  }

  /** Ids of records that have outlived their time, tombstones too. */
  due(now: Micros): string[] {
    const limit = Number(now);
    const ids: string[] = [];
    for (const [id, at] of this.#due) if (at <= limit) ids.push(id);
    return ids;
  }

  /** @param next the new record of `id`; undefined forgets it. */
  put(id: string, next: Session | undefined, now: Micros): void {
    const previous = this.#sessions.get(id);
    if (previous !== undefined) this.#unlink(previous);
    this.#moveAddresses(previous, next, now);
    if (next === undefined) {
      this.#sessions.delete(id);
      this.#due.delete(id);
      return;
    }
    this.#sessions.set(id, next);
    this.#link(next);
  }

  #link(session: Session): void {
    this.#counts[session.state]++;
    this.#byToken.set(session.tokenHash, session.id);
    if (session.state === 'closed') this.#closed.add(session.id);
    else join(this.#byUser, session.user, session.id);
    if (session.state === 'up' && session.lease !== undefined)
      join(this.#upByNode, session.lease.name, session.id);
    const end =
      session.state === 'closed' ? session.endedAt + tombstoneLifetime(session) : lifetimeEnd(session)?.at;
    if (end === undefined) this.#due.delete(session.id);
    else this.#due.set(session.id, Number(end));
  }

  #unlink(session: Session): void {
    this.#counts[session.state]--;
    this.#byToken.delete(session.tokenHash);
    if (session.state === 'closed') this.#closed.delete(session.id);
    else leave(this.#byUser, session.user, session.id);
    if (session.state === 'up' && session.lease !== undefined)
      leave(this.#upByNode, session.lease.name, session.id);
  }

  /** An address is freed only when its session ends. */
  #moveAddresses(previous: Session | undefined, next: Session | undefined, now: Micros): void {
    const before = previous !== undefined && previous.state !== 'closed' ? previous : undefined;
    const after = next !== undefined && next.state !== 'closed' ? next : undefined;
    if (before?.addresses.ipv4 === after?.addresses.ipv4 && before?.addresses.ipv6 === after?.addresses.ipv6)
      return;
    if (before !== undefined) this.#addresses.release(before, now);
    if (after !== undefined) this.#addresses.hold(after);
  }

  #records(ids: Set<string> | undefined): Session[] {
    const sessions: Session[] = [];
    for (const id of ids ?? []) {
      const session = this.#sessions.get(id);
      if (session !== undefined) sessions.push(session);
    }
    return sessions;
  }
}

function join(index: Map<string, Set<string>>, key: string, id: string): void {
  const ids = index.get(key);
  if (ids === undefined) index.set(key, new Set([id]));
  else ids.add(id);
}

function leave(index: Map<string, Set<string>>, key: string, id: string): void {
  const ids = index.get(key);
  ids?.delete(id);
  if (ids?.size === 0) index.delete(key);
}
