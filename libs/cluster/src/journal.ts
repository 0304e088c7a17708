/*
 * The journal: lines of JSON in `sessions.jsonl`, appended in batches, each with one fdatasync
 * (docs/decisions/0001-journal.md).
 *
 * Read:    a last line that was torn by a crash is dropped; any other broken line refuses the start as FILE:LINE.
 * Append:  always at the end of what is known to be good, so the rest of a failed write is overwritten.
 * Rewrite: snapshot to `sessions.jsonl.new`, sync, rename, sync of the folder. Appends go on meanwhile; they follow
 *          the snapshot in the new file. After a failed sync nothing in the old file can be relied on: it is rewritten
 *          before anything else is promised.
 */
import type { FileHandle } from 'node:fs/promises';
import { chmod, mkdir, open, rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Entry } from './journal-lines.ts';
import { Checked, decodeLine, MalformedLine } from './journal-lines.ts';
import { JournalError, JournalLock } from './journal-lock.ts';

export interface JournalOptions {
  /** Told when a write or a rewrite failed, once until one succeeds. After a failed rewrite the old file goes on. */
  onProblem?: (message: string) => void;
  /** Rewritten when the file is above this and JOURNAL_GROWTH times its last snapshot, bytes. */
  rewriteAboveBytes?: number;
  /** How files for writing are made. */
  openFile?: (path: string) => Promise<JournalFile>;
}

/** What the journal needs of a file that it writes. */
export interface JournalFile {
  /** Writes all of `data` at `position`, or rejects. */
  write(data: Uint8Array, position: number): Promise<void>;
  /** Data and length are on the disk. */
  sync(): Promise<void>;
  truncate(length: number): Promise<void>;
  close(): Promise<void>;
}

/** The one writer of a journal folder. */
export class Journal {
  readonly #path: string;
  readonly #folder: string;
  readonly #lock: JournalLock;
  readonly #options: JournalOptions;
  #file: JournalFile | undefined;
  /** Good bytes in the file, and those of its snapshot. */
  #bytes = 0;
  #snapshotBytes = 0;
  #torn = false;
  /** The last good line lacks its end: the next one must begin with it. */
  #unended = false;
  #suspect = false;
  #dropped = 0;
  /** Of the last replay: bytes up to the last good line, and whether that one lacks its end. */
  #replayed = { bytes: 0, unended: false };
  /** What was said last and is not over. */
  #problem = '';
  #rewriteAbove: number;
  #rewriting: Promise<void> | undefined;
  /** Lines appended since the snapshot that is being written. */
  #tail: Uint8Array[] | undefined;
  /** Appends and the change of files, one after the other. */
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;

  private constructor(folder: string, lock: JournalLock, options: JournalOptions) {
    this.#folder = folder;
    this.#path = join(folder, JOURNAL_FILE);
    this.#lock = lock;
    this.#options = options;
    this.#rewriteAbove = options.rewriteAboveBytes ?? REWRITE_ABOVE_BYTES;
  }

  /** @param folder made if missing, mode 0700. @throws JournalError when another process writes there. */
  static async open(folder: string, options: JournalOptions = {}): Promise<Journal> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    return new Journal(folder, await JournalLock.take(folder), options);
  }

  /** Torn lines that `replay` dropped. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Is it time for a rewrite? */
  get grown(): boolean {
    if (this.#rewriting !== undefined || this.#closed) return false;
    return this.#bytes > Math.max(this.#rewriteAbove, JOURNAL_GROWTH * this.#snapshotBytes);
  }

  /** A sync failed: rewrite before the next append. */
  get suspect(): boolean {
    return this.#suspect;
  }

  /** Size of the file in bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Gives all entries, oldest first.
   * @throws JournalError `FILE:LINE: why` for a broken line and for an entry that `take` finds impossible or too new.
   */
  async replay(take: (entry: Entry) => void): Promise<void> {
    this.#dropped = 0;
    this.#replayed = { bytes: 0, unended: false };
    const file = await openExisting(this.#path);
    if (file === undefined) return;
    try {
      let broken: { number: number; error: MalformedLine } | undefined;
      let number = 0;
      const checked = new Checked();
      for await (const { line, bytes, ended } of linesOf(file, this.#path)) {
        number++;
        if (broken !== undefined) throw this.#refusal(broken.number, broken.error);
        try {
          take(decodeLine(line, checked));
          this.#replayed = { bytes, unended: !ended };
        } catch (error) {
          if (!(error instanceof MalformedLine) || !error.torn) throw this.#refusal(number, error);
          broken = { number, error };
        }
      }
      if (broken !== undefined) this.#dropped = 1;
    } finally {
      await file.close();
    }
  }

  /** @param sync resolve when they are on the disk. @throws the write's error; none of the lines counts then. */
  append(lines: readonly string[], sync: boolean): Promise<void> {
    const text = lines.map((line) => `${line}\n`).join('');
    return this.#inTurn(async () => {
      const file = this.#file;
      if (file === undefined || this.#closed) throw new JournalError(`${this.#path} is not open`);
      if (this.#suspect) throw new JournalError(`${this.#path} must be rewritten first: a sync failed`);
      if (this.#torn) await file.truncate(this.#bytes);
      this.#torn = true;
      const data = Buffer.from(text);
      const written = this.#unended ? Buffer.from(`\n${text}`) : data;
      try {
        await file.write(written, this.#bytes);
        if (sync) await this.#sync(file);
      } catch (error) {
        this.#report(`${this.#path} cannot be written: ${messageOf(error)}`);
        throw error;
      }
      this.#torn = false;
      this.#unended = false;
      this.#problem = '';
      this.#bytes += written.length;
      this.#tail?.push(data);
    });
  }

  /**
   * Goes on in the file that was replayed, after a rewrite failed: what follows is appended to it.
   * @returns false: there is none, or it cannot be written.
   */
  async resume(): Promise<boolean> {
    if (this.#file !== undefined) return true; // the new file is in place, but its folder was not synced
    const handle = await open(this.#path, 'r+').catch(() => undefined);
    if (handle === undefined) return false;
    this.#file = journalFile(handle);
    this.#bytes = this.#replayed.bytes;
    this.#unended = this.#replayed.unended;
    this.#torn = true; // whatever replay dropped at the end
    return true;
  }

  /** Puts a snapshot in the place of all lines. One at a time: a second call waits for the running one. */
  rewrite(lines: Iterable<string>): Promise<void> {
    this.#rewriting ??= this.#rewrite(lines).finally(() => {
      this.#rewriting = undefined;
      this.#tail = undefined;
    });
    return this.#rewriting;
  }

  /** See JournalLock. */
  async touch(): Promise<void> {
    await this.#lock.touch();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    await this.#rewriting?.catch(() => undefined);
    this.#closed = true;
    await this.#inTurn(async () => {
      await this.#file?.close();
      this.#file = undefined;
    });
    await this.#lock.release();
  }

  async #rewrite(lines: Iterable<string>): Promise<void> {
    const path = `${this.#path}.new`;
    const tail: Uint8Array[] = [];
    this.#tail = tail;
    let next: JournalFile | undefined;
    try {
      next = await (this.#options.openFile ?? createJournalFile)(path);
      const snapshotBytes = await writeLines(next, lines);
      await next.sync();
      await this.#takeOver(next, path, snapshotBytes, tail);
    } catch (cause) {
      if (next !== this.#file) await next?.close().catch(() => undefined);
      await unlink(path).catch(() => undefined);
      this.#rewriteAbove = Math.max(this.#rewriteAbove, this.#bytes * 2);
      const error = new JournalError(`${this.#path} cannot be rewritten: ${messageOf(cause)}`, { cause });
      this.#report(error.message);
      throw error;
    }
  }

  #takeOver(next: JournalFile, path: string, snapshotBytes: number, tail: Uint8Array[]): Promise<void> {
    return this.#inTurn(async () => {
      const rest = Buffer.concat(tail);
      if (rest.length > 0) {
        await next.write(rest, snapshotBytes);
        await next.sync();
      }
      await rename(path, this.#path);
      const old = this.#file;
      this.#file = next;
      this.#snapshotBytes = snapshotBytes;
      this.#bytes = snapshotBytes + rest.length;
      this.#rewriteAbove = this.#options.rewriteAboveBytes ?? REWRITE_ABOVE_BYTES;
      this.#torn = false;
      this.#unended = false;
      this.#suspect = true; // until the folder's entry is on the disk too
      await old?.close().catch(() => undefined);
      await syncFolder(this.#folder);
      this.#suspect = false;
      this.#problem = '';
    });
  }

  #report(problem: string): void {
    if (problem !== this.#problem) this.#options.onProblem?.(problem);
    this.#problem = problem;
  }

  async #sync(file: JournalFile): Promise<void> {
    try {
      await file.sync();
    } catch (error) {
      this.#suspect = true; // the kernel may have dropped any page that was not on the disk yet
      throw error;
    }
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => undefined);
    return done;
  }

  #refusal(line: number, error: unknown): Error {
    return new JournalError(`${this.#path}:${line}: ${messageOf(error)}`, { cause: error });
  }
}

/** A new, empty file of mode 0600. */
export async function createJournalFile(path: string): Promise<JournalFile> {
  const handle = await open(path, 'w', 0o600);
  await chmod(path, 0o600); // also when a rest of an earlier try is there
  return journalFile(handle);
}

function journalFile(handle: FileHandle): JournalFile {
  return {
    async write(data, position) {
      let done = 0;
      while (done < data.length) {
        const { bytesWritten } = await handle.write(data, done, data.length - done, position + done);
        done += bytesWritten;
      }
    },
    sync: () => handle.datasync(),
    truncate: (length) => handle.truncate(length),
    close: () => handle.close(),
  };
}

export const JOURNAL_FILE = 'sessions.jsonl';
/** A journal below this is never rewritten while it runs, bytes. */
export const REWRITE_ABOVE_BYTES = 4 * 1024 * 1024;
/** How many times its snapshot a journal may grow to. */
export const JOURNAL_GROWTH = 3;
/** Longest line that is read, bytes: a session with all that a client can send is far below. */
export const LINE_LIMIT_BYTES = 1024 * 1024;
/** Read and written at once, bytes. */
const CHUNK_BYTES = 256 * 1024;

/** `bytes`: of the file up to here, without what is left of a torn end. */
interface Line {
  line: string;
  bytes: number;
  ended: boolean;
}

async function* linesOf(file: FileHandle, path: string): AsyncGenerator<Line> {
  const chunk = Buffer.alloc(CHUNK_BYTES);
  let rest: Buffer = Buffer.alloc(0);
  let number = 0;
  let bytes = 0;
  for (;;) {
    const { bytesRead } = await file.read(chunk, 0, chunk.length, null);
    if (bytesRead === 0) break;
    const data = Buffer.concat([rest, chunk.subarray(0, bytesRead)]);
    let from = 0;
    for (let to = data.indexOf(0x0a); to !== -1; to = data.indexOf(0x0a, from)) {
      number++;
      if (to - from > LINE_LIMIT_BYTES) throw tooLong(path, number);
      bytes += to + 1 - from;
      yield { line: data.toString('utf8', from, to), bytes, ended: true };
      from = to + 1;
    }
    rest = data.subarray(from);
    if (rest.length > LINE_LIMIT_BYTES) throw tooLong(path, number + 1);
  }
  if (rest.length > 0) yield { line: rest.toString('utf8'), bytes: bytes + rest.length, ended: false };
}

function tooLong(path: string, line: number): JournalError {
  return new JournalError(`${path}:${line}: longer than a line can be`);
}

async function writeLines(file: JournalFile, lines: Iterable<string>): Promise<number> {
  let bytes = 0;
  let text = '';
  const flush = async () => {
    const data = Buffer.from(text);
    text = '';
    await file.write(data, bytes);
    bytes += data.length;
  };
  for (const line of lines) {
    text += `${line}\n`;
    if (text.length >= CHUNK_BYTES) await flush();
  }
  if (text !== '') await flush();
  return bytes;
}

async function openExisting(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new JournalError(`${path} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
