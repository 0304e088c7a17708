import { createHash } from 'node:crypto';
import type { Reason } from '@sallyport/protocol';
import type { Session, Sessions } from '@sallyport/cluster';
import type { Log } from '@sallyport/chassis';
import { costOf, hashProblem, hashPassword, passwordProblem, type HashRecipe } from './passwords.ts';
import {
  changeUsersFile,
  NO_USERS,
  readUsers,
  type ParsedUsers,
  UserChangeRefused,
  UsersFileError,
  usersFileStamp,
  type UserChange,
  type UserRecord,
  type UserTable,
} from './users-file.ts';

/*
 * Who exists, in which groups, and who is locked: the users-file as last read. A change, by command or by hand, takes
 * hold in this order: the new table counts for logins, then the sessions of those who lost something end.
 */

export interface DirectoryParts {
  /** Path of the users-file; '' = there is none, and nobody is known. */
  file: string;
  /** Does some profile need it? Where only certificates count it may be missing. */
  required: () => boolean;
  sessions: Pick<Sessions, 'endOfUser' | 'list' | 'end'>;
  log: Log;
  /** May a user with these groups (still) be in this profile? Asked when his groups change. */
  mayEnter: (profile: string, groups: readonly string[]) => boolean;
  /** Is every user of this profile in the users-file? Certificates name others too. */
  listsUsers: (profile: string) => boolean;
}

/** What `user add|passwd|lock|unlock|delete` ask for. */
export type UserOrder =
  | { verb: 'add'; name: string; groups: readonly string[]; password: string }
  | { verb: 'passwd'; name: string; password: string }
  | { verb: 'lock' | 'unlock' | 'delete'; name: string };

export class Directory {
  readonly #parts: DirectoryParts;
  #users: UserTable = new Map();
  #costs: readonly string[] = [];
  #stamp = '';
  /** Stamp of a file that was not taken at the last look, because it may be half written; '' = none. */
  #unsettled = '';
  /** Sessions that could not be ended because the store did not answer: tried again at each look. */
  readonly #toEnd = new Map<string, Reason>();
  /** Sessions may be there whose users lost a right: groups or profiles changed, or the file did while nobody looked. */
  #recheck = true;
  #complained = false;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();

  private constructor(parts: DirectoryParts) {
    this.#parts = parts;
  }

  /**
   * Reads the users-file and looks for changes from then on. @throws UsersFileError with all problems.
   *
   * A store that kept its sessions over a restart may hold some of users who were locked or deleted meanwhile: they
   * end here, or as soon as the store answers.
   */
  static async open(parts: DirectoryParts): Promise<Directory> {
    const directory = new Directory(parts);
    if (parts.file === '') return directory;
    const { users, warnings, stamp } = await directory.#fromFile(parts.required());
    directory.#take(users, stamp, warnings);
    await directory
      .#endLost()
      .catch((error: unknown) => parts.log.warn({ err: error }, 'sessions could not be checked'));
    directory.#timer = setInterval(() => void directory.#look(), LOOK_EVERY_MS);
    directory.#timer.unref();
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

  /** One change: file first, then logins, then sessions. @throws UserChangeRefused, UsersFileError */
  async apply(order: UserOrder, recipe?: HashRecipe): Promise<void> {
    if (this.#parts.file === '') throw new UserChangeRefused("'users-file' is not set");
    await changeUsersFile(this.#parts.file, await hashed(order, recipe));
    await this.reload();
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
    if (this.#parts.file === '') return async () => undefined;
    const before = this.#users;
    const fresh = await this.#fromFile(required);
    return () =>
      this.#inTurn(async () => {
        this.#recheck = true;
        // Read again meanwhile: what is here is newer.
        if (this.#users === before) await this.#change(fresh);
        else await this.#endLost();
      }).catch((error: unknown) => this.#parts.log.warn({ err: error }, 'sessions could not be checked'));
  }

  close(): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    await this.#endLost().then(
      () => (this.#complained = false),
      (error: unknown) => this.#complain(error),
    );
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
    if (!settled && maybeCutOff(this.#users, fresh.users)) return;
    await this.#change(fresh);
    this.#parts.log.info({ users: this.#users.size }, 'users-file read again');
  }

  /** Once until the store answers again. */
  #complain(error: unknown): void {
    const problem = error instanceof Error ? error.message : String(error);
    if (!this.#complained) this.#parts.log.warn({ problem }, 'sessions could not be ended, tried again');
    this.#complained = true;
  }

  async #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#looking.then(work);
    this.#looking = turn.catch(() => undefined);
    await turn;
  }

  async #change({ users, warnings, stamp }: FromFile): Promise<void> {
    const old = this.#users;
    this.#take(users, stamp, warnings);
    for (const [name, before] of old) {
      const after = users.get(name);
      const reason = lossOf(before, after);
      if (reason) this.#toEnd.set(name, reason);
    }
    this.#recheck = true;
    await this.#endLost();
  }

  /** A file that vanishes or becomes empty is an error: it would otherwise look like "all users deleted". */
  async #fromFile(required: boolean): Promise<FromFile> {
    const { file } = this.#parts;
    const mayMiss = !required && this.#users.size === 0;
    if (mayMiss && (await usersFileStamp(file)) === '')
      return { users: new Map(), warnings: [], vacant: true, stamp: '' };
    const read = await readUsers(file);
    if (read.vacant && this.#users.size > 0)
      throw new UsersFileError([
        `${file}: nobody stands here (if that is meant, write the line '${NO_USERS}')`,
      ]);
    return read;
  }

  #take(users: UserTable, stamp: string, warnings: string[]): void {
    this.#users = users;
    this.#stamp = stamp;
    const shared = new Map<string, string>();
    this.#costs = [...users.values()]
      .filter((user) => hashProblem(user.hash) === '')
      .map((user) => {
        const cost = costOf(user.hash);
        if (!shared.has(cost)) shared.set(cost, cost);
        return shared.get(cost) ?? cost;
      });
    for (const warning of warnings) this.#parts.log.warn({ problem: warning }, 'a user cannot log in');
  }

  async #endLost(): Promise<void> {
    const asked = Array.from(this.#toEnd, async ([name, reason]) => {
      await this.#parts.sessions.endOfUser(name, reason);
      this.#toEnd.delete(name);
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
export async function hashed(order: UserOrder, recipe?: HashRecipe): Promise<UserChange> {
  if (order.verb !== 'add' && order.verb !== 'passwd') return order;
  const problem = passwordProblem(order.password);
  if (problem) throw new UserChangeRefused(problem);
  const hash = await hashPassword(order.password, recipe);
  return order.verb === 'add'
    ? { verb: 'add', name: order.name, groups: order.groups, hash }
    : { verb: 'passwd', name: order.name, hash };
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

const LOOK_EVERY_MS = 1_000;
const MARK_LENGTH = 16;
