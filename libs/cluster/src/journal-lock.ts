import { randomUUID } from 'node:crypto';
import { link, readFile, readlink, rename, stat, unlink, utimes, writeFile } from 'node:fs/promises';
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
 */
export class JournalLock {
  readonly #path: string;
  readonly #text: string;
  #touchedAt = 0;

  private constructor(path: string, text: string) {
    this.#path = path;
    this.#text = text;
  }

  /** @throws JournalError when another process holds it. */
  static async take(folder: string): Promise<JournalLock> {
    const path = join(folder, 'lock');
    const me = await identity();
    const text = JSON.stringify(me);
    const mine = join(folder, `lock.${me.pid}.${randomUUID()}`);
    await writeFile(mine, text, { mode: 0o600, flag: 'wx' });
    try {
      for (let attempt = 0; attempt < LOCK_ATTEMPTS; attempt++) {
        if (await linked(mine, path)) return new JournalLock(path, text);
        const holder = await readFile(path, 'utf8').catch(() => undefined);
        if (holder === undefined) continue;
        const pid = await holds(holder, path, me);
        if (pid !== undefined) {
          throw new JournalError(`${folder} is in use by another gateway (process ${pid}): stop it first`);
        }
        await removeStale(path, holder, mine);
      }
    } finally {
      await unlink(mine).catch(() => undefined);
    }
    throw new JournalError(`${path} cannot be taken: it changes again and again`);
  }

  /** Shows those who cannot see this process that it lives. Cheap to call often. */
  async touch(): Promise<void> {
    const now = Date.now();
    if (now - this.#touchedAt < LOCK_TOUCH_MS) return;
    this.#touchedAt = now;
    await utimes(this.#path, new Date(now), new Date(now)).catch(() => undefined);
  }

  async release(): Promise<void> {
    const text = await readFile(this.#path, 'utf8').catch(() => undefined);
    if (text === this.#text) await unlink(this.#path).catch(() => undefined);
  }
}

/** How often the lock is touched, and how long a stranger watches it. */
export const LOCK_TOUCH_MS = 1000;
export const LOCK_WATCH_MS = 3500;
const LOCK_ATTEMPTS = 5;

interface Identity {
  pid: number;
  /** Clock ticks between boot and start of the process; '' where the system does not tell. */
  start: string;
  boot: string;
  host: string;
  /** The namespace that `pid` counts in. */
  namespace: string;
  /** Makes every taking of the lock different. */
  nonce: string;
}

async function identity(): Promise<Identity> {
  return {
    pid: process.pid,
    start: await startOf(process.pid),
    boot: (await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '')).trim(),
    host: hostname(),
    namespace: await readlink('/proc/self/ns/pid').catch(() => ''),
    nonce: randomUUID(),
  };
}

/** Field 22 of /proc/PID/stat; the second field, in brackets, may hold anything. */
async function startOf(pid: number): Promise<string> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? '';
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
  if (holder.start !== '') return (await startOf(holder.pid)) === holder.start ? holder.pid : undefined;
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

function parse(text: string): Omit<Identity, 'nonce'> | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const fields = new Map<string, unknown>(Object.entries(value));
  const pid = fields.get('pid');
  const word = (name: string) => String(fields.get(name) ?? '');
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

/** Moves the stale lock away first: of two that try only one gets it, and a lock that is not the stale one goes back. */
async function removeStale(path: string, stale: string, mine: string): Promise<void> {
  const aside = `${mine}.stale`;
  try {
    await rename(path, aside);
  } catch {
    return;
  }
  if ((await readFile(aside, 'utf8')) !== stale) await linked(aside, path);
  await unlink(aside);
}
