import type { EventStream, StreamBatch, StreamGap, StreamSize } from './event-stream.ts';
import type { Scripts } from './redis.ts';
import { loadScript } from './scripts.ts';
import { StoreUnavailable } from './sessions.ts';

/** The stream that the scripts of the session table append to. */
export class RedisEventStream implements EventStream {
  readonly #redis: Scripts;

  /** @param redis stays the caller's. */
  constructor(redis: Scripts) {
    this.#redis = redis;
  }

  async takeLease(holder: string, millis: number): Promise<boolean> {
    return isDone(await this.#run({ how: 'lease', holder, millis }));
  }

  async dropLease(holder: string): Promise<void> {
    await this.#run({ how: 'unlease', holder });
  }

  async read(limit: number): Promise<StreamBatch> {
    // What a replica has not yet is not read: Kafka must not hold facts that a failover undoes.
    const reply = await this.#run({ how: 'read', limit }, true);
    const [reign = '', count = 0, from = '', to = '', at = '', settled, ...rest] = reply;
    const entries: StreamBatch['entries'] = [];
    for (let i = 0; i + ENTRY_FIELDS <= rest.length; i += ENTRY_FIELDS) {
      const [id = '', sessionId = '', type = '', data = ''] = rest.slice(i, i + ENTRY_FIELDS).map(String);
      entries.push({ id, sessionId, type, data });
    }
    const gap =
      Number(count) > 0
        ? { count: Number(count), from: String(from), to: String(to), at: BigInt(at) }
        : undefined;
    return { reign: String(reign), settled: settled === 1, gap, entries };
  }

  async trim(holder: string, reign: string, upTo: string): Promise<boolean> {
    return isDone(await this.#run({ how: 'trim', holder, reign, upTo }));
  }

  async size(): Promise<StreamSize> {
    const [entries, bytes, lagMillis, held] = await this.#run({ how: 'size' });
    return {
      entries: Number(entries),
      bytes: Number(bytes),
      lagMillis: Number(lagMillis),
      statsHeld: held === 1,
    };
  }

  async holdStats(hold: boolean): Promise<void> {
    await this.#run({ how: 'hold', hold });
  }

  async dropOldest(count: number): Promise<number> {
    let dropped = 0;
    while (dropped < count) {
      const [slice] = await this.#run({ how: 'drop', limit: Math.min(DROP_SLICE, count - dropped) });
      if (Number(slice) === 0) break;
      dropped += Number(slice);
    }
    return dropped;
  }

  async clearGap(holder: string, gap: StreamGap): Promise<boolean> {
    return isDone(await this.#run({ how: 'clear', holder, count: gap.count, to: gap.to }));
  }

  async #run(args: object, confirm = false): Promise<(string | number)[]> {
    if (this.#redis.closed) throw new StoreUnavailable('the connection to Redis is closed');
    return this.#redis.run(EVENTS, args, { confirm });
  }
}

function isDone([done]: (string | number)[]): boolean {
  return done === 1;
}

const EVENTS = loadScript('events');
const ENTRY_FIELDS = 4;
/** Entries that one script gives up: Redis serves nobody else meanwhile. */
const DROP_SLICE = 500;
