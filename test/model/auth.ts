/*
 * What stands beside the nodes: replicas of auth that make and end sessions and sweep, and the outbox, which carries the
 * facts away and gives back what no node holds when a reign begins.
 */
import {
  decodeEntry,
  epochOf,
  hashToken,
  RedisEventStream,
  RedisSessions,
  StoreUnavailable,
  type NewSession,
  type Session,
  type SessionEvent,
} from '@sallyport/cluster';
import { sampleLogin } from '@sallyport/cluster/testing';
import type { Reason } from '@sallyport/protocol';
import { Link, type LinkParts } from './link.ts';
import { SECONDS, type Actor, type Simulation } from './simulation.ts';

export class Auth {
  readonly actor: Actor;
  readonly sessions: RedisSessions;

  constructor(name: string, parts: Omit<LinkParts, 'actor'>) {
    this.actor = { name, alive: true, frozenUntil: 0 };
    this.sessions = new RedisSessions({ redis: new Link({ ...parts, actor: this.actor }) });
  }

  begin(): void {
    setInterval(() => void this.sessions.sweep().catch(passing), SWEEP_MILLIS);
  }

  /** @returns undefined = refused, because the store was away; it may be there all the same. */
  async login(token: string, user: string): Promise<Session | undefined> {
    return this.sessions.create(loginOf(token, user)).catch((error: unknown) => {
      // Its first answer was lost, and its record came back from the topic, which does not know who had asked.
      if (error instanceof Error && error.message.includes('exists already')) return undefined;
      return passing(error);
    });
  }

  /** Asks until it is confirmed, as its caller does. @returns was there a session to end? */
  async end(id: string, reason: Reason): Promise<boolean> {
    return this.#until(() => this.sessions.end(id, reason));
  }

  async endOfUser(user: string, reason: Reason): Promise<number> {
    return this.#until(() => this.sessions.endOfUser(user, reason));
  }

  async #until<T>(call: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await call();
      } catch (error) {
        passing(error);
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MILLIS));
      }
    }
  }
}

/** The facts, and the state of each session, as a consumer has them. */
export class Topic {
  readonly facts: SessionEvent[] = [];
  readonly state = new Map<string, Session>();
  /** Sessions that a new table did not have any more. */
  readonly gone = new Set<string>();
  readonly #seen = new Set<string>();
  readonly #last = new Map<string, SessionEvent>();

  handle(event: SessionEvent): void {
    const last = this.#last.get(event.sessionId);
    const name = `${event.sessionId} ${event.epoch} ${event.n}`;
    const isOld = last !== undefined && (event.epoch < last.epoch || (event.epoch === last.epoch && event.n <= last.n));
    if (isOld || this.#seen.has(name)) return;
    this.#seen.add(name);
    this.#last.set(event.sessionId, event);
    this.facts.push(event);
  }

  /** The whole table, written anew in a new reign: what is not in it has ended, and its end was lost or is old news. */
  handleTable(sessions: readonly Session[]): void {
    const live = new Set(sessions.map(({ id }) => id));
    for (const [id, { state }] of this.state) {
      if (state === 'closed' || live.has(id)) continue;
      this.gone.add(id);
      this.state.delete(id);
    }
    for (const session of sessions) this.state.set(session.id, session);
  }

  handleState(session: Session): void {
    const known = this.state.get(session.id);
    if (known !== undefined && (epochOf(session) < epochOf(known) || (epochOf(session) === epochOf(known) && session.n < known.n)))
      return;
    this.state.set(session.id, session);
  }
}

export class Outbox {
  readonly actor: Actor = { name: 'outbox', alive: true, frozenUntil: 0 };
  readonly topic = new Topic();
  readonly #stream: RedisEventStream;
  readonly #sessions: RedisSessions;
  #running = false;
  /** What no node can have at once; what the nodes that had it have not asserted, when their time is over. */
  #restore: 'unheld' | 'unasserted' | undefined;
  #asserted = 0;
  readonly #sim: Simulation;

  constructor(parts: Omit<LinkParts, 'actor'>) {
    this.#sim = parts.sim;
    const link = new Link({ ...parts, actor: this.actor });
    this.#stream = new RedisEventStream(link);
    this.#sessions = new RedisSessions({ redis: link });
    this.#sessions.onNewReign(() => {
      this.#restore = 'unheld';
      this.#asserted = this.#sim.now + WINDOW;
    });
  }

  begin(): void {
    setInterval(() => void this.#turn().catch(passing), OUTBOX_MILLIS);
  }

  async #turn(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    try {
      await this.#stream.takeLease(HOLDER, LEASE_MILLIS);
      if (this.#restore === 'unheld') await this.#giveBack();
      await this.#carry();
      if (this.#restore === 'unasserted' && this.#sim.now > this.#asserted) await this.#giveBackUp();
    } finally {
      this.#running = false;
    }
  }

  /** What no node holds is in the topic alone (CLUSTER.md C1). */
  async #giveBack(): Promise<void> {
    this.#restore = 'unasserted';
    const known = [...this.topic.state.values()].filter(({ state }) => state === 'parked' || state === 'authed');
    await this.#sessions.restore(known).catch((error: unknown) => {
      this.#restore = 'unheld';
      throw error;
    });
  }

  /** Their nodes have not said that they have them: nobody has. */
  async #giveBackUp(): Promise<void> {
    const parkedAt = BigInt(this.#sim.now);
    const known = [...this.topic.state.values()]
      .filter(({ state }) => state === 'up')
      .map((session) => ({ ...session, state: 'parked' as const, parkedAt, n: session.n + 1 }));
    await this.#sessions.restore(known);
    this.topic.handleTable(await this.#sessions.list());
    this.#restore = undefined;
  }

  async #carry(): Promise<void> {
    const { entries, reign } = await this.#stream.read(BATCH);
    const facts = entries.map(decodeEntry).filter((fact) => 'epoch' in fact);
    const records: Session[] = [];
    for (const id of new Set(facts.map(({ sessionId }) => sessionId))) {
      const session = await this.#sessions.get(id);
      if (session !== undefined) records.push(session);
    }
    // One transaction: a fact never comes without the record.
    for (const fact of facts) this.topic.handle(fact);
    for (const record of records) this.topic.handleState(record);
    const last = entries.at(-1);
    if (last !== undefined) await this.#stream.trim(HOLDER, reign, last.id);
  }
}

/** Sessions that live for a while without a tunnel, and an address for each that was ever made. */
function loginOf(token: string, user: string): NewSession {
  return sampleLogin(hashToken(token), user, {
    ...{ ipv4Pools: ['10.90.0.0/25'], ipv6Pools: [], maxSameClients: 0 },
    ...{ dpdSeconds: 0, mobileDpdSeconds: 0, idleTimeoutSeconds: 0, sessionTimeoutSeconds: 0 },
    ...{ cookieTimeoutSeconds: 90, disconnectedTimeoutSeconds: 90 },
  });
}

function passing(error: unknown): undefined {
  if (!(error instanceof StoreUnavailable)) throw error;
  return undefined;
}

const SWEEP_MILLIS = 1000;
const AGAIN_MILLIS = 300;
const OUTBOX_MILLIS = 700;
/** As WINDOW_MICROS, and a little. */
const WINDOW = 11 * SECONDS;
const BATCH = 500;
const HOLDER = 'model';
/** Longer than a run takes: one reader is enough here. */
const LEASE_MILLIS = 3_600_000;
