import { randomUUID } from 'node:crypto';
import { link, readdir, readFile, readlink, stat, unlink, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

/** The journal cannot be used as it is: the message says where and why, in one sentence. */
export class JournalError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'JournalError';
  }
}

/**
 * One writer per folder. The file names its process by pid and start time, so that the lock of a killed process is
 * taken over at once. Where its process cannot be seen (another host or container on a shared volume) the file's time
 * decides: its owner touches it about once a second.
 *
 * Locks are numbered, and a stale one is never replaced: its successor takes the next number, which only one can
 * create, and removes it afterwards. So of several that find a stale lock one gets in.
 */
export class JournalLock {
  readonly #path: string;
  #touchedAt = 0;

  private constructor(path: string) {
    this.#path = path;
  }

  /** @throws JournalError when another process holds it. */
  static async take(folder: string): Promise<JournalLock> {
    const me = await identity();
    const mine = join(folder, `claim.${me.pid}.${randomUUID()}`);
    await writeFile(mine, JSON.stringify(me), { mode: 0o600, flag: 'wx' });
    try {
      for (let attempt = 0; attempt < LOCK_ATTEMPTS; attempt++) {
        const stale = await staleLocks(folder, me, []);
        const path = join(folder, `${LOCK_PREFIX}${Math.max(0, ...stale) + 1}`);
        if (!(await linked(mine, path))) continue;
        try {
          // A slow one may have got a number that is free again: look once more, now that others see this lock.
          for (const number of await staleLocks(folder, me, stale, path))
            await unlink(join(folder, `${LOCK_PREFIX}${number}`));
          return new JournalLock(path);
        } catch (error) {
          await unlink(path).catch(() => undefined);
          throw error;
        }
      }
    } finally {
      await unlink(mine);
    }
    throw new JournalError(`${folder} cannot be locked: its lock changes again and again`);
  }

  /** Shows those who cannot see this process that it lives. Cheap to call often. */
  async touch(): Promise<void> {
    const now = Date.now();
    if (now - this.#touchedAt < LOCK_TOUCH_MS) return;
    this.#touchedAt = now;
    await utimes(this.#path, new Date(now), new Date(now)).catch(() => undefined);
  }

  async release(): Promise<void> {
    await unlink(this.#path).catch(() => undefined);
  }
}

/** How often the lock is touched, and how long a stranger watches it. */
export const LOCK_TOUCH_MS = 1000;
export const LOCK_WATCH_MS = 3500;
const LOCK_ATTEMPTS = 5;
const LOCK_PREFIX = 'lock.';
const LOCK_NAME = /^lock\.\d{1,9}$/;

interface Identity {
  pid: number;
  /** Clock ticks between boot and start of the process; '' where the system does not tell. */
  start: string;
  boot: string;
  host: string;
  /** The namespace that `pid` counts in. */
  namespace: string;
}

async function identity(): Promise<Identity> {
  return {
    pid: process.pid,
    start: await processStart(process.pid),
    boot: (await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '')).trim(),
    host: hostname(),
    namespace: await readlink('/proc/self/ns/pid').catch(() => ''),
  };
}

/**
 * Tells a process from a later one with the same id. Field 22 of /proc/PID/stat; the second field, in brackets, may hold anything. A killed process that nobody has waited
 * for yet is still listed, as a zombie: it writes no more.
 * @returns '' = no such process, or dead.
 */
export async function processStart(pid: number): Promise<string> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? '' : (fields[19] ?? '');
}

/** @returns the numbers of locks that nobody holds. @throws JournalError when somebody holds one other than `own`. */
async function staleLocks(folder: string, me: Identity, known: number[], own = ''): Promise<number[]> {
  const stale: number[] = [];
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    if (!LOCK_NAME.test(name) || path === own) continue;
    const number = Number(name.slice(LOCK_PREFIX.length));
    if (known.includes(number)) {
      stale.push(number);
      continue;
    }
    const text = await readFile(path, 'utf8').catch(() => undefined);
    if (text === undefined) continue; // released meanwhile
    const pid = await holds(text, path, me);
    if (pid !== undefined) {
      throw new JournalError(`${folder} is in use by another gateway (process ${pid}): stop it first`);
    }
    stale.push(number);
  }
  return stale;
}

/** @returns the pid of the process that holds the lock, as far as one can tell; undefined = nobody does. */
async function holds(text: string, path: string, me: Identity): Promise<number | undefined> {
  const holder = parse(text);
  if (holder === undefined) return undefined; // a torn write of a process that died in it
  if (holder.host === me.host && holder.boot !== me.boot) return undefined; // the machine was started again
  if (holder.host !== me.host || holder.namespace !== me.namespace) {
    return (await isTouched(path)) ? holder.pid : undefined;
  }
  if (holder.pid === me.pid) return holder.start === me.start ? holder.pid : undefined;
  if (holder.start !== '') return (await processStart(holder.pid)) === holder.start ? holder.pid : undefined;
  try {
    process.kill(holder.pid, 0);
    return holder.pid;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM' ? holder.pid : undefined;
  }
}

async function isTouched(path: string): Promise<boolean> {
  const time = async () => (await stat(path).catch(() => undefined))?.mtimeMs;
  const before = await time();
  await pause(LOCK_WATCH_MS);
  return (await time()) !== before;
}

function parse(text: string): Identity | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const fields = new Map<string, unknown>(Object.entries(value));
  const pid = fields.get('pid');
  const word = (name: string) => {
    const field = fields.get(name);
    return typeof field === 'string' || typeof field === 'number' ? String(field) : '';
  };
  if (typeof pid !== 'number' || !Number.isSafeInteger(pid) || pid < 1) return undefined;
  return { pid, start: word('start'), boot: word('boot'), host: word('host'), namespace: word('namespace') };
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false;
    throw error;
  }
}
