import type { Log } from './log.ts';
import { errorFields, StartError } from './faults.ts';

/**
 * What init systems and operators expect of a process:
 *
 *   SIGTERM, SIGINT   planned stop, then exit 0; a second one ends the process at once (unless it is an echo: a terminal,
 *                     npm and a supervisor may each pass on the same one)
 *   SIGHUP            reload
 *   SIGPIPE           ignored (Node's default): a peer that is gone is an error of its socket
 */
export interface ServiceHooks {
  /** Planned stop; called once. The process exits when it has resolved, or after `deadlineMs`. */
  stop(): Promise<void>;
  reload(): Promise<unknown>;
}

export interface Service {
  /** The same as SIGTERM, for an admin command. Resolves never: the process ends. */
  stop(): void;
}

/** @param exit for tests. */
export function runService(
  hooks: ServiceHooks,
  { log, title, deadlineMs = STOP_DEADLINE_MS, exit = (code) => process.exit(code) }: ServiceOptions,
): Service {
  process.title = title;
  let stopping = false;
  let toldAt = 0;
  const stop = (signal: string) => {
    if (stopping) {
      if (performance.now() - toldAt < ECHO_MS) return;
      log.warn({ signal }, 'told twice to stop, ending at once');
      return exit(SECOND_SIGNAL_EXIT);
    }
    stopping = true;
    toldAt = performance.now();
    log.info({ signal }, 'stopping');
    const deadline = setTimeout(() => {
      log.error({ deadlineMs }, 'the stop took too long, ending at once');
      exit(LATE_STOP_EXIT);
    }, deadlineMs);
    void Promise.resolve()
      .then(() => hooks.stop())
      .then(
        () => 0,
        (fault: unknown) => {
          log.error({ err: errorFields(fault) }, 'the stop failed');
          return LATE_STOP_EXIT;
        },
      )
      .then((code) => {
        clearTimeout(deadline);
        exit(code);
      });
  };
  let reloading: Promise<unknown> = Promise.resolve();
  let isReloadDue = false;
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  process.on('SIGHUP', () => {
    // One after the other, so that the last file read is the one in use; one that has not begun stands for all that come.
    if (isReloadDue) return;
    isReloadDue = true;
    reloading = reloading
      .then(() => {
        isReloadDue = false;
        return stopping ? undefined : hooks.reload();
      })
      .catch((fault: unknown) => log.error({ err: errorFields(fault) }, 'the reload failed'));
  });
  return { stop: () => stop('command') };
}

export interface ServiceOptions {
  log: Log;
  /** As `ps` shows it. */
  title: string;
  deadlineMs?: number;
  exit?: (code: number) => void;
}

/**
 * The TUN package keeps one thread of libuv's pool; hashing, files and name look-ups need the others. libuv reads the
 * size when the pool is first used, so `bin/sallyport` sets it before Node starts.
 * @param size value of UV_THREADPOOL_SIZE.
 */
export function checkThreadPool(size: string | undefined): void {
  if (Number(size ?? DEFAULT_THREADS) >= MIN_THREADS) return;
  throw new StartError(
    `UV_THREADPOOL_SIZE is ${size ?? 'not set'}, and the gateway needs ${MIN_THREADS}: start it with bin/sallyport, which sets it.`,
  );
}

export const MIN_THREADS = 8;
const DEFAULT_THREADS = 4;
/** systemd kills after 90 s, Kubernetes after 30 s. */
export const STOP_DEADLINE_MS = 20_000;
const ECHO_MS = 250;
const SECOND_SIGNAL_EXIT = 1;
const LATE_STOP_EXIT = 1;
