import { ProtocolError } from './errors.ts';
import { childOf, parseXml, withoutXmlDeclaration, type XmlElement } from './xml.ts';

/**
 * What clients say in phases 2 and 3 (docs/protocol.md §4): `config-auth` documents, and the older forms that say
 * the same by url-encoded fields. Answers are in config-auth-answer.ts.
 *
 * Of elements and fields that come twice the first counts; unknown ones are passed over.
 */
export type ClientMessage = InitMessage | AuthReplyMessage | LogoutMessage | UnexpectedMessage;

export interface InitMessage {
  type: 'init';
  /** Value or label, as the client sent it; '' = none. */
  groupSelect: string;
  /** URL that the client was given: its path may name a connection profile; '' = none. */
  groupAccess: string;
  device: DeviceFacts;
  /** `<auth-method>` of `<capabilities>`, e.g. `single-sign-on-v2`. */
  capabilities: string[];
  /** The client was asked for a certificate and has none. */
  certificateFailed: boolean;
}

export interface AuthReplyMessage {
  type: 'auth-reply';
  groupSelect: string;
  device: DeviceFacts;
  /** From `<opaque>`; '' = none that could be one of ours. */
  loginId: string;
  /** Field name to value, not trimmed. */
  answers: Record<string, string>;
}

export interface LogoutMessage {
  type: 'logout';
  /** Secret. '' = none. */
  token: string;
}

/** Well-formed, but nothing that a client says here: another `type`, another root. */
export interface UnexpectedMessage {
  type: 'unexpected';
  /** For logs; shortened, printable ASCII only. */
  given: string;
}

/** What the client says about its device; untrusted. */
export interface DeviceFacts {
  /** `win`, `mac-intel`, `linux-64`, `android`, `apple-ios` …; '' = not said. */
  platform: string;
  version: string;
  computerName: string;
}

/** Whether a body is XML is told by its first character that is not blank, never by its Content-Type. */
export function looksLikeXml(body: string): boolean {
  return /^[\s\ufeff]*</.test(body.slice(0, MAX_LEADING_BLANKS));
}

/** @throws ProtocolError when the text is not well-formed or breaks a limit. */
export function parseConfigAuth(body: string): ClientMessage {
  const root = parseXml(withoutXmlDeclaration(body));
  if (root.name !== 'config-auth') return { type: 'unexpected', given: forLog(root.name) };
  const type = root.attributes.get('type') ?? '';
  const groupSelect = groupName(childOf(root, 'group-select')?.text ?? '');
  switch (type) {
    case 'init':
      return {
        type,
        groupSelect,
        groupAccess: (childOf(root, 'group-access')?.text ?? '').trim().slice(0, MAX_URL_LENGTH),
        device: deviceOf(root),
        capabilities: capabilitiesOf(root),
        certificateFailed: childOf(root, 'client-cert-fail') !== undefined,
      };
    case 'auth-reply':
      return {
        type,
        groupSelect,
        device: deviceOf(root),
        loginId: loginIdOf(root),
        answers: answersOf(root),
      };
    case 'logout':
      return { type, token: (childOf(root, 'session-token')?.text ?? '').trim().slice(0, MAX_TOKEN_LENGTH) };
    default:
      return { type: 'unexpected', given: forLog(type) };
  }
}

/**
 * The older form: fields of an url-encoded POST. A body with nothing but a group starts or restarts a login, as `init`
 * does; anything else answers the last form. The login is found by its cookie.
 * @throws ProtocolError
 */
export function parseForm(body: string): InitMessage | AuthReplyMessage {
  const fields = parseUrlEncoded(body);
  const groupSelect = groupName(fields.get('group_list') ?? '');
  const answers = new Map([...fields].filter(([name]) => name !== 'group_list' && !BUTTONS.has(name)));
  const device = { platform: '', version: '', computerName: '' };
  if (answers.size === 0)
    return { type: 'init', groupSelect, groupAccess: '', device, capabilities: [], certificateFailed: false };
  return { type: 'auth-reply', groupSelect, device, loginId: '', answers: Object.fromEntries(answers) };
}

function parseUrlEncoded(body: string): Map<string, string> {
  const pairs = body.trim().split('&', MAX_ANSWERS + 1);
  if (pairs.length > MAX_ANSWERS) throw new ProtocolError('form has too many fields');
  const fields = new Map<string, string>();
  for (const pair of pairs) {
    const at = pair.indexOf('=');
    if (at < 1) continue;
    const name = decodeComponent(pair.slice(0, at));
    if (!FIELD_NAME.test(name) || fields.has(name)) continue;
    fields.set(name, bounded(decodeComponent(pair.slice(at + 1))));
  }
  return fields;
}

function decodeComponent(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    throw new ProtocolError('form has a broken escape');
  }
}

function answersOf(root: XmlElement): Record<string, string> {
  const answers = new Map<string, string>();
  for (const { name, text, children } of childOf(root, 'auth')?.children ?? []) {
    if (children.length > 0 || !FIELD_NAME.test(name) || answers.has(name)) continue;
    answers.set(name, bounded(text));
    if (answers.size > MAX_ANSWERS) throw new ProtocolError('reply has too many fields');
  }
  return Object.fromEntries(answers);
}

function bounded(value: string): string {
  if (value.length > MAX_ANSWER_LENGTH) throw new ProtocolError('field is too long');
  return value;
}

/** `<opaque>` may hold anything by the time it comes back; only our own handle is taken from it. */
function loginIdOf(root: XmlElement): string {
  const id = (childOf(childOf(root, 'opaque'), HANDLE_ELEMENT)?.text ?? '').trim();
  return LOGIN_ID.test(id) ? id : '';
}

function deviceOf(root: XmlElement): DeviceFacts {
  const device = childOf(root, 'device-id');
  return {
    platform: shortText(device?.text),
    version: shortText(childOf(root, 'version')?.text),
    computerName: shortText(device?.attributes.get('computer-name')),
  };
}

function capabilitiesOf(root: XmlElement): string[] {
  return (childOf(root, 'capabilities')?.children ?? [])
    .filter(({ name }) => name === 'auth-method')
    .slice(0, MAX_CAPABILITIES)
    .map(({ text }) => shortText(text));
}

function groupName(text: string): string {
  const name = text.trim();
  return name.length <= MAX_GROUP_LENGTH ? name : '';
}

function shortText(text = ''): string {
  return text.trim().slice(0, MAX_SHORT_TEXT_LENGTH);
}

function forLog(text: string): string {
  return text.slice(0, MAX_SHORT_TEXT_LENGTH).replace(/[^\x20-\x7e]/g, '?');
}

/** Element of `<opaque>` that carries the login's id (docs/protocol.md §4.3). */
export const HANDLE_ELEMENT = 'aggauth-handle';
/** An id that is not of this form is none of ours. */
export const LOGIN_ID = /^[A-Za-z0-9_.-]{1,128}$/;
/** Also of forms that we send: clients use the name as an element. */
export const FIELD_NAME = /^(?!__proto__$)[A-Za-z_][A-Za-z0-9_.-]{0,63}$/;
/** Fields that only say which button was pressed. */
const BUTTONS: ReadonlySet<string> = new Set(['Login', 'Logout', 'Continue', 'login', 'submit']);

export const MAX_ANSWERS = 32;
export const MAX_ANSWER_LENGTH = 8192;
/** A longer one is as good as none. */
export const MAX_GROUP_LENGTH = 256;
const MAX_URL_LENGTH = 2048;
const MAX_TOKEN_LENGTH = 256;
const MAX_CAPABILITIES = 32;
const MAX_SHORT_TEXT_LENGTH = 128;
const MAX_LEADING_BLANKS = 1024;
