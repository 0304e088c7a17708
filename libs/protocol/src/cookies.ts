/** Cookies of the gateway (docs/protocol.md §7). Their values are secrets, except `webvpnc`. */

export interface Cookies {
  /** Session token; '' = none. */
  webvpn: string;
  /** Id of the login; '' = none. */
  webvpncontext: string;
}

/**
 * Ours out of a `Cookie` header; others are passed over. Of a name that comes twice the first counts, whatever it holds.
 * A value that is longer than we give out or has other characters is as good as none.
 */
export function parseCookies(header: string): Cookies {
  const found = new Map<string, string>();
  for (const part of header.slice(0, MAX_COOKIE_HEADER_LENGTH).split(';', MAX_COOKIES)) {
    const at = part.indexOf('=');
    if (at < 1) continue;
    const name = part.slice(0, at).trim();
    if (!found.has(name)) found.set(name, part.slice(at + 1).trim());
  }
  return { webvpn: valid(found.get('webvpn')), webvpncontext: valid(found.get('webvpncontext')) };
}

export function formatContextCookie(loginId: string): string {
  return `webvpncontext=${valid(loginId)}; Path=/; Secure; HttpOnly`;
}

export function formatTokenCookie(token: string): string {
  return `webvpn=${valid(token)}; Path=/; Secure; HttpOnly`;
}

export interface DownloadHints {
  /** Of the certificate on this connection; 40 upper-case hex digits. */
  serverCertificateSha1: string;
  /** Only its last segment is told; '' = no profile. */
  profileUri: string;
  profileSha1: string;
}

/**
 * `webvpnc` for clients that find the downloader's files by cookie. Not HttpOnly: clients read it.
 * The profile's path is relative to `bu` and escaped: these clients ask for it undecoded.
 */
export function formatHintsCookie(hints: DownloadHints): string {
  const profile =
    hints.profileUri === ''
      ? ''
      : `&fu:profiles%2F${encodeURIComponent(hints.profileUri.split('/').at(-1) ?? '')}&fh:${hints.profileSha1}`;
  return `webvpnc=bu:/&p:t&iu:1/&sh:${hints.serverCertificateSha1}&lu:${LOCALISATION}${profile}; Path=/; Secure`;
}

export function clearCookie(name: 'webvpn' | 'webvpnc' | 'webvpncontext'): string {
  return `${name}=; Expires=Thu, 01 Jan 1970 22:00:00 GMT; Path=/; Secure${name === 'webvpnc' ? '' : '; HttpOnly'}`;
}

function valid(value = ''): string {
  return value.length <= MAX_COOKIE_VALUE_LENGTH && COOKIE_VALUE.test(value) ? value : '';
}

const LOCALISATION = '/+CSCOT+/translation-table?textdomain%3DAnyConnect%26type%3Dmanifest';
const COOKIE_VALUE = /^[A-Za-z0-9+/=_@.-]+$/;

/** Longest value that counts; ours are 43 characters. */
export const MAX_COOKIE_VALUE_LENGTH = 256;
export const MAX_COOKIES = 64;
const MAX_COOKIE_HEADER_LENGTH = 32 * 1024;
