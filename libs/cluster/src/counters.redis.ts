import { randomBytes } from 'node:crypto';
import type { Counters } from './counters.ts';
import type { Redis } from './redis.ts';
import { loadScript } from './scripts.ts';
import { seconds } from './session-decisions.ts';

/** Counts of a whole cluster, in Redis. */
export class RedisCounters implements Counters {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  async add(kind: string, key: string, spanSeconds: number): Promise<number> {
    const op = randomBytes(OP_BYTES).toString('base64url');
    return this.#run({ verb: 'add', kind, key, span: seconds(spanSeconds), op });
  }

  read(kind: string, key: string): Promise<number> {
    return this.#run({ verb: 'read', kind, key });
  }

  async clear(kind: string, key: string): Promise<void> {
    await this.#run({ verb: 'clear', kind, key });
  }

  async #run(args: object): Promise<number> {
    const [count] = await this.#redis.run(SCRIPT, args);
    return Number(count);
  }
}

const SCRIPT = loadScript('counters');
const OP_BYTES = 6;
