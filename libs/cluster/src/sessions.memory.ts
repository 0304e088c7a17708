import type { Reason } from '@sallyport/protocol';
import type { Clock } from './clock.ts';
import { systemClock } from './clock.ts';
import type { Step } from './commits.ts';
import { Commits } from './commits.ts';
import type { EventLog } from './events.ts';
import { Interned } from './intern.ts';
import type { Journal } from './journal.ts';
import type { Entry } from './journal-lines.ts';
import { Mailboxes } from './notices.ts';
import type { ClaimDecision } from './session-decisions.ts';
import {
  decideAnnounce,
  decideCheckpoint,
  decideClaim,
  decideEnd,
  decideEndByNode,
  decidePark,
  decideReturn,
  decideStart,
  outlived,
  timeAway,
} from './session-decisions.ts';
import { SessionTable } from './session-table.ts';
import type { Lease, Micros, NodeIdentity, Session, SessionAddresses, SessionEvent } from './session.ts';
import { apply, epochOf } from './session.ts';
import type {
  Claimed,
  ClaimRequest,
  NewSession,
  Notice,
  PoolUse,
  Refused,
  SessionCounts,
  SessionLimits,
  Sessions,
  Usage,
} from './sessions.ts';
import { StoreUnavailable } from './sessions.ts';
import { newSessionId } from './tokens.ts';

export interface MemorySessionsOptions {
  /** Opened before, closed with the sessions. Without one nothing outlives the process. */
  journal?: Journal;
  /** µs; must not go back. */
  clock?: Clock;
  limits?: SessionLimits;
  events?: EventLog;
}

/**
 * The session table of one process (ARCHITECTURE.md, decision 12). With a journal, `create`, `claim` and the ends
 * resolve when their events are on disk, and `open` rebuilds the table from it. Reads see a change at once, also while
 * its write is under way; if the write fails the change is taken back, but for those that make nothing new: ends and
 * parking take hold and follow into the journal later, and a session may reconnect to the addresses that it has. `end`
 * and `endOfUser` reject then all the same, for a restart before that would bring their sessions back. It has no timers:
 * somebody calls `sweep`.
 */
export class MemorySessions implements Sessions {
  readonly #table = new SessionTable();
  readonly #clock: Clock;
  readonly #events: EventLog | undefined;
  readonly #mailboxes = new Mailboxes();
  readonly #commits: Commits;
  readonly #grants = new Interned<Session['grant']>();
  readonly #origins = new Interned<Session['origins']>();
  /** CONNECTs of the last minute, by session. */
  readonly #connects = new Map<string, Connect[]>();
  #limits: SessionLimits = { maxClients: 0, connectsPerMinute: 0 };
  /** Sessions that were up when the store went, with their epoch, and how long it was away. */
  readonly #upBefore = new Map<string, Micros>();
  #away = 0n;

  private constructor(options: MemorySessionsOptions) {
    this.#clock = options.clock ?? systemClock();
    this.#events = options.events;
    if (options.limits !== undefined) this.configure(options.limits);
    this.#commits = new Commits({
      table: this.#table,
      clock: this.#clock,
      mailboxes: this.#mailboxes,
      journal: options.journal,
      events: options.events,
    });
  }

  /**
   * Replays the journal and writes it anew, as short as it can be; where that fails (a full disk) it goes on as it is.
   * @throws JournalError, NewerVersion, ImpossibleTransition: the journal stays as it is.
   */
  static async open(options: MemorySessionsOptions = {}): Promise<MemorySessions> {
    const sessions = new MemorySessions(options);
    if (options.journal !== undefined) await sessions.#replay(options.journal);
    return sessions;
  }

  create(input: NewSession): Promise<Session> {
    return this.#commits.change(true, (step) => {
      if (this.#table.find(input.tokenHash) !== undefined)
        throw new Error('a session with this token exists already');
      this.#limitWaiting(input.user, step);
      return step.emit(decideStart(this.#shared(input), newSessionId(), step.now));
    });
  }

  async find(tokenHash: string): Promise<Session | undefined> {
    return this.#open().find(tokenHash);
  }

  async get(id: string): Promise<Session | undefined> {
    return this.#open().get(id);
  }

  async list(): Promise<Session[]> {
    return this.#open().live();
  }

  async findByPrefix(idPrefix: string): Promise<Session[]> {
    return this.#open().startingWith(idPrefix);
  }

  async counts(): Promise<SessionCounts> {
    const { authed, up, parked } = this.#open().counts;
    return { authed, up, parked };
  }

  claim(request: ClaimRequest): Promise<Claimed | Refused> {
    return this.#commits.change(true, (step) => this.#claim(request, step));
  }

  park(id: string, lease: Lease, reason: Reason, usage: Usage): Promise<boolean> {
    return this.#changeOne(id, false, (session, now) => decidePark(session, lease, reason, usage, now));
  }

  checkpoint(id: string, lease: Lease, usage: Usage): Promise<boolean> {
    return this.#changeOne(id, false, (session, now) => decideCheckpoint(session, lease, usage, now));
  }

  endByNode(id: string, lease: Lease, reason: Reason, usage: Usage): Promise<boolean> {
    return this.#changeOne(id, true, (session, now) => decideEndByNode(session, lease, reason, usage, now));
  }

  end(id: string, reason: Reason): Promise<boolean> {
    return this.#commits.change(true, (step) => {
      step.owe(false);
      const session = this.#table.get(id);
      return session !== undefined && end(session, reason, step);
    });
  }

  endOfUser(user: string, reason: Reason, upTo?: Micros): Promise<number> {
    return this.#commits.change(true, (step) => {
      step.owe(false);
      const meant = this.#table
        .ofUser(user)
        .filter(({ createdAt }) => upTo === undefined || createdAt <= upTo);
      return meant.filter((session) => end(session, reason, step)).length;
    });
  }

  announce(node: NodeIdentity): Promise<number> {
    return this.#commits.change(true, (step) => {
      step.owe(true);
      let parked = 0;
      for (const session of this.#table.upOfNode(node.name)) {
        const away = this.#upBefore.get(session.id) === epochOf(session) ? this.#away : 0n;
        const event = decideAnnounce(session, node.incarnation, step.now, away);
        if (event === undefined) continue;
        step.emit(event, true);
        parked++;
      }
      this.#mailboxes.forgetOlder(node);
      return parked;
    });
  }

  async leasesOf({ name, incarnation }: NodeIdentity): Promise<string[]> {
    const up = this.#open().upOfNode(name);
    return up.filter(({ lease }) => lease?.incarnation === incarnation).map(({ id }) => id);
  }

  notices(node: NodeIdentity, deliver: (notices: Notice[]) => void): () => void {
    return this.#mailboxes.listen(node, deliver);
  }

  sweep(): Promise<number> {
    this.#mailboxes.retry();
    return this.#commits.change(true, (step) => {
      step.owe(true);
      let ended = 0;
      for (const id of this.#table.due(step.now)) {
        const session = this.#table.get(id);
        if (session === undefined) continue;
        const reason = outlived(session, step.now);
        if (session.state === 'closed') step.forget(session);
        else if (reason !== undefined && end(session, reason, step)) ended++;
      }
      for (const session of this.#table.oldestClosed(this.#table.counts.closed - TOMBSTONES_LIMIT))
        step.forget(session);
      this.#dropOldConnects(step.now);
      this.#commits.mark(step);
      return ended;
    });
  }

  async pools(): Promise<PoolUse[]> {
    return this.#open().pools();
  }

  configure(limits: SessionLimits): void {
    this.#limits = limits;
    this.#table.addresses.reserve(limits.reserved ?? []);
    this.#table.addresses.settle(limits.home ?? []);
  }

  /** Waits for what is being written. Sessions stay as they are: the next process goes on with them. */
  async close(): Promise<void> {
    await this.#commits.close();
    this.#mailboxes.close();
  }

  #open(): SessionTable {
    if (this.#commits.closed) throw new StoreUnavailable('the session store is closed');
    return this.#table;
  }

  #changeOne(
    id: string,
    durable: boolean,
    decide: (session: Session, now: Micros) => SessionEvent | undefined,
  ): Promise<boolean> {
    return this.#commits.change(durable, (step) => {
      step.owe(true);
      const session = this.#table.get(id);
      const event = session === undefined ? undefined : decide(session, step.now);
      if (event === undefined) return false;
      step.emit(event, true);
      return true;
    });
  }

  #claim(request: ClaimRequest, step: Step): Claimed | Refused {
    const session = this.#table.find(request.tokenHash);
    if (session === undefined) {
      step.owe(true);
      return { ok: false, reason: 'token-unknown' };
    }
    const { now } = step;
    const connects = (this.#connects.get(session.id) ?? []).filter((connect) => isRecent(connect, now));
    const earlier = connects.find(
      (connect) => connect.leased && connect.connectionId === request.connectionId,
    );
    const decision = decideClaim(session, request, {
      now,
      limits: this.#limits,
      upInAll: this.#table.counts.up - (session.state === 'up' ? 1 : 0),
      ...this.#rivals(session),
      connects: connects.length,
      hadLease: earlier !== undefined,
      fixedHolder: (family) => {
        const holder = this.#table.fixedHolder(session.grant, family);
        return holder?.id === session.id ? undefined : holder;
      },
      parkedInPools: (family) => this.#table.parkedInPools(session, family),
      choose: (families, leaving) =>
        this.#table.without(leaving, now, () => this.#table.addresses.choose(session, families, now)),
    });
    if (decision.type !== 'claimed' || keepsAddresses(session, decision)) step.owe(true);
    if (decision.type === 'repeated') {
      const { lease, addresses } = decision;
      return { ok: true, session, lease, addresses, resumed: earlier?.resumed ?? true, returning: false };
    }
    for (const event of decision.events) step.emit(event);
    const counts = decision.type === 'claimed' || COUNTED_REFUSALS.includes(decision.reason);
    const resumed = decision.type === 'claimed' && decision.resumed;
    const connect = {
      at: now,
      connectionId: request.connectionId,
      leased: decision.type === 'claimed',
      resumed,
    };
    if (counts) this.#remember(session.id, [...connects, connect], step);
    if (decision.type === 'refused') return { ok: false, reason: decision.reason };
    const claimed = this.#table.get(session.id) ?? session;
    const { lease, addresses } = decision;
    const returning =
      resumed && session.lease?.name === lease.name && sameAddresses(session.addresses, claimed.addresses);
    return { ok: true, session: claimed, lease, addresses, resumed, returning };
  }

  /** Other sessions of the user; not looked for where there is no limit. */
  #rivals(session: Session) {
    const limited = session.grant.maxSameClients > 0;
    const others = limited ? this.#table.ofUser(session.user).filter((other) => other.id !== session.id) : [];
    return {
      upOfUser: others.filter((other) => other.state === 'up'),
      parkedOfUser: others.filter((other) => other.state === 'parked'),
    };
  }

  #remember(id: string, connects: Connect[], step: Step): void {
    const before = this.#connects.get(id);
    const kept = Math.max(CONNECTS_KEPT, this.#limits.connectsPerMinute);
    this.#connects.set(id, connects.slice(-kept));
    step.onUndo(() => {
      if (before === undefined) this.#connects.delete(id);
      else this.#connects.set(id, before);
    });
  }

  #dropOldConnects(now: Micros): void {
    for (const [id, connects] of this.#connects) {
      const last = connects.at(-1);
      if (last === undefined || !isRecent(last, now)) this.#connects.delete(id);
    }
  }

  /** Makes room for one more login of a user: those that wait longest without a tunnel go. */
  #limitWaiting(user: string, step: Step): void {
    if (this.#table.countOfUser(user) < WAITING_PER_USER) return;
    const waiting = this.#table.ofUser(user).filter((session) => session.state !== 'up');
    const excess = waiting.length + 1 - WAITING_PER_USER;
    if (excess <= 0) return;
    waiting.sort((a, b) => Number(waitingSince(a) - waitingSince(b)));
    for (const session of waiting.slice(0, excess)) end(session, 'replaced', step);
  }

  async #replay(journal: Journal): Promise<void> {
    let lastAlive: Micros | undefined;
    await journal.replay((entry) => {
      lastAlive = this.#replayOne(entry) ?? lastAlive;
    });
    const now = this.#clock();
    this.#away = timeAway(lastAlive, now);
    for (const id of this.#table.due(now)) {
      if (this.#table.get(id)?.state === 'closed') this.#table.put(id, undefined, now);
    }
    const facts: SessionEvent[] = [];
    for (const session of Array.from(this.#table.all())) {
      const event = decideReturn(session, this.#away, now);
      if (event !== undefined) {
        this.#table.put(session.id, apply(session, event), now);
        facts.push(event);
      }
      if (session.state === 'up') this.#upBefore.set(session.id, epochOf(session));
    }
    try {
      await this.#commits.rewrite(journal);
    } catch (error) {
      if (!(await journal.resume())) throw error;
      this.#commits.owe(facts.map((fact) => fact.sessionId));
    }
    this.#events?.append(facts);
  }

  /** @returns when the store was alive, as this entry shows. */
  #replayOne(entry: Entry): Micros | undefined {
    if (entry.type === 'alive') return entry.at;
    if (entry.type === 'hint') {
      this.#table.addresses.hint(entry.hint);
      return undefined;
    }
    if (entry.type === 'record') {
      this.#table.put(entry.record.id, this.#shared(entry.record), entry.record.endedAt);
      return undefined;
    }
    const { event } = entry;
    const record = apply(this.#table.get(event.sessionId), event);
    this.#table.put(record.id, event.type === 'started' ? this.#shared(record) : record, event.at);
    return event.at;
  }

  #shared<T extends Pick<Session, 'grant' | 'origins'>>(holder: T): T {
    return { ...holder, grant: this.#grants.of(holder.grant), origins: this.#origins.of(holder.origins) };
  }
}

/** Tombstones that are kept; above it the sweep forgets the oldest. */
export const TOMBSTONES_LIMIT = 10_000;
/** Sessions without a tunnel that one user may have; at one more the one that waits longest ends. */
export const WAITING_PER_USER = 4096;
/** CONNECTs of one session that are remembered, at least: their connection ids make a claim repeatable. */
export const CONNECTS_KEPT = 16;
/** The span of `connectsPerMinute`, µs. */
export const CONNECT_WINDOW_MICROS = 60_000_000n;

/** Refusals that count as a CONNECT; a client that is refused for its rate must be able to come back. */
const COUNTED_REFUSALS: readonly Reason[] = [
  'max-clients',
  'max-same-clients',
  'pool-empty',
  'address-taken',
  'no-address-family',
];

interface Connect {
  at: Micros;
  connectionId: string;
  leased: boolean;
  resumed: boolean;
}

function isRecent(connect: Connect, now: Micros): boolean {
  return now - connect.at < CONNECT_WINDOW_MICROS;
}

function waitingSince(session: Session): Micros {
  return session.state === 'parked' ? session.parkedAt : session.createdAt;
}

function sameAddresses(one: SessionAddresses, other: SessionAddresses): boolean {
  return one.ipv4 === other.ipv4 && one.ipv6 === other.ipv6;
}

/** Nothing is taken, from nobody: if a restart forgets such a claim, the session has what it had before. */
function keepsAddresses(session: Session, decision: ClaimDecision): boolean {
  if (decision.type !== 'claimed' || decision.events.length !== 1) return false;
  return decision.events.every(
    (event) => event.type === 'claimed' && sameAddresses(event.addresses, session.addresses),
  );
}

/** Not fenced. */
function end(session: Session, reason: Reason, step: Step): boolean {
  const event = decideEnd(session, reason, step.now);
  if (event === undefined) return false;
  step.emit(event);
  return true;
}
