/* What a Redis promised when the process started may be taken back while it runs: CONFIG SET, a failover to a careless replica. */
import type { Log, Metrics } from '@sallyport/chassis';
import { checkServer } from './redis-checks.ts';
import type { RedisSettings } from './redis-settings.ts';
import { StoreUnavailable } from './sessions.ts';

export interface RedisWatchParts {
  call: (command: string, ...args: string[]) => Promise<unknown>;
  settings: Pick<RedisSettings, 'promises' | 'eventsMaxBytes'>;
  log: Log;
  metrics: Metrics;
}

/** Looks each minute at what `checkServer` looked at. Nobody is refused for it: sessions that are there go on. */
export class RedisWatch {
  readonly #parts: RedisWatchParts;
  readonly #timer: NodeJS.Timeout;
  #problems: readonly string[] = [];
  #looking = false;

  constructor(parts: RedisWatchParts) {
    this.#parts = parts;
    parts.metrics.gauge(
      'sallyport_redis_problems',
      'Settings of Redis that put sessions at risk; the log names them.',
      [],
      (gauge) => gauge.set(this.#problems.length),
    );
    this.#timer = setInterval(() => void this.look(), LOOK_MS).unref();
  }

  /** Called by its own clock. Warns of each problem once while it lasts. */
  async look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    const { call, settings, log } = this.#parts;
    try {
      const problems = await checkServer(call, settings.promises, settings.eventsMaxBytes);
      for (const problem of problems)
        if (!this.#problems.includes(problem))
          log.warn({ problem }, 'a setting of Redis was changed, and sessions are at risk');
      if (problems.length === 0 && this.#problems.length > 0)
        log.info({}, 'the settings of Redis are good again');
      this.#problems = problems;
    } catch (error) {
      // One that is away is told elsewhere.
      if (!(error instanceof StoreUnavailable))
        log.warn({ err: error }, 'the settings of Redis could not be read');
    } finally {
      this.#looking = false;
    }
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

const LOOK_MS = 60_000;
