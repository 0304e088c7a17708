import { FIELD_NAME, HANDLE_ELEMENT } from './config-auth.ts';
import { packagesXml, profileManifestXml, type PackageFile } from './manifest.ts';
import { clipText, escapeXml } from './xml.ts';

/**
 * What the gateway answers in phases 2 and 3 (docs/protocol.md §4). All texts are escaped here; callers pass them raw.
 * `bare` leaves out everything but `<auth>`, for clients that know no `config-auth`.
 */
export type DocumentStyle = 'config-auth' | 'bare';

/** A form: the first one, the same again with an error, or a challenge. */
export interface FormDocument {
  loginId: string;
  /** `main`, `challenge` …: anything but `success`. */
  id: string;
  title: string;
  /** Pre-login banner; '' = none. */
  banner: string;
  message: string;
  /** '' = none. */
  error: string;
  /** Path that the client posts to, and that it takes as its group URL from then on. */
  action: string;
  /** In the order in which the client asks; names are XML names. */
  fields: readonly { name: string; kind: 'text' | 'password' | 'hidden'; label: string; value: string }[];
  /** Chosen one first; empty = no list. */
  profiles: readonly { name: string; label: string }[];
  profile: { name: string; label: string };
}

export function renderForm(form: FormDocument, style: DocumentStyle): string {
  const inner =
    textElement('title', form.title, MAX_TEXT_BYTES) +
    (form.message && textElement('message', form.message, MAX_TEXT_BYTES)) +
    textElement('banner', form.banner, MAX_BANNER_BYTES) +
    (form.error && errorElement(form.error)) +
    `<form method="post" action="${escapeXml(form.action)}">\n` +
    form.fields.map(inputElement).join('') +
    selectElement(form.profiles) +
    '</form>\n';
  return authRequest(form.id, inner, style, opaque(form.loginId, form.profile));
}

/** A refusal without a form ends the client's try; the text stands inside `<auth>`, or clients do not show it. */
export function renderRefusal(text: string, style: DocumentStyle): string {
  const inner = textElement('title', REFUSAL_TITLE, MAX_TEXT_BYTES) + errorElement(text);
  return authRequest('main', inner, style, '');
}

/** Asks for the login to begin again on a new TLS connection with a certificate. Only in `config-auth`. */
export function renderCertificateRequest(login: { loginId: string; profile: string }): string {
  const handle = opaque(login.loginId, { name: login.profile, label: login.profile });
  return configAuth('auth-request', `${handle}<client-cert-request></client-cert-request>\n`);
}

export interface CompleteDocument {
  sessionId: string;
  /** Secret: later the value of the `webvpn` cookie. */
  token: string;
  title: string;
  /** '' = none. */
  banner: string;
  /** 40 upper-case hex digits. */
  serverCertificateSha1: string;
  basePackageUri: string;
  /** e.g. `0,0,0000`. */
  packageVersion: string;
  packages: readonly PackageFile[];
  /** '' = none. */
  profileUri: string;
  profileSha1: string;
}

export function renderComplete(complete: CompleteDocument, style: DocumentStyle): string {
  const title = textElement('title', complete.title, MAX_TEXT_BYTES);
  const banner = textElement('banner', complete.banner, MAX_BANNER_BYTES);
  if (style === 'bare')
    return `${DECLARATION}<auth id="success">\n${title}${banner}<message>Success</message><success/>\n</auth>\n`;
  return configAuth(
    'complete',
    `<session-id>${escapeXml(complete.sessionId)}</session-id>\n` +
      `<session-token>${escapeXml(complete.token)}</session-token>\n` +
      `<auth id="success">\n${title}${banner}<message id="0" param1="" param2=""></message>\n</auth>\n` +
      '<capabilities><crypto-supported>ssl-dhe</crypto-supported></capabilities>\n' +
      configElement(complete),
  );
}

export function renderLoggedOut(): string {
  return configAuth('complete', '<auth id="logout"><message>Logged out.</message></auth>\n');
}

function configElement(complete: CompleteDocument): string {
  const { basePackageUri, serverCertificateSha1, packageVersion } = complete;
  return (
    '<config client="vpn" type="private">\n<vpn-base-config>\n' +
    `<base-package-uri>${escapeXml(basePackageUri)}</base-package-uri>\n` +
    `<server-cert-hash>${escapeXml(serverCertificateSha1)}</server-cert-hash>\n</vpn-base-config>\n` +
    '<opaque is-for="vpn-client">\n' +
    `<vpn-client-pkg-version><pkgversion>${escapeXml(packageVersion)}</pkgversion></vpn-client-pkg-version>\n` +
    `<vpn-core-manifest>${packagesXml(complete.packages)}</vpn-core-manifest>\n</opaque>\n` +
    `<vpn-profile-manifest>${profileManifestXml(complete.profileUri, complete.profileSha1)}</vpn-profile-manifest>\n` +
    '</config>\n'
  );
}

function authRequest(id: string, inner: string, style: DocumentStyle, opaqueXml: string): string {
  const auth = `<auth id="${escapeXml(id)}">\n${inner}</auth>\n`;
  return style === 'bare' ? DECLARATION + auth : configAuth('auth-request', opaqueXml + auth);
}

function configAuth(type: string, inner: string): string {
  return `${DECLARATION}<config-auth client="vpn" type="${type}" aggregate-auth-version="2">\n${inner}</config-auth>\n`;
}

/** Only the handle is read when it comes back; the names are there because clients expect them. */
function opaque(loginId: string, profile: { name: string; label: string }): string {
  return (
    `<opaque is-for="sg">\n<tunnel-group>${escapeXml(profile.name)}</tunnel-group>\n` +
    `<group-alias>${escapeXml(profile.label)}</group-alias>\n` +
    `<${HANDLE_ELEMENT}>${escapeXml(loginId)}</${HANDLE_ELEMENT}>\n</opaque>\n`
  );
}

function inputElement({ name, kind, label, value }: FormDocument['fields'][number]): string {
  if (!FIELD_NAME.test(name)) throw new RangeError('a field needs an XML name');
  const given = value === '' ? '' : ` value="${escapeXml(value)}"`;
  return `<input type="${kind}" name="${name}" label="${escapeXml(label)}"${given}></input>\n`;
}

function selectElement(profiles: FormDocument['profiles']): string {
  if (profiles.length === 0) return '';
  const options = profiles.map(({ name, label }, index) => {
    const selected = index === 0 ? ' selected="true"' : '';
    return `<option value="${escapeXml(name)}"${selected}>${escapeXml(label)}</option>\n`;
  });
  return `<select name="group_list" label="GROUP:">\n${options.join('')}</select>\n`;
}

function errorElement(text: string): string {
  return `<error id="${ERROR_ID}" param1="" param2="">${shownText(text, MAX_TEXT_BYTES)}</error>\n`;
}

function textElement(name: string, text: string, maxBytes: number): string {
  return `<${name}>${shownText(text, maxBytes)}</${name}>\n`;
}

/** Clients replace `%s` by param1 and param2 (docs/protocol.md §4.4). */
function shownText(text: string, maxBytes: number): string {
  return escapeXml(clipText(text.replaceAll('%s', '% s').replaceAll('\r\n', '\n'), maxBytes));
}

const DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n';
const REFUSAL_TITLE = 'Login';
/** Clients show the text whatever the number; those below 80 mean something to some of them. */
const ERROR_ID = 91;

/** Old clients copy banners into buffers of about this size. */
export const MAX_BANNER_BYTES = 496;
export const MAX_TEXT_BYTES = 496;
