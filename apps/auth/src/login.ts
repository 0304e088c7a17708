import type { Reason } from '@sallyport/protocol';
import type { FormField } from '@sallyport/cluster';
import type { MethodResult } from './method.ts';

/*
 * PURE. One Login: a conversation that may end in a Session.
 *
 *                         begin
 *                           │   methods without a form go first; one that fails ends the login
 *                           ▼
 *                         FORM  ◀────────────────┐
 *                           │  reply: the try is   │ wrong, tries left (an error above the form);
 *                           │  counted, then       │ or proven, and another method follows
 *                           │  verified            │
 *                           ├──────────────────────┤
 *                           ▼                      │
 *                       CHALLENGE ── reply ────────┤
 *                                                  │
 *      all methods proven, one user, policy: yes   ├─▶ GRANTED   the same reply again is verified again, and
 *                                                  │             gives a session of its own
 *      no try left, another user, policy: no       └─▶ REFUSED
 *
 * Another profile is another login that takes over the tries; past its time a login is forgotten, in any state. Each form has
 * its own handle `ID.STEP`. A reply with the handle of an earlier form is a repeat whose answer got lost (docs/protocol.md
 * §4.3): it gets the present form and changes nothing. Times are ms since 1970.
 */

/** In the order of the protocol. */
export type LoginState = 'form' | 'challenge' | 'granted' | 'refused';

/** As stored: JSON. */
export interface Login {
  /** Version of this form of the record; a newer one is refused. */
  v: number;
  /** 128 random bits, base64url: the right to go on with this login. */
  id: string;
  /** Grows with each change: two changes of the same state cannot both be stored. */
  revision: number;
  state: LoginState;
  /** Number of forms shown. */
  step: number;
  profile: string;
  /** The profile came from the URL: no list, no other profile. */
  profileFixed: boolean;
  /** Names of the profile's methods when the login began, in the order in which they are asked. */
  methods: string[];
  /** Index of the method that is asked. */
  method: number;
  challenge?: Challenge;
  /** Above the form; '' = none. */
  error: Reason | '';
  /** Wrong answers, and the one that is being verified. */
  tries: number;
  /** Replies in all. */
  replies: number;
  proven: Proof[];
  /** Why refused; '' = it is not. */
  reason: Reason | '';
  /** Of the session that was granted; '' = none. */
  sessionId: string;
  address: string;
  expiresAt: number;
}

export interface Proof {
  method: string;
  user: string;
  mark: string;
}

export interface Challenge {
  message: string;
  fields: FormField[];
  state: string;
}

export interface LoginLimits {
  authTimeoutSeconds: number;
  maxLoginTries: number;
}

export interface LoginStart {
  id: string;
  profile: string;
  profileFixed: boolean;
  methods: readonly string[];
  address: string;
  /** Wrong answers carried over from the login that this one replaces. */
  tries: number;
}

export type ReplyDecision =
  /** Store `login`, then verify its present method. */
  | { next: 'verify'; login: Login }
  /** Show the present form again: this reply was answered before. */
  | { next: 'show' }
  | { next: 'refuse'; reason: Reason };

export function beginLogin(start: LoginStart, limits: LoginLimits, now: number): Login {
  return {
    v: LOGIN_VERSION,
    id: start.id,
    revision: 0,
    state: 'form',
    step: 1,
    profile: start.profile,
    profileFixed: start.profileFixed,
    methods: [...start.methods],
    method: 0,
    error: '',
    tries: start.tries,
    replies: 0,
    proven: [],
    reason: '',
    sessionId: '',
    address: start.address,
    expiresAt: now + limits.authTimeoutSeconds * 1000,
  };
}

/** @param step of the handle that came with the reply. */
export function handleReply(login: Login, step: number, limits: LoginLimits, now: number): ReplyDecision {
  if (now >= login.expiresAt) return { next: 'refuse', reason: 'login-expired' };
  if (login.state === 'refused') return { next: 'refuse', reason: login.reason || 'login-failed' };
  // Fail closed: a handle that was never given out, and a form from before the one that was granted.
  if (step > login.step || (step < login.step && login.state === 'granted')) {
    return { next: 'refuse', reason: 'login-expired' };
  }
  if (step < login.step) return { next: 'show' };
  if (login.tries >= limits.maxLoginTries || login.replies >= MAX_REPLIES) {
    return { next: 'refuse', reason: 'login-tries-exhausted' };
  }
  return { next: 'verify', login: changed(login, { tries: login.tries + 1, replies: login.replies + 1 }) };
}

/**
 * Of a login that is not granted: what the present method said about a reply that was counted, or about the facts of the connection.
 * @param asksForm the method shows a form: a wrong answer may be tried again.
 */
export function handleVerified(
  login: Login,
  result: MethodResult,
  asksForm: boolean,
  limits: LoginLimits,
): Login {
  const tries = asksForm ? login.tries - 1 : login.tries;
  switch (result.type) {
    case 'proven':
      return handleProof(changed(login, { tries, error: '' }), result);
    case 'challenge': {
      const { message, fields, state } = result;
      return changed(login, {
        state: 'challenge',
        step: login.step + 1,
        challenge: { message, fields, state },
        tries,
        error: '',
      });
    }
    case 'refused':
      return handleRefusal(login, result.reason, asksForm, limits);
  }
}

export function refuseLogin(login: Login, reason: Reason): Login {
  const { challenge: _, ...rest } = login;
  return changed(rest, { state: 'refused', reason });
}

/** A repeat of the reply that was granted: does it prove the same again? Nothing else changes a granted login. */
export function confirmsGrant(login: Login, result: MethodResult): boolean {
  return login.state === 'granted' && result.type === 'proven' && result.user === login.proven[0]?.user;
}

/** The session exists; the record stays a while for a reply that comes again. */
export function grantLogin(login: Login, sessionId: string, now: number): Login {
  return changed(login, { state: 'granted', sessionId, expiresAt: now + REPEAT_SECONDS * 1000 });
}

/** Everything that the profile asks for is proven. */
export function isProven(login: Login): boolean {
  return (
    login.state !== 'refused' && login.methods.length > 0 && login.proven.length === login.methods.length
  );
}

export function formatHandle(login: Login): string {
  return `${login.id}.${login.step}`;
}

export function parseHandle(handle: string): { id: string; step: number } | undefined {
  const match = HANDLE.exec(handle);
  return match ? { id: match[1] ?? '', step: Number(match[2]) } : undefined;
}

function handleProof(login: Login, { user, mark }: { user: string; mark: string }): Login {
  if (login.proven.some((proof) => proof.user !== user))
    return refuseLogin(login, 'certificate-user-mismatch');
  const proven = [...login.proven, { method: login.methods[login.method] ?? '', user, mark }];
  // The last challenge stays: a repeat of the reply that was granted is verified against it.
  if (proven.length === login.methods.length) return { ...login, proven };
  const { challenge: _, ...rest } = login;
  return { ...rest, proven, state: 'form', method: login.method + 1, step: login.step + 1 };
}

function handleRefusal(login: Login, reason: Reason, asksForm: boolean, limits: LoginLimits): Login {
  if (!asksForm) return refuseLogin(login, reason);
  // Our own limit is not the user's mistake.
  const tries = reason === 'login-limit' ? login.tries - 1 : login.tries;
  if (tries >= limits.maxLoginTries) return refuseLogin(login, 'login-tries-exhausted');
  const { challenge: _, ...rest } = login;
  return changed(rest, { state: 'form', step: login.step + 1, error: reason, tries });
}

function changed(login: Login, change: Partial<Login>): Login {
  return { ...login, ...change, revision: login.revision + 1 };
}

export const LOGIN_VERSION = 1;
/** Replies to one login, whatever they say: challenges do not count as tries, so something else must end them. */
export const MAX_REPLIES = 32;
/** How long a reply may be repeated after it was granted: clients retry a lost request at once. */
export const REPEAT_SECONDS = 60;

const HANDLE = /^([A-Za-z0-9_-]{22})\.([1-9]\d{0,3})$/;
