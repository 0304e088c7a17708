/**
 * Which service answers which path: one table for edge, portal and downloader, and one way to read a request target,
 * so that the check and the handler can never see two different paths (docs/protocol.md §3.1).
 */

export type Route = 'portal' | 'downloader';

/** @param target as sent, with query. @returns undefined: answer 404, nobody serves this. */
export function routeOf(target: string): Route | undefined {
  const path = resourcePath(target);
  if (path === undefined) return undefined;
  const fixed = FIXED.get(path);
  if (fixed) return fixed;
  if (DOWNLOADER_FOLDERS.some((folder) => path.startsWith(folder))) return 'downloader';
  return profileOfPath(path) === undefined ? undefined : 'portal';
}

/**
 * The path that a target means: escapes decoded once, no query, no trailing slash (but `/` itself).
 * A spelling that others could read differently is refused: dot segments, empty segments, `;`, `\`, NUL and other
 * control characters, escapes that are broken, hide an escape or are not UTF-8.
 * @returns undefined: refused.
 */
export function resourcePath(target: string): string | undefined {
  if (target.length > MAX_TARGET_LENGTH || target.includes('#')) return undefined;
  const origin = ABSOLUTE_FORM.exec(target)?.[0] ?? '';
  const encoded = target.slice(origin.length).split('?', 1)[0] ?? '';
  let path: string;
  try {
    path = origin && !encoded ? '/' : decodeURIComponent(encoded);
  } catch {
    return undefined;
  }
  if (!path.startsWith('/') || AMBIGUOUS.test(path)) return undefined;
  if (path === '/') return path;
  const trimmed = path.endsWith('/') ? path.slice(0, -1) : path;
  const segments = trimmed.slice(1).split('/');
  return segments.some((segment) => segment === '' || segment === '.' || segment === '..')
    ? undefined
    : trimmed;
}

/** The connection profile that a path of the portal names (`/NAME`); undefined = the path is no group URL. */
export function profileOfPath(path: string): string | undefined {
  const name = path.slice(1);
  if (FIXED.has(path) || name === '' || name.includes('/') || RESERVED_NAME.test(name)) return undefined;
  return name.length <= MAX_PROFILE_NAME_LENGTH ? name : undefined;
}

/** Where logins begin and go on: all the same. */
export const LOGIN_PATHS: readonly string[] = ['/', '/auth', '/VPN', '/+webvpn+/index.html'];
export const LOGOUT_PATHS: readonly string[] = ['/logout', '/+webvpn+/webvpn_logout.html'];

const FIXED: ReadonlyMap<string, Route> = new Map<string, Route>([
  ...[...LOGIN_PATHS, ...LOGOUT_PATHS].map((path) => [path, 'portal'] as const),
  ['/VPNManifest.xml', 'downloader'],
  ['/+CSCOT+/translation-table', 'downloader'],
  ['/+CSCOT+/oem-customization', 'downloader'],
]);
const DOWNLOADER_FOLDERS: readonly string[] = ['/CACHE/stc/', '/profiles/', '/1/'];
/** First segments that are folders of somebody; never a profile. */
const RESERVED_NAME = /^(?:\+.*|CACHE|CSCOSSLC|profiles|1|svc)$/;

const ABSOLUTE_FORM = /^https?:\/\/[^/?]+/i;
const AMBIGUOUS = /[\u0000-\u001f\u007f-\u009f\\;%]/;

export const MAX_TARGET_LENGTH = 2048;
export const MAX_PROFILE_NAME_LENGTH = 64;
