/*
 * What stands beside the nodes: replicas of auth that make and end sessions and sweep, and the outbox, which carries the
 * facts away and brings back what no node holds when a reign begins.
 */
import { createLog } from '@sallyport/chassis';
import {
  decodeCloudEvent,
  hashToken,
  Outbox,
  RedisEventStream,
  RedisRestore,
  RedisSessions,
  StoreUnavailable,
  type NewSession,
  type Session,
  type SessionEvent,
} from '@sallyport/cluster';
import { FakeSink, FakeTopics, sampleLogin } from '@sallyport/cluster/testing';
import type { Reason } from '@sallyport/protocol';
import { Link, type LinkParts } from './link.ts';
import type { Actor } from './simulation.ts';

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

/** The real outbox, with topics in memory in place of Kafka. */
export class Facts {
  readonly actor: Actor = { name: 'outbox', alive: true, frozenUntil: 0 };
  readonly topics = new FakeTopics();
  readonly #outbox: Outbox;

  constructor(parts: Omit<LinkParts, 'actor'>) {
    const redis = new Link({ ...parts, actor: this.actor });
    this.#outbox = new Outbox({
      ...{
        stream: new RedisEventStream(redis),
        table: new RedisSessions({ redis }),
        restore: new RedisRestore(redis),
      },
      ...{ sink: new FakeSink(this.topics), cluster: 'model', holder: 'model', leaseMs: LEASE_MILLIS },
      clock: () => BigInt(parts.sim.now),
      log: createLog({ name: 'model', level: 'silent' }),
    });
  }

  begin(): void {
    let running = false;
    setInterval(() => {
      if (running) return;
      running = true;
      void this.#outbox.round().finally(() => (running = false));
    }, OUTBOX_MILLIS);
  }

  /** What a consumer has read: each fact once, without old news. */
  read(): SessionEvent[] {
    const read: SessionEvent[] = [];
    const last = new Map<string, SessionEvent>();
    for (const { headers, value } of this.topics.of('facts')) {
      const fact = decodeCloudEvent(headers['ce_type'] ?? '', value ?? '');
      if (fact?.kind !== 'session') continue;
      const { event } = fact;
      const known = last.get(event.sessionId);
      if (known !== undefined && !isAfter(event, known)) continue;
      last.set(event.sessionId, event);
      read.push(event);
    }
    return read;
  }
}

function isAfter(a: SessionEvent, b: SessionEvent): boolean {
  return a.epoch === b.epoch ? a.n > b.n : a.epoch > b.epoch;
}

/** Sessions that live for a while without a tunnel, and an address for each that was ever made. */
function loginOf(token: string, user: string): NewSession {
  return sampleLogin(hashToken(token), user, {
    ...{ ipv4Pools: ['10.90.0.0/25'], ipv6Pools: [], maxSameClients: 0 },
    ...{ dpdSeconds: 0, mobileDpdSeconds: 0, idleTimeoutSeconds: 0, sessionTimeoutSeconds: 0 },
    ...{ cookieTimeoutSeconds: 60, disconnectedTimeoutSeconds: 60 },
  });
}

function passing(error: unknown): undefined {
  if (!(error instanceof StoreUnavailable)) throw error;
  return undefined;
}

const SWEEP_MILLIS = 1000;
const AGAIN_MILLIS = 300;
const OUTBOX_MILLIS = 1000;
/** Longer than a run takes: one reader is enough here. */
const LEASE_MILLIS = 3_600_000;
