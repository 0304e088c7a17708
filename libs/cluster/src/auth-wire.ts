/**
 * What comes back over gRPC from auth and the catalog, as the interfaces say it. The loader gives every field its default;
 * what it cannot know is checked here: that there is exactly one answer, and that reasons are ours.
 */
import { REASONS, type Reason } from '@sallyport/protocol';
import type {
  Announcement,
  BeginRequest,
  LoginAnswer,
  LoginForm,
  LogoutResponse,
  LookupResponse,
  ReplyRequest,
} from './auth-service.ts';
import type { Account, PolicyExplained } from './accounts.ts';
import { fromWire } from './wire.ts';

/** A message that breaks the contract: never taken for an answer or a question. */
export class WireError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'WireError';
  }
}

/** @throws WireError */
export function beginRequestFrom(message: unknown): BeginRequest {
  const request = object(message);
  object(request['client'], 'client facts are missing');
  return request as unknown as BeginRequest; // the loader made the rest by the contract
}

/** @throws WireError */
export function replyRequestFrom(message: unknown): ReplyRequest {
  const request = object(message);
  object(request['client'], 'client facts are missing');
  object(request['answers'], 'answers are missing');
  return request as unknown as ReplyRequest; // the loader made the rest by the contract
}

/** @throws WireError */
export function loginAnswerFrom(message: unknown): LoginAnswer {
  const answer = object(fromWire(message));
  const [name, ...more] = Object.keys(answer);
  if (more.length > 0 || name === undefined) throw new WireError('auth gave no answer, or several');
  if (name === 'refused') {
    const { reason, text } = object(answer[name]);
    return { refused: { reason: reasonFrom(reason), text: String(text) } };
  }
  if (name === 'form') {
    const form = object(answer[name]);
    object(form['profile'], 'a form names no profile');
    return { form: form as unknown as LoginForm }; // the loader made the rest by the contract
  }
  if (name !== 'granted' && name !== 'certificateRequest') throw new WireError(`auth gave an unknown answer`);
  if (name === 'granted' && object(answer[name])['token'] === '')
    throw new WireError('auth granted a login without a token');
  return answer;
}

export function logoutFrom(message: unknown): LogoutResponse {
  return { ended: object(message)['ended'] === true };
}

export function lookupFrom(message: unknown): LookupResponse {
  const answer = object(fromWire(message)) as unknown as LookupResponse; // texts by the contract
  return { ...answer, live: object(message)['live'] === true };
}

export function announcementFrom(message: unknown): Announcement {
  return object(fromWire(message)) as unknown as Announcement; // texts and lists by the contract
}

export function accountsFrom(message: unknown): Account[] {
  const { accounts } = object(message);
  if (!Array.isArray(accounts)) throw new WireError('accounts are missing');
  return accounts as Account[]; // by the contract
}

export function problemFrom(message: unknown): string {
  return String(object(message)['problem']);
}

export function explainedFrom(message: unknown): PolicyExplained {
  const explained = object(message) as unknown as PolicyExplained; // by the contract
  return { ...explained, refused: explained.refused === '' ? '' : reasonFrom(explained.refused) };
}

/** One of a newer version is some refusal or end still. */
export function reasonFrom(text: unknown): Reason {
  return typeof text === 'string' && isReason(text) ? text : 'unspecified';
}

export function isReason(text: string): text is Reason {
  return Object.hasOwn(REASONS, text);
}

function object(value: unknown, problem = 'a message is missing'): Record<string, unknown> {
  if (typeof value !== 'object' || value === null) throw new WireError(problem);
  return value as Record<string, unknown>;
}
