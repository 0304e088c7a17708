import { randomBytes } from 'node:crypto';
import { link, lstat, open, readFile, realpath, rename, stat, unlink, writeFile } from 'node:fs/promises';
import { dirname, basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { processStart, type AccountChange } from '@sallyport/cluster';
import { groupNameProblem, userNameProblem } from './names.ts';
import { hashProblem } from './passwords.ts';

/*
 * The users-file, as ocpasswd writes it, one user a line:
 *
 *   NAME ':' GROUPS ':' HASH          GROUPS = '*' (none) or names with commas between
 *                                     HASH   = '!' before it: the user is locked
 *
 * Blank lines and lines that begin with '#' are kept; `# no users` says that a file without users is meant. Every change reads the file anew under a lock, writes a new file
 * beside it (mode 0600) and renames it, so that neither a crash nor two commands at once lose a line.
 */

export interface UserRecord {
  name: string;
  /** The first one is his own group, whose policy applies. */
  groups: readonly string[];
  locked: boolean;
  /** Without the mark of a locked user. */
  hash: string;
  /** When a record of the cluster set the hash, µs by the store's clock; absent = it is users-file's. */
  hashAt?: bigint | undefined;
}

export type UserTable = ReadonlyMap<string, UserRecord>;

/** The file cannot be used; every problem with its line. Texts hold no hash. */
export class UsersFileError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.name = 'UsersFileError';
    this.problems = problems;
  }
}

/** A change that makes no sense: user exists already, does not exist, bad name. The message is for the operator. */
export class UserChangeRefused extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'UserChangeRefused';
  }
}

export interface ParsedUsers {
  users: UserTable;
  /** `FILE:LINE: text` of users whose hash cannot be verified: they are kept, and nobody can log in as them. */
  warnings: string[];
  /** Nobody stands here, and no line says that this is meant: what a write that was cut off leaves. */
  vacant: boolean;
}

/** @throws UsersFileError with all problems at once. */
export function parseUsers(text: string, file: string): ParsedUsers {
  const users = new Map<string, UserRecord>();
  const problems: string[] = [];
  const warnings: string[] = [];
  for (const [index, line] of linesOf(text).entries()) {
    if (isComment(line)) continue;
    const where = `${file}:${index + 1}:`;
    const parsed = parseLine(line);
    if (typeof parsed === 'string') problems.push(`${where} ${parsed}`);
    else if (users.has(parsed.name)) problems.push(`${where} user '${parsed.name}' stands here twice`);
    else {
      users.set(parsed.name, parsed);
      const unusable = hashProblem(parsed.hash);
      if (unusable) warnings.push(`${where} ${unusable}`);
    }
  }
  if (problems.length > 0) throw new UsersFileError(problems);
  return { users, warnings, vacant: users.size === 0 && !linesOf(text).includes(NO_USERS) };
}

/** Reads the file once. A file that is missing is an error: it would otherwise look like "all users deleted". */
export async function readUsers(file: string): Promise<ParsedUsers & { stamp: string }> {
  // The stamp first: a change between the two calls is then seen as a change at the next look.
  const stamp = await usersFileStamp(file);
  if (stamp === '') throw new UsersFileError([`${file}: no such file ('sallyport user add NAME' makes it)`]);
  return { ...parseUsers(await readFile(file, 'utf8'), file), stamp };
}

/** Changes whenever the file does; '' = there is none. */
export async function usersFileStamp(file: string): Promise<string> {
  try {
    const facts = await stat(file, { bigint: true });
    return `${facts.dev}:${facts.ino}:${facts.size}:${facts.mtimeNs}:${facts.ctimeNs}`;
  } catch (error) {
    if (isCode(error, 'ENOENT')) return '';
    throw error;
  }
}

/**
 * One change, whether or not a gateway runs (it notices). `add` makes the file if there is none.
 * @throws UserChangeRefused, UsersFileError
 */
export async function changeUsersFile(file: string, change: AccountChange): Promise<void> {
  const target = await realpath(file).catch((error: unknown) => {
    if (isCode(error, 'ENOENT') && change.verb === 'add') return file;
    throw error;
  });
  await withLock(`${target}.lock`, async () => {
    const before = await readFile(target, 'utf8').catch((error: unknown) => {
      if (isCode(error, 'ENOENT') && change.verb === 'add') return '';
      throw error;
    });
    parseUsers(before, file);
    const after = changeText(before, change);
    parseUsers(after, file);
    await replaceFile(target, after);
  });
}

/** PURE. All other lines stay as they are. */
export function changeText(text: string, change: AccountChange): string {
  const lines = linesOf(text);
  const at = lines.findIndex((line) => !isComment(line) && line.slice(0, line.indexOf(':')) === change.name);
  const present = at < 0 ? undefined : parseLine(lines[at] ?? '');
  if (change.verb === 'add') {
    checkNames(change);
    if (present) throw new UserChangeRefused(userExists(change.name));
    const vacancy = lines.indexOf(NO_USERS);
    if (vacancy >= 0) lines.splice(vacancy, 1);
    lines.push(formatLine({ name: change.name, groups: change.groups, locked: false, hash: change.hash }));
  } else {
    if (typeof present !== 'object') throw new UserChangeRefused(noSuchUser(change.name));
    if (change.verb === 'delete') {
      lines.splice(at, 1);
      if (lines.every(isComment) && !lines.includes(NO_USERS)) lines.push(NO_USERS);
    } else lines[at] = formatLine(changed(present, change));
  }
  return lines.map((line) => `${line}\n`).join('');
}

/** @throws UserChangeRefused when who is to be added, or one of his groups, has a name that is none. */
export function checkNames(change: AccountChange): void {
  if (change.verb !== 'add') return;
  const problem =
    userNameProblem(change.name) || change.groups.map(groupNameProblem).find((text) => text !== '');
  if (problem) throw new UserChangeRefused(problem);
}

export function userExists(name: string): string {
  return `user '${name}' exists already`;
}

export function noSuchUser(name: string): string {
  return `there is no user '${name}'`;
}

function changed(user: UserRecord, change: Exclude<AccountChange, { verb: 'add' | 'delete' }>): UserRecord {
  if (change.verb === 'passwd') return { ...user, hash: change.hash };
  return { ...user, locked: change.verb === 'lock' };
}

function parseLine(line: string): UserRecord | string {
  const [name = '', groups, hash, ...rest] = line.split(':');
  if (groups === undefined || hash === undefined || rest.length > 0) return 'a line is NAME:GROUPS:HASH';
  const names = groups === '*' || groups === '' ? [] : groups.split(',');
  const problem = userNameProblem(name) || names.map(groupNameProblem).find((text) => text !== '');
  if (problem) return problem;
  const locked = hash.startsWith('!');
  const rawHash = locked ? hash.slice(1) : hash;
  return rawHash === '' ? 'a hash is missing' : { name, groups: names, locked, hash: rawHash };
}

function formatLine(user: UserRecord): string {
  return `${user.name}:${user.groups.join(',') || '*'}:${user.locked ? '!' : ''}${user.hash}`;
}

function linesOf(text: string): string[] {
  const lines = text.split(/\r?\n/);
  if (lines.at(-1) === '') lines.pop();
  return lines;
}

function isComment(line: string): boolean {
  return line.trim() === '' || line.startsWith('#');
}

async function replaceFile(target: string, text: string): Promise<void> {
  const temporary = join(dirname(target), `.${basename(target)}.${randomBytes(8).toString('hex')}`);
  const owner = await lstat(target).catch(() => undefined);
  const handle = await open(temporary, 'wx', FILE_MODE);
  try {
    await handle.writeFile(text);
    if (owner && process.getuid?.() === 0) await handle.chown(owner.uid, owner.gid);
    await handle.sync();
    await handle.close();
    await rename(temporary, target);
  } catch (error) {
    await handle.close().catch(() => undefined);
    await unlink(temporary).catch(() => undefined);
    throw error;
  }
}

/** A lock is a file with its owner's process id and start; that of a process that is no more counts for nothing. */
async function withLock<T>(path: string, work: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + LOCK_WAIT_MS;
  while (!(await takeLock(path))) {
    if (Date.now() > deadline) throw new UserChangeRefused(`${path}: another change is under way`);
    await sleep(LOCK_RETRY_MS);
  }
  try {
    return await work();
  } finally {
    await unlink(path).catch(() => undefined);
  }
}

async function takeLock(path: string): Promise<boolean> {
  // Linked when it is complete: nobody ever sees a lock without its owner, on a full disk either.
  const claim = `${path}.${randomBytes(8).toString('hex')}`;
  try {
    await writeFile(claim, `${process.pid} ${await processStart(process.pid)}\n`, {
      mode: FILE_MODE,
      flag: 'wx',
    });
    await link(claim, path);
    return true;
  } catch (error) {
    if (!isCode(error, 'EEXIST')) throw error;
  } finally {
    await unlink(claim).catch(() => undefined);
  }
  const text = await readFile(path, 'utf8').catch(() => undefined);
  if (text === undefined) return false; // given back meanwhile
  const [pid = '', start = ''] = text.trim().split(' ');
  if (!(Number(pid) > 0) || !(await isOwner(Number(pid), start))) {
    // Renamed first: only one of several waiters gets it, and the next round decides who has the lock.
    const stale = `${path}.${randomBytes(8).toString('hex')}`;
    await rename(path, stale).then(
      () => unlink(stale),
      () => undefined,
    );
  }
  return false;
}

/** The id may be another process's by now. Where no start can be seen the id alone counts. */
async function isOwner(pid: number, start: string): Promise<boolean> {
  // A lock of ours has our start: any other with our id is of a process before us.
  if (pid === process.pid) return start === (await processStart(pid));
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (isCode(error, 'ESRCH')) return false;
  }
  const now = await processStart(pid);
  return start === '' || now === '' || now === start;
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

/** The line of a file that means to hold nobody. */
export const NO_USERS = '# no users';
const FILE_MODE = 0o600;
const LOCK_WAIT_MS = 5_000;
const LOCK_RETRY_MS = 20;
