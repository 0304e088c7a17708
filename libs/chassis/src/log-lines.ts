import { writeSync } from 'node:fs';

/**
 * Lines to a descriptor whose reader may be slow or stuck, without ever waiting for it: what the kernel does not take
 * waits here, up to `MAX_WAITING_BYTES`, and what comes then is dropped and counted.
 */
export class LogLines {
  readonly #fd: number;
  readonly #dropped: (lines: number) => string;
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #droppedLines = 0;
  #timer: NodeJS.Timeout | undefined;

  /** @param fd does not block. @param dropped the line that says how many were dropped. */
  constructor(fd: number, dropped: (lines: number) => string) {
    this.#fd = fd;
    this.#dropped = dropped;
    process.on('exit', () => this.#flushAtExit());
  }

  write(line: string): void {
    if (this.#waitingBytes > 0) this.#flush();
    const bytes = Buffer.from(line);
    if (this.#waitingBytes + bytes.length > MAX_WAITING_BYTES) {
      this.#droppedLines += 1;
      return;
    }
    this.#add(bytes);
    this.#flush();
  }

  #add(bytes: Buffer): void {
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
  }

  /** Writes what the kernel takes. */
  #flush(): void {
    for (let first = this.#waiting[0]; first; first = this.#waiting[0]) {
      const written = writeSome(this.#fd, first);
      if (written < first.length) {
        this.#waiting[0] = first.subarray(written);
        this.#waitingBytes -= written;
        return this.#tryLater();
      }
      this.#waiting.shift();
      this.#waitingBytes -= first.length;
      if (this.#waiting.length === 0 && this.#droppedLines > 0) {
        this.#add(Buffer.from(this.#dropped(this.#droppedLines)));
        this.#droppedLines = 0;
      }
    }
  }

  #tryLater(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#flush();
    }, RETRY_MS).unref();
  }

  /** A reader that is only slow gets the last lines; one that is stuck does not keep the process. */
  #flushAtExit(): void {
    const end = performance.now() + EXIT_MS;
    this.#flush();
    while (this.#waiting.length > 0 && performance.now() < end) {
      Atomics.wait(SLEEPER, 0, 0, RETRY_MS);
      this.#flush();
    }
  }
}

/** @returns how many bytes were taken; a reader that is gone, or a full disk, takes all and keeps none. */
function writeSome(fd: number, bytes: Buffer): number {
  try {
    return writeSync(fd, bytes);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : '';
    return code === 'EAGAIN' || code === 'EINTR' ? 0 : bytes.length;
  }
}

export const MAX_WAITING_BYTES = 1_048_576;
const RETRY_MS = 20;
const EXIT_MS = 500;
const SLEEPER = new Int32Array(new SharedArrayBuffer(4));
