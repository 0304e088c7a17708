import { randomBytes } from 'node:crypto';
import { reasonText, type Reason } from '@sallyport/protocol';
import {
  hashToken,
  newToken,
  type BeginRequest,
  type ClientFacts,
  type LoginAnswer,
  type LoginForm,
  type ReplyRequest,
  type Session,
  type Sessions,
  type Settings,
} from '@sallyport/cluster';
import type { Attempts } from './attempts.ts';
import { markOf, type Directory } from './directory.ts';
import {
  beginLogin,
  confirmsGrant,
  formatHandle,
  grantLogin,
  handleReply,
  handleVerified,
  isProven,
  MAX_REPLIES,
  parseHandle,
  refuseLogin,
  type Login,
} from './login.ts';
import type { Logins } from './logins.ts';
import type { Answers, Method, MethodResult } from './method.ts';
import type { Policies } from './policy.ts';
import { chooseProfile, profileOption, profileOptions, selectedProfile } from './profiles.ts';

export interface LoginFlowParts {
  settings: () => Settings;
  logins: Logins;
  methods: readonly Method[];
  directory: Directory;
  policies: Policies;
  sessions: Pick<Sessions, 'create' | 'get' | 'end'>;
  attempts: Attempts;
  /** ms since 1970. */
  now: () => number;
}

/**
 * Drives Logins: profile, methods, store, policy, session. What is decided is decided in `login.ts`; here is what
 * takes time. One reply goes:
 *
 *   1. find the login, count the try, store it      (so a hundred replies at once are a hundred tries)
 *   2. verify                                        (slow)
 *   3. all proven: policy, session
 *   4. store the outcome, if nobody was faster       (else the session that was made ends again)
 */
export class LoginFlow {
  readonly #parts: LoginFlowParts;
  readonly #methods: ReadonlyMap<string, Method>;

  /** Replies under way in this process, by handle. */
  readonly #replies = new Map<string, Promise<void>>();

  constructor(parts: LoginFlowParts) {
    this.#parts = parts;
    this.#methods = new Map(parts.methods.map((method) => [method.name, method]));
  }

  async begin(request: BeginRequest): Promise<LoginAnswer> {
    const settings = this.#parts.settings();
    const { client } = request;
    const choice = chooseProfile(settings, {
      profile: request.profile,
      urlProfile: request.urlProfile,
      serverName: client.serverName,
      withoutCertificate: request.certificateFailed || client.certificate?.verified === false,
    });
    if (!choice.ok) return refusal(choice.reason);
    const methods = this.#inOrder(choice.profile.methods);
    if (!methods) return refusal('policy-unreadable');
    const start = {
      id: randomBytes(LOGIN_ID_BYTES).toString('base64url'),
      profile: choice.profile.name,
      profileFixed: choice.fixed,
      methods,
      address: client.address,
      tries: await this.#takeOver(request.loginId ?? ''),
    };
    const login = beginLogin(start, settings, this.#parts.now());
    const next = await this.#proveFormless(login, client, request.certificateFailed);
    if (next === 'ask') return { certificateRequest: { loginId: '', profile: login.profile } };
    if (next.state === 'refused') return refusal(next.reason);
    if (isProven(next)) return this.#grant(next, client, settings);
    if (await this.#parts.logins.add(next, settings.maxLoginsPerAddress))
      return this.#form(next, client, settings);
    this.#failed(next, 'login-limit');
    return refusal('login-limit');
  }

  /**
   * A reply that is doubled on its way (the client sends it again when its connection dies) waits for the outcome of the
   * first: it then finds the login granted, or the form with the error, and never one that is half-way. Where the double
   * went to another replica, the store tells: whoever was slower looks again.
   */
  async reply(request: ReplyRequest): Promise<LoginAnswer> {
    const { loginId } = request;
    if (loginId === '') return this.#reply(request);
    for (let before = this.#replies.get(loginId); before; before = this.#replies.get(loginId)) await before;
    const answer = this.#reply(request);
    const done = answer.then(ignore, ignore).finally(() => this.#replies.delete(loginId));
    this.#replies.set(loginId, done);
    return answer;
  }

  async #reply(request: ReplyRequest, looks = MAX_LOOKS): Promise<LoginAnswer> {
    // Old clients post name, password and profile at once, without a form before (docs/protocol.md §4).
    if (request.loginId === '') return this.#beginAndReply(request, true);
    const handle = parseHandle(request.loginId);
    const login = handle && (await this.#parts.logins.find(handle.id));
    if (!handle || !login) return refusal('login-expired');
    const settings = this.#parts.settings();
    const decision = handleReply(login, handle.step, settings, this.#parts.now());
    switch (decision.next) {
      case 'refuse':
        this.#failed(login, decision.reason);
        return refusal(decision.reason);
      case 'show':
        return this.#form(login, request.client, settings);
      case 'verify':
        if (selectsAnother(login, request, settings)) return this.#beginAndReply(request, false);
        if (await this.#parts.logins.replace(decision.login, login.revision))
          return this.#verifyReply(decision.login, request, settings);
        return looks > 0
          ? this.#reply(request, looks - 1)
          : this.#present(login.id, request.client, settings);
    }
  }

  /** With another profile the steps begin anew; if its form asks for nothing else, these answers count for it. */
  async #beginAndReply(request: ReplyRequest, certificateFailed: boolean): Promise<LoginAnswer> {
    const { profile, client, loginId } = request;
    const begun = await this.begin({ profile, urlProfile: '', client, certificateFailed, loginId });
    const answered = begun.form?.fields.every((field) => Object.hasOwn(request.answers, field.name)) ?? false;
    return begun.form && answered
      ? this.#reply({ ...request, loginId: begun.form.loginId, profile: '' })
      : begun;
  }

  /** @param counted as stored. */
  async #verifyReply(
    counted: Login,
    { client, answers }: ReplyRequest,
    settings: Settings,
  ): Promise<LoginAnswer> {
    const method = this.#methods.get(counted.methods[counted.method] ?? '');
    // Fail closed: the profile asks for other methods now, so this conversation proves nothing.
    if (
      !method ||
      !sameNames(counted.methods, this.#inOrder(settings.profiles[counted.profile]?.methods ?? []))
    ) {
      return this.#settle(refuseLogin(counted, 'login-expired'), counted.revision, client, settings);
    }
    if (!(await this.#sameCertificate(counted, client))) {
      const refused = refuseLogin(counted, 'certificate-user-mismatch');
      this.#failed(refused, 'certificate-user-mismatch');
      return this.#settle(refused, counted.revision, client, settings);
    }
    const result = await this.#verify(counted, method, client, answers);
    if (counted.state === 'granted') return this.#grantAgain(counted, result, client, settings);
    return this.#settle(this.#judge(counted, method, result), counted.revision, client, settings);
  }

  /** Methods without a form: proven or failed by what the connection shows. `ask`: the client should show a certificate. */
  async #proveFormless(
    begun: Login,
    client: ClientFacts,
    certificateFailed: boolean,
  ): Promise<Login | 'ask'> {
    let login = begun;
    for (const name of begun.methods) {
      const method = this.#methods.get(name);
      if (!method || method.fields.length > 0 || login.state === 'refused') break;
      const result = await this.#verify(login, method, client, {});
      const missing = result.type === 'refused' && result.reason === 'certificate-required';
      if (missing && !certificateFailed) return 'ask';
      login = this.#judge(login, method, result);
    }
    return login;
  }

  /** A certificate that comes with a reply names the user whom the login knows from its first one. */
  async #sameCertificate(login: Login, client: ClientFacts): Promise<boolean> {
    if (!client.certificate) return true;
    for (const proof of login.proven) {
      const method = this.#methods.get(proof.method);
      if (!method || method.fields.length > 0) continue;
      const result = await this.#verify(login, method, client, {});
      if (result.type !== 'proven' || result.user !== proof.user) return false;
    }
    return true;
  }

  #verify(login: Login, method: Method, client: ClientFacts, answers: Answers): Promise<MethodResult> {
    const state = method.fields.length > 0 ? (login.challenge?.state ?? '') : '';
    return this.#parts.attempts.verify(method, { client, state }, answers);
  }

  #judge(login: Login, method: Method, result: MethodResult): Login {
    const judged = handleVerified(login, result, method.fields.length > 0, this.#parts.settings());
    if (result.type === 'refused') {
      this.#failed(login, result.cause ?? result.reason, result.user, method.name);
    } else if (judged.state === 'refused') {
      this.#failed(login, judged.reason || 'login-failed', login.proven[0]?.user, method.name);
    } else {
      this.#parts.attempts.passed(method.name, result.type);
    }
    return judged;
  }

  async #settle(
    judged: Login,
    revision: number,
    client: ClientFacts,
    settings: Settings,
  ): Promise<LoginAnswer> {
    if (isProven(judged)) return this.#grant(judged, client, settings, revision);
    if (!(await this.#parts.logins.replace(judged, revision)))
      return this.#present(judged.id, client, settings);
    return judged.state === 'refused' ? refusal(judged.reason) : this.#form(judged, client, settings);
  }

  /** Another reply was faster: what came of it, without the token. */
  async #present(id: string, client: ClientFacts, settings: Settings): Promise<LoginAnswer> {
    const login = await this.#parts.logins.find(id);
    if (!login || login.state === 'granted') return refusal('login-expired');
    return login.state === 'refused' ? refusal(login.reason) : this.#form(login, client, settings);
  }

  /**
   * The reply came again: its answer was lost, or something on the way doubled it. The client may hold either token, so
   * both are good; the one that is not used ends by its cookie-timeout.
   */
  async #grantAgain(
    login: Login,
    result: MethodResult,
    client: ClientFacts,
    settings: Settings,
  ): Promise<LoginAnswer> {
    if (!confirmsGrant(login, result)) {
      const reason = result.type === 'refused' ? result.reason : 'login-failed';
      this.#failed(login, reason);
      return refusal(reason);
    }
    const previous = await this.#parts.sessions.get(login.sessionId);
    if (previous && previous.state !== 'authed') return refusal('login-expired');
    return this.#grant(login, client, settings, login.revision);
  }

  /** @param revision of the stored login; undefined = it was never stored, because it needed no form. */
  async #grant(
    login: Login,
    client: ClientFacts,
    settings: Settings,
    revision?: number,
  ): Promise<LoginAnswer> {
    const user = login.proven[0]?.user ?? '';
    const groups = this.#parts.directory.find(user)?.groups ?? [];
    const resolved = this.#parts.policies.resolve(settings, login.profile, user, groups);
    if (!resolved.ok) return this.#refuseProven(login, user, resolved.reason, revision);

    const token = newToken();
    const session = await this.#parts.sessions.create({
      tokenHash: hashToken(token),
      user,
      profile: login.profile,
      grant: resolved.grant,
      origins: resolved.origins,
      client: {
        address: client.address,
        userAgent: client.userAgent,
        platform: client.platform,
        hostname: '',
      },
      strapKey: client.strapKey,
    });
    // A lock or a new password that came since the proof has ended this user's sessions, but perhaps not this one. Who
    // changes him from now on ends it too, on whatever replica.
    await this.#parts.directory.refresh();
    const lost = this.#lostProof(login);
    if (lost) {
      await this.#parts.sessions.end(session.id, lost);
      return this.#refuseProven(login, user, lost, revision);
    }
    const granted = grantLogin(login, session.id, this.#parts.now());
    if (revision !== undefined && !(await this.#storeGranted(granted, revision))) {
      await this.#parts.sessions.end(session.id, 'replaced');
      return refusal('login-expired');
    }
    this.#parts.attempts.succeeded(login, user, session.id);
    return { granted: { ...grantedAnswer(session), token } };
  }

  /** Two right replies at once are both granted. */
  async #storeGranted(granted: Login, revision: number): Promise<boolean> {
    let [next, before] = [granted, revision];
    for (let looks = MAX_LOOKS; ; looks--) {
      if (await this.#parts.logins.replace(next, before)) return true;
      const present = await this.#parts.logins.find(granted.id);
      if (present?.state === 'granted') return true;
      // Anything but another reply to this very form, which was counted and nothing else, is a no.
      if (!present || present.state === 'refused' || present.step !== granted.step || looks === 0)
        return false;
      const { tries, replies } = present;
      [next, before] = [{ ...granted, tries, replies, revision: present.revision + 1 }, present.revision];
    }
  }

  async #refuseProven(login: Login, user: string, reason: Reason, revision?: number): Promise<LoginAnswer> {
    this.#failed(login, reason, user, login.methods.join('+'));
    if (revision !== undefined) await this.#parts.logins.replace(refuseLogin(login, reason), revision);
    return refusal(TOLD_TO_CLIENTS.has(reason) ? reason : 'login-failed');
  }

  /** What was proven holds only while the user's record is the same. */
  #lostProof(login: Login): Reason | undefined {
    for (const { user, mark } of login.proven) {
      const record = this.#parts.directory.find(user);
      if (record?.locked) return 'user-locked';
      if (markOf(record) !== mark) return record ? 'password-changed' : 'user-deleted';
    }
    return undefined;
  }

  /** Forgets the login that another profile was chosen for. @returns its tries, so that they stay bounded. */
  async #takeOver(handle: string): Promise<number> {
    const id = parseHandle(handle)?.id;
    const login = id === undefined ? undefined : await this.#parts.logins.find(id);
    if (!login || (login.state !== 'form' && login.state !== 'challenge')) return 0;
    await this.#parts.logins.remove(login.id);
    return login.tries;
  }

  /**
   * Methods that need no form go first: a client can be asked for a certificate only before it is shown a form
   * (docs/protocol.md §4.7). @returns undefined: a method that is not there.
   */
  #inOrder(names: readonly string[]): string[] | undefined {
    const known = names.filter((name) => this.#methods.has(name));
    if (known.length !== names.length || known.length === 0) return undefined;
    const formless = (name: string) => this.#methods.get(name)?.fields.length === 0;
    return [...known.filter(formless), ...known.filter((name) => !formless(name))];
  }

  #form(login: Login, client: ClientFacts, settings: Settings): LoginAnswer {
    const method = this.#methods.get(login.methods[login.method] ?? '');
    const profile = Object.hasOwn(settings.profiles, login.profile)
      ? settings.profiles[login.profile]
      : undefined;
    const user = login.proven[0]?.user ?? '';
    const fields = login.challenge?.fields ?? method?.fields ?? [];
    const form: LoginForm = {
      loginId: formatHandle(login),
      id: login.state === 'challenge' ? 'challenge' : 'main',
      title: FORM_TITLE,
      banner: login.replies === 0 ? settings.preLoginBanner : '',
      message: login.challenge?.message ?? method?.message ?? '',
      error: login.error === '' ? '' : reasonText(login.error),
      fields: fields.map((field) => (field.name === 'username' ? { ...field, value: user } : { ...field })),
      profiles: login.profileFixed ? [] : profileOptions(settings, client.serverName, login.profile),
      profile: profile ? profileOption(profile) : { name: login.profile, label: login.profile },
    };
    return { form };
  }

  #failed(
    login: Login,
    reason: Reason,
    user = login.proven[0]?.user ?? '',
    method = login.methods.join('+'),
  ): void {
    this.#parts.attempts.failed({ method, profile: login.profile, address: login.address, user, reason });
  }
}

function selectsAnother(login: Login, request: ReplyRequest, settings: Settings): boolean {
  if (login.profileFixed || login.state === 'granted') return false;
  const selected = selectedProfile(settings, request.client.serverName, request.profile);
  return selected !== undefined && selected.name !== login.profile;
}

function sameNames(a: readonly string[], b: readonly string[] | undefined): boolean {
  return b !== undefined && a.length === b.length && a.every((name, index) => name === b[index]);
}

function grantedAnswer(session: Session) {
  const { id, user, profile, grant } = session;
  return {
    sessionId: id,
    user,
    profile,
    group: grant.group,
    banner: grant.banner,
    profileFile: grant.profileFile,
  };
}

/** A login has this many replies at the most, and each is one change that another reply may meet. */
const MAX_LOOKS = MAX_REPLIES;
const LOGIN_ID_BYTES = 16;
const FORM_TITLE = 'Login';
/** Refusals after right credentials that the client may know of; whether a user is locked is nobody's business. */
const TOLD_TO_CLIENTS: ReadonlySet<Reason> = new Set([
  'profile-forbidden',
  'profile-unknown',
  'policy-unreadable',
]);

function refusal(reason: Reason | ''): LoginAnswer {
  return { refused: { reason: reason || 'login-failed', text: reasonText(reason || 'login-failed') } };
}

function ignore(): void {
  // The outcome is the first caller's.
}
