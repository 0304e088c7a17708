import type { FormField } from '@sallyport/cluster';
import { markOf, type Directory } from '../directory.ts';
import type { Answers, Method, MethodContext, MethodResult } from '../method.ts';
import type { Passwords } from '../passwords.ts';
import { MAX_NAME_LENGTH } from '../names.ts';

/** Name and password of the users-file, in one form or, for clients that send the name alone, in two. */
export class LocalMethod implements Method {
  readonly name = 'local';
  readonly fields = [USERNAME, PASSWORD];
  readonly message = 'Please enter your username and password.';
  readonly #directory: Directory;
  readonly #passwords: Passwords;

  constructor(directory: Directory, passwords: Passwords) {
    this.#directory = directory;
    this.#passwords = passwords;
  }

  async verify(context: MethodContext, answers: Answers): Promise<MethodResult> {
    const name = context.state || (answers['username'] ?? '');
    const password = answers['password'];
    if (password === undefined && name !== '' && name.length <= MAX_NAME_LENGTH) {
      return { type: 'challenge', message: PASSWORD_MESSAGE, fields: [PASSWORD], state: name };
    }
    return this.#check(name, password ?? '');
  }

  /** One check of one password in every case, so that time tells nothing about who exists or is locked. */
  async #check(name: string, password: string): Promise<MethodResult> {
    const user = this.#directory.find(name);
    const verdict = user
      ? await this.#passwords.verify(password, user.hash)
      : await this.#passwords.verifyNobody(name, password, this.#directory.costs);
    if (verdict === 'busy') return { type: 'refused', reason: 'login-limit', user: user?.name ?? '' };
    if (!user || verdict !== 'right')
      return { type: 'refused', reason: 'login-failed', user: user?.name ?? '' };
    if (user.locked)
      return { type: 'refused', reason: 'login-failed', cause: 'user-locked', user: user.name };
    return { type: 'proven', user: user.name, mark: markOf(user) };
  }
}

const USERNAME: FormField = { name: 'username', kind: 'text', label: 'Username:', value: '' };
const PASSWORD: FormField = { name: 'password', kind: 'password', label: 'Password:', value: '' };
const PASSWORD_MESSAGE = 'Please enter your password.';
