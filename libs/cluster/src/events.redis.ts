/**
 * Facts of the whole cluster, for operators and counters. Session events are appended to the stream by the scripts that
 * change the state; occurrences are appended here. Each process follows the stream and keeps the last facts, so that asking
 * for them costs the store nothing.
 *
 * Where an outbox sends to Kafka it trims what Kafka has, and may be faster than a follower: Kafka has all of it
 * (`sallyport events tail`), and the last login of each user is kept beside the stream.
 */
import type { Log } from '@sallyport/chassis';
import { MemoryEventLog } from './events.memory.ts';
import type { EventLog, Fact, Occurrence } from './events.ts';
import { decodeEvent } from './journal-lines.ts';
import type { Redis } from './redis.ts';

export class RedisEventLog implements EventLog {
  readonly #redis: Redis;
  readonly #log: Log;
  readonly #memory = new MemoryEventLog();
  readonly #timer: NodeJS.Timeout;
  readonly #waiting: Occurrence[] = [];
  #lastId: string;
  #reading = false;
  #writing = false;
  #lost = 0;

  private constructor(redis: Redis, log: Log, lastId: string) {
    this.#redis = redis;
    this.#log = log;
    this.#lastId = lastId;
    this.#timer = setInterval(() => {
      void this.#read();
      void this.#write();
    }, FOLLOW_MS);
    this.#timer.unref();
  }

  /** With the last facts of the stream. */
  static async open(redis: Redis, log: Log): Promise<RedisEventLog> {
    const newest = entriesOf(
      await redis.call('XREVRANGE', `${redis.prefix}events`, '+', '-', 'COUNT', FACTS_AT_START),
    );
    const events = new RedisEventLog(redis, log, newest[0]?.id ?? '0');
    events.#keep(newest.reverse());
    return events;
  }

  append(facts: readonly Fact[]): void {
    for (const fact of facts) {
      // Transitions are in the stream already: the script that made them put them there.
      if ('sessionId' in fact && fact.type !== 'auth.succeeded') continue;
      if (this.#waiting.length < MAX_WAITING) this.#waiting.push(fact);
      else this.#lost += 1;
    }
    void this.#write();
  }

  recent(limit: number): Fact[] {
    return this.#memory.recent(limit);
  }

  follow(deliver: (fact: Fact) => void): () => void {
    return this.#memory.follow(deliver);
  }

  async lastLogins(user: string): Promise<Occurrence[]> {
    const values = await this.#redis.call(
      'MGET',
      ...LOGIN_TYPES.map((type) => `${this.#redis.prefix}last:${type}:${user}`),
    );
    return Array.isArray(values) ? values.flatMap((text) => occurrenceOf(text) ?? []) : [];
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** Facts wait while the store is away; beyond a limit they are counted and dropped. */
  async #write(): Promise<void> {
    if (this.#writing) return;
    this.#writing = true;
    try {
      for (let fact = this.#waiting[0]; fact; fact = this.#waiting[0]) {
        await this.#store(fact);
        this.#waiting.shift();
      }
      if (this.#lost > 0) this.#log.warn({ lost: this.#lost }, 'facts were lost while the store was away');
      this.#lost = 0;
    } catch {
      // The next turn tries again.
    } finally {
      this.#writing = false;
    }
  }

  async #store(fact: Occurrence): Promise<void> {
    const text = textOf(fact);
    await this.#redis.call(
      ...(['XADD', `${this.#redis.prefix}events`, '*', 'k', '', 't', fact.type, 'd', text] as const),
    );
    // Only of users whom we know: names that somebody invents must not fill the store.
    if ((fact.type === 'auth.failed' || fact.type === 'auth.succeeded') && fact.user !== '')
      await this.#redis.call(
        ...([
          'SET',
          `${this.#redis.prefix}last:${fact.type}:${fact.user}`,
          text,
          'EX',
          LAST_LOGIN_SECONDS,
        ] as const),
      );
  }

  async #read(): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    try {
      for (;;) {
        const found = entriesOf(
          await this.#redis.call(
            ...(['XRANGE', `${this.#redis.prefix}events`, `(${this.#lastId}`, '+', 'COUNT', PAGE] as const),
          ),
        );
        this.#keep(found);
        this.#lastId = found.at(-1)?.id ?? this.#lastId;
        if (found.length < PAGE) return;
      }
    } catch {
      // The store is away: the next turn goes on where this one stopped.
    } finally {
      this.#reading = false;
    }
  }

  #keep(entries: readonly Entry[]): void {
    const facts: Fact[] = [];
    for (const { type, sessionId, data } of entries) {
      try {
        const fact = sessionId === '' ? occurrenceOf(data) : decodeEvent(data);
        if (fact) facts.push(fact);
      } catch {
        // One of a newer release: it is for those that know it.
        this.#log.debug({ type }, 'a fact that this release does not know');
      }
    }
    this.#memory.append(facts);
  }
}

interface Entry {
  id: string;
  sessionId: string;
  type: string;
  data: string;
}

/** As XRANGE gives them: `[id, [field, value, …]]`. */
function entriesOf(reply: unknown): Entry[] {
  if (!Array.isArray(reply)) return [];
  return reply.flatMap((item: unknown) => {
    if (!Array.isArray(item) || !Array.isArray(item[1])) return [];
    const fields = new Map<string, string>();
    for (let at = 0; at + 1 < item[1].length; at += 2)
      fields.set(String(item[1][at]), String(item[1][at + 1]));
    const get = (name: string) => fields.get(name) ?? '';
    return [{ id: String(item[0]), sessionId: get('k'), type: get('t'), data: get('d') }];
  });
}

/** Whole numbers of 64 bits as text. */
function textOf(fact: Occurrence): string {
  return JSON.stringify(fact, (_key, value: unknown) => (typeof value === 'bigint' ? String(value) : value));
}

function occurrenceOf(text: unknown): Occurrence | undefined {
  if (typeof text !== 'string') return undefined;
  const value = JSON.parse(text) as Occurrence & { at: string }; // textOf wrote it
  return { ...value, at: BigInt(value.at) };
}

const LOGIN_TYPES = ['auth.failed', 'auth.succeeded'] as const;
const FOLLOW_MS = 250;
const PAGE = 500;
const FACTS_AT_START = 1000;
/** While the store is away. */
export const MAX_WAITING = 10_000;
const LAST_LOGIN_SECONDS = 30 * 24 * 3600;
