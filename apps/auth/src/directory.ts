import { createHash } from 'node:crypto';
import type { Reason } from '@sallyport/protocol';
import type {
  AccountChange,
  AccountOrder,
  AccountRecord,
  AccountRecords,
  EventLog,
  Micros,
  Session,
  Sessions,
} from '@sallyport/cluster';
import type { Log } from '@sallyport/chassis';
import { costOf, hashProblem, hashPassword, passwordProblem, type HashRecipe } from './passwords.ts';
import {
  changeUsersFile,
  checkNames,
  noSuchUser,
  NO_USERS,
  readUsers,
  type ParsedUsers,
  UserChangeRefused,
  userExists,
  UsersFileError,
  usersFileStamp,
  type UserRecord,
  type UserTable,
} from './users-file.ts';

/*
 * Who exists, in which groups, and who is locked: the users-file as last read, and in a cluster the records of what
 * operators changed over it (docs/decisions/0007). A change, by command, by another replica or in the file by hand, takes
 * hold in this order: the new table counts for logins, then the sessions of those who lost something end.
 */

export interface DirectoryParts {
  /** Path of the users-file; '' = there is none, and nobody is known. */
  file: string;
  /** Does some profile need it? Where only certificates count it may be missing. */
  required: () => boolean;
  /** In a cluster: what `apply` changes, for all replicas. Absent: it changes the file. */
  records?: AccountRecords | undefined;
  sessions: Pick<Sessions, 'endOfUser' | 'list' | 'end'>;
  /** Where a change of the file is told; records tell of theirs themselves. */
  events: Pick<EventLog, 'append'>;
  /** µs. */
  now: () => Micros;
  log: Log;
  /** May a user with these groups (still) be in this profile? Asked when his groups change. */
  mayEnter: (profile: string, groups: readonly string[]) => boolean;
  /** Is every user of this profile in the users-file? Certificates name others too. */
  listsUsers: (profile: string) => boolean;
}

export class Directory {
  readonly #parts: DirectoryParts;
  /** As users-file says. */
  #file: UserTable = new Map();
  readonly #records = new Map<string, AccountRecord>();
  /** As both say. */
  #users = new Map<string, UserRecord>();
  #costs: readonly string[] = [];
  #stamp = '';
  /** Stamp of a file that was not taken at the last look, because it may be half written; '' = none. */
  #unsettled = '';
  /** Sessions that could not be ended because the store did not answer: tried again at each look. */
  readonly #toEnd = new Map<string, Loss>();
  /** Sessions may be there whose users lost a right: groups or profiles changed, or the file did while nobody looked. */
  #recheck = true;
  readonly #complaints = new Set<string>();
  readonly #timers: NodeJS.Timeout[] = [];
  #following: (() => void) | undefined;
  #refreshing: Promise<void> | undefined;
  #looking: Promise<void> = Promise.resolve();

  private constructor(parts: DirectoryParts) {
    this.#parts = parts;
  }

  /**
   * Reads records and users-file and looks for changes from then on. @throws UsersFileError with all problems;
   * StoreUnavailable: without the records nobody knows who is locked.
   *
   * A store that kept its sessions over a restart may hold some of users who were locked or deleted meanwhile: they
   * end here, or as soon as the store answers.
   */
  static async open(parts: DirectoryParts): Promise<Directory> {
    const directory = new Directory(parts);
    if (!directory.#lists) return directory;
    directory.#following = parts.records?.follow((changed) => directory.#heed(changed));
    try {
      await directory.refresh();
      if (parts.file !== '') directory.#take(await directory.#fromFile(parts.required()));
    } catch (error) {
      directory.close();
      throw error;
    }
    await directory
      .#endLost()
      .catch((error: unknown) => parts.log.warn({ err: error }, 'sessions could not be checked'));
    directory.#every(LOOK_EVERY_MS, () => directory.#look());
    if (parts.records) directory.#every(REFRESH_EVERY_MS, () => directory.#hear());
    return directory;
  }

  find(name: string): UserRecord | undefined {
    return this.#users.get(name);
  }

  list(): UserRecord[] {
    return [...this.#users.values()];
  }

  /** Costs of the hashes of all users, for checks of passwords of unknown ones. */
  get costs(): readonly string[] {
    return this.#costs;
  }

  /**
   * One change: file or record first, then logins, then sessions.
   * @throws UserChangeRefused, UsersFileError; StoreUnavailable: perhaps it was made, and sessions end later.
   */
  async apply(order: AccountOrder, recipe?: HashRecipe): Promise<void> {
    const { file, records, events, now } = this.#parts;
    if (!this.#lists) throw new UserChangeRefused("'users-file' is not set");
    const change = await hashed(order, recipe);
    const { name } = order;
    if (records) {
      checkNames(change);
      const outcome = await records.change(change, this.#file.has(name));
      if (outcome !== 'done')
        throw new UserChangeRefused(outcome === 'exists' ? userExists(name) : noSuchUser(name));
      await this.#endLost();
      return;
    }
    await changeUsersFile(file, change);
    events.append([{ v: 1, at: now(), type: 'admin.changed', verb: `user-${order.verb}`, subject: name }]);
    await this.reload();
  }

  /** Learns what other replicas have changed before this call. @throws StoreUnavailable */
  async refresh(): Promise<void> {
    await this.#parts.records?.refresh();
  }

  /**
   * Reads the file anew, changed or not, and ends sessions that users and configuration allow no more.
   * @throws UsersFileError; the old users count on then.
   */
  async reload(): Promise<void> {
    if (this.#parts.file === '') return;
    await this.#inTurn(async () => this.#change(await this.#fromFile(this.#parts.required())));
  }

  /**
   * The same in two steps, for settings that do not count yet. @param required whether they need the file.
   * @returns the step that takes over; it does not fail, sessions that the store does not end now are ended later.
   * @throws UsersFileError
   */
  async prepare(required: boolean): Promise<() => Promise<void>> {
    if (!this.#lists) return async () => undefined;
    const before = this.#file;
    const fresh = this.#parts.file === '' ? undefined : await this.#fromFile(required);
    return () =>
      this.#inTurn(async () => {
        this.#recheck = true;
        // Read again meanwhile: what is here is newer.
        if (fresh && this.#file === before) await this.#change(fresh);
        else await this.#endLost();
      }).catch((error: unknown) => this.#parts.log.warn({ err: error }, 'sessions could not be checked'));
  }

  close(): void {
    this.#following?.();
    for (const timer of this.#timers) clearInterval(timer);
  }

  /** Does anything say who exists? */
  get #lists(): boolean {
    return this.#parts.file !== '' || this.#parts.records !== undefined;
  }

  #every(millis: number, work: () => Promise<void>): void {
    const timer = setInterval(() => void work(), millis);
    timer.unref();
    this.#timers.push(timer);
  }

  /** What other replicas have changed. One at a time, however slow the store is. */
  #hear(): Promise<void> {
    const heard = () => this.#once('changes of users could not be read, tried again', () => this.refresh());
    this.#refreshing ??= heard()
      .then(() => this.#endDue())
      .finally(() => (this.#refreshing = undefined));
    return this.#refreshing;
  }

  async #endDue(): Promise<void> {
    if (this.#toEnd.size > 0) await this.#endOrTell();
  }

  #endOrTell(): Promise<void> {
    return this.#once('sessions could not be ended, tried again', () => this.#endLost());
  }

  async #look(): Promise<void> {
    await this.#endOrTell();
    if (this.#parts.file === '') return;
    try {
      const stamp = await usersFileStamp(this.#parts.file);
      if (stamp === this.#stamp) return;
      await this.#inTurn(() => this.#takeSettled(stamp));
    } catch (error) {
      this.#parts.log.warn({ err: error }, 'users-file not taken, the users read before stay');
    }
  }

  /**
   * Not every program that writes the file renames a whole one into place. So who seems to be gone, or to have a broken
   * hash, loses his sessions only when the file is the same at two looks.
   */
  async #takeSettled(stamp: string): Promise<void> {
    // Remembered if the file is bad or gone: one complaint per state of the file.
    const fresh = await this.#fromFile(this.#parts.required()).catch((error: unknown) => {
      this.#stamp = stamp;
      throw error;
    });
    const settled = fresh.stamp === this.#unsettled;
    this.#unsettled = fresh.stamp;
    if (!settled && maybeCutOff(this.#file, fresh.users)) return;
    await this.#change(fresh);
    this.#parts.log.info({ users: this.#users.size }, 'users-file read again');
  }

  /** Says what failed, once until it succeeds again. */
  async #once(complaint: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
      this.#complaints.delete(complaint);
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      if (!this.#complaints.has(complaint)) this.#parts.log.warn({ problem }, complaint);
      this.#complaints.add(complaint);
    }
  }

  async #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#looking.then(work);
    this.#looking = turn.catch(() => undefined);
    await turn;
  }

  async #change(fresh: FromFile): Promise<void> {
    const old = this.#users;
    this.#take(fresh);
    for (const [name, before] of old) {
      const reason = lossOf(before, this.#users.get(name));
      if (reason) this.#toEnd.set(name, { reason });
    }
    this.#recheck = true;
    await this.#endLost();
  }

  /** A file that vanishes or becomes empty is an error: it would otherwise look like "all users deleted". */
  async #fromFile(required: boolean): Promise<FromFile> {
    const { file } = this.#parts;
    const mayMiss = !required && this.#file.size === 0;
    if (mayMiss && (await usersFileStamp(file)) === '')
      return { users: new Map(), warnings: [], vacant: true, stamp: '' };
    const read = await readUsers(file);
    if (read.vacant && this.#file.size > 0)
      throw new UsersFileError([
        `${file}: nobody stands here (if that is meant, write the line '${NO_USERS}')`,
      ]);
    return read;
  }

  #take({ users, stamp, warnings }: FromFile): void {
    this.#file = users;
    this.#stamp = stamp;
    this.#users = new Map(users);
    for (const record of this.#records.values()) this.#lay(record);
    this.#takeCosts();
    for (const warning of warnings) this.#parts.log.warn({ problem: warning }, 'a user cannot log in');
  }

  /** Sessions that were made after a change were made under it: only older ones end. */
  #heed(changed: readonly AccountRecord[]): void {
    for (const record of changed) {
      const before = this.#users.get(record.name);
      this.#records.set(record.name, record);
      this.#lay(record);
      const reason = before && lossOf(before, this.#users.get(record.name));
      if (reason) this.#toEnd.set(record.name, { reason, upTo: record.at });
    }
    this.#takeCosts();
  }

  #lay(record: AccountRecord): void {
    const user = overlaid(this.#file.get(record.name), record);
    if (user) this.#users.set(record.name, user);
    else this.#users.delete(record.name);
  }

  #takeCosts(): void {
    const shared = new Map<string, string>();
    this.#costs = [...this.#users.values()]
      .filter((user) => hashProblem(user.hash) === '')
      .map((user) => {
        const cost = costOf(user.hash);
        if (!shared.has(cost)) shared.set(cost, cost);
        return shared.get(cost) ?? cost;
      });
  }

  async #endLost(): Promise<void> {
    const asked = Array.from(this.#toEnd, async ([name, loss]) => {
      await this.#parts.sessions.endOfUser(name, loss.reason, loss.upTo);
      if (this.#toEnd.get(name) === loss) this.#toEnd.delete(name);
    });
    await Promise.allSettled(asked); // one that fails does not keep the others
    await Promise.all(asked);
    if (!this.#recheck) return;
    for (const session of await this.#parts.sessions.list()) {
      const reason = this.#lossOf(session);
      if (reason) await this.#parts.sessions.end(session.id, reason);
    }
    this.#recheck = false;
  }

  #lossOf(session: Session): Reason | undefined {
    const user = this.find(session.user);
    if (user?.locked) return 'user-locked';
    if (!user && this.#parts.listsUsers(session.profile)) return 'user-deleted';
    if (user?.hashAt !== undefined && user.hashAt >= session.createdAt) return 'password-changed';
    return this.#parts.mayEnter(session.profile, user?.groups ?? []) ? undefined : 'profile-forbidden';
  }
}

/**
 * Names a state of a user's record: another one after his password changed, or after he was deleted or added.
 * '' = not in the users-file. Tells nothing about the password without the hash itself.
 */
export function markOf(user: UserRecord | undefined): string {
  return user ? createHash('sha256').update(user.hash).digest('base64url').slice(0, MARK_LENGTH) : '';
}

/** The same order with the password hashed: what the users-file takes, with or without a running gateway. */
export async function hashed(order: AccountOrder, recipe?: HashRecipe): Promise<AccountChange> {
  if (order.verb !== 'add' && order.verb !== 'passwd') return order;
  const problem = passwordProblem(order.password);
  if (problem) throw new UserChangeRefused(problem);
  const hash = await hashPassword(order.password, recipe);
  return order.verb === 'add'
    ? { verb: 'add', name: order.name, groups: order.groups, hash }
    : { verb: 'passwd', name: order.name, hash };
}

/** What a record leaves of a user of users-file; undefined = there is none. */
function overlaid(inFile: UserRecord | undefined, record: AccountRecord): UserRecord | undefined {
  if (record.deleted) return undefined;
  const { name, groups, hash, hashAt } = record;
  if (groups !== undefined) return { name, groups, locked: record.locked ?? false, hash: hash ?? '', hashAt };
  if (!inFile) return undefined;
  return { ...inFile, locked: record.locked ?? inFile.locked, ...(hash !== undefined && { hash, hashAt }) };
}

function lossOf(before: UserRecord, after: UserRecord | undefined): Reason | undefined {
  if (!after) return 'user-deleted';
  if (after.locked && !before.locked) return 'user-locked';
  if (after.hash !== before.hash) return 'password-changed';
  return undefined;
}

/** Is somebody gone, or his hash broken, who was there before? */
function maybeCutOff(before: UserTable, after: UserTable): boolean {
  return [...before.values()].some(({ name, hash }) => {
    const now = after.get(name);
    return !now || (now.hash !== hash && hashProblem(now.hash) !== '');
  });
}

type FromFile = ParsedUsers & { stamp: string };

interface Loss {
  reason: Reason;
  /** Absent: all sessions. */
  upTo?: Micros;
}

const LOOK_EVERY_MS = 1_000;
/** How soon a replica knows what another one changed. */
const REFRESH_EVERY_MS = 250;
const MARK_LENGTH = 16;
