import type { Log } from '@sallyport/chassis';
import type { EventStream, StreamSize } from './event-stream.ts';
import { DEFAULT_EVENTS_MAX_BYTES } from './redis-settings.ts';

/** `full`: facts were given up. */
export type StreamLevel = 'normal' | 'stats-held' | 'full';

/**
 * Keeps the stream of facts below a number of bytes (CLUSTER.md C11), far below what the store may use: first the scripts
 * stop appending interim statistics, then the oldest entries are given up for one gap. With and without Kafka.
 */
export class StreamCap {
  readonly #stream: EventStream;
  readonly #capBytes: number;

  constructor(stream: EventStream, capBytes = DEFAULT_EVENTS_MAX_BYTES) {
    this.#stream = stream;
    this.#capBytes = capBytes;
  }

  /** Called about once a second by the reader that has the lease. @throws StoreUnavailable */
  async check(): Promise<StreamSize & { level: StreamLevel }> {
    let size = await this.#stream.size();
    const { entries, bytes } = size;
    const full = bytes >= this.#capBytes && entries > 0;
    // What the store says counts, not what this reader did: another one may have held them and died.
    let held = size.statsHeld;
    if (bytes >= this.#capBytes * HOLD_STATS_AT) held = true;
    else if (bytes < this.#capBytes * ALLOW_STATS_BELOW) held = false;
    if (held !== size.statsHeld) await this.#stream.holdStats(held);
    if (full) {
      const excess = 1 - (this.#capBytes * DROP_TO) / bytes;
      await this.#stream.dropOldest(Math.max(1, Math.ceil(entries * excess)));
      size = await this.#stream.size();
    }
    return { ...size, statsHeld: held, level: full ? 'full' : held ? 'stats-held' : 'normal' };
  }
}

/**
 * Without Kafka: nobody reads, and the stream keeps the newest facts within its cap.
 * @returns how to stop.
 */
export function keepCapped(stream: EventStream, log: Log, capBytes = DEFAULT_EVENTS_MAX_BYTES): () => void {
  const cap = new StreamCap(stream, capBytes);
  let busy = false;
  const check = async () => {
    if (busy) return;
    busy = true;
    try {
      await cap.check();
    } catch (error) {
      log.debug({ err: error }, 'the event stream could not be looked at');
    } finally {
      busy = false;
    }
  };
  const timer = setInterval(() => void check(), CHECK_MS).unref();
  return () => clearInterval(timer);
}

const CHECK_MS = 5000;
const HOLD_STATS_AT = 0.75;
const ALLOW_STATS_BELOW = 0.5;
const DROP_TO = 0.9;
