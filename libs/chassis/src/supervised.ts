import { writeSync } from 'node:fs';

/** A socket that was opened by someone who outlives this process: systemd, or sallyport-supervisor. */
export interface InheritedSocket {
  fd: number;
  /** From LISTEN_FDNAMES: `tcp` and `udp` of our supervisor, `FileDescriptorName=` of systemd; '' = none given. */
  name: string;
}

/**
 * This process seen from above: sockets by the LISTEN_FDS convention (sd_listen_fds(3)), and the supervisor's watchdog,
 * which is told by single bytes in a pipe that the event loop turns, that the process is ready, that it stops as planned.
 * Without one above, all of it does nothing.
 */
export class Supervision {
  readonly sockets: readonly InheritedSocket[];
  /** How many times the process was started, this one included. */
  readonly starts: number;
  readonly #pipe: number | undefined;
  readonly #feeder: NodeJS.Timeout | undefined;
  #fedAt = -Infinity;

  /**
   * Takes the variables out of `env`, so that programs which this one starts do not take its sockets for theirs.
   * @param pid of this process; LISTEN_PID must be the same. 0 is taken too: a launcher does not know it before.
   */
  static take(env: NodeJS.ProcessEnv, pid: number): Supervision {
    const values = VARIABLES.map((name) => env[name]);
    for (const name of VARIABLES) delete env[name];
    const [listenPid, listenCount, listenNames, pipe, starts] = values;
    const isForUs = listenPid === String(pid) || listenPid === '0';
    const count = isForUs ? (wholeNumber(listenCount) ?? 0) : 0;
    const names = listenNames?.split(':') ?? [];
    const sockets = Array.from({ length: Math.min(count, MAX_SOCKETS) }, (_, at) => ({
      fd: FIRST_FD + at,
      name: names[at] ?? '',
    }));
    return new Supervision(sockets, wholeNumber(pipe), wholeNumber(starts) ?? 1);
  }

  private constructor(sockets: InheritedSocket[], pipe: number | undefined, starts: number) {
    this.sockets = sockets;
    this.starts = starts;
    this.#pipe = pipe;
    if (pipe === undefined) return;
    this.alive();
    this.#feeder = setInterval(() => this.alive(), FEED_MS);
    this.#feeder.unref();
  }

  /** The socket for clients. */
  get tcp(): InheritedSocket | undefined {
    return this.sockets.find(({ name }) => name !== 'udp');
  }

  /**
   * The event loop turns. Called by a timer; work that keeps the loop busy for long in one turn calls it, too, as each
   * piece of it is done. Cheap.
   */
  alive(): void {
    const now = performance.now();
    if (this.#pipe === undefined || now - this.#fedAt < FEED_MS / 2) return;
    this.#fedAt = now;
    this.#tell('.');
  }

  /** From now on silence is death. */
  ready(): void {
    this.#tell('R');
  }

  /** The end that follows is meant: the supervisor ends with this process. */
  stopping(): void {
    this.#tell('S');
  }

  #tell(word: string): void {
    if (this.#pipe === undefined) return;
    try {
      writeSync(this.#pipe, word);
    } catch {
      // Full: the supervisor is paused, and forgives. Closed: it is gone, and takes this process along.
    }
  }
}

function wholeNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,9}$/.test(text) ? Number(text) : undefined;
}

const VARIABLES = [
  'LISTEN_PID',
  'LISTEN_FDS',
  'LISTEN_FDNAMES',
  'SALLYPORT_WATCHDOG_FD',
  'SALLYPORT_STARTS',
] as const;
/** sd_listen_fds(3). */
const FIRST_FD = 3;
const MAX_SOCKETS = 32;
/** A quarter of the supervisor's patience. */
export const FEED_MS = 500;
