import type { StateMark } from './event-sink.ts';
import { PUT_BACK_SLICE, puttingBack } from './putting-back.ts';
import { RESTORE_MICROS, type Reply, type Scripts } from './redis.ts';
import type { RestoreCounts, RestoreFence, RestoreTable } from './restore.ts';
import { loadScript } from './scripts.ts';
import type { Session } from './session.ts';

export class RedisRestore implements RestoreTable {
  readonly #redis: Scripts;
  readonly #limit: bigint;

  /** @param redis stays the caller's. @param limit µs that claims of unknown tokens wait at most. */
  constructor(redis: Scripts, limit = RESTORE_MICROS) {
    this.#redis = redis;
    this.#limit = limit;
  }

  async begin(fence: RestoreFence): Promise<{ upTo: string; asserting: boolean }> {
    const [upTo, asserting] = await this.#run('begin', fence, { limit: this.#limit });
    return { upTo: String(upTo), asserting: asserting === 1 };
  }

  async missing(fence: RestoreFence, marks: ReadonlyMap<string, StateMark>): Promise<string[]> {
    const all = [...marks].map(([id, { epoch, n }]) => ({ id, e: epoch, n }));
    const missing: string[] = [];
    for (let at = 0; at < all.length; at += MISSING_SLICE) {
      const slice = all.slice(at, at + MISSING_SLICE);
      missing.push(...(await this.#run('missing', fence, { marks: slice })).map(String));
    }
    return missing;
  }

  async write(fence: RestoreFence, sessions: readonly Session[], away: bigint): Promise<RestoreCounts> {
    const counts = { restored: 0, ended: 0, kept: 0 };
    for (let at = 0; at < sessions.length; at += PUT_BACK_SLICE) {
      const { records, grants } = puttingBack(sessions.slice(at, at + PUT_BACK_SLICE));
      for (const answer of await this.#run('write', fence, { records, grants, away }, true)) {
        if (answer === 'restored') counts.restored++;
        else if (answer === 'kept') counts.kept++;
        else counts.ended++;
      }
    }
    return counts;
  }

  async release(fence: RestoreFence): Promise<void> {
    await this.#run('release', fence, {});
  }

  async finish(fence: RestoreFence): Promise<void> {
    await this.#run('finish', fence, {});
  }

  #run(how: string, { holder, reign }: RestoreFence, args: object, confirm = false): Promise<Reply> {
    return this.#redis.run(RESTORE_SCRIPT, { how, holder, reign, ...args }, { confirm });
  }
}

/** For the model, too, which changes it. */
export const RESTORE_SCRIPT = loadScript('restore', ['records', 'addresses', 'putting-back']);
/** Sessions that one script looks at. */
const MISSING_SLICE = 200;
