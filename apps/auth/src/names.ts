/** Longest user or group name, in UTF-16 units; ocserv has the same limit in bytes. */
export const MAX_NAME_LENGTH = 64;

/**
 * Why this is no name of a user; '' = it is one. No file is ever named after a user, but names stand in lines with
 * colons, in logs and on terminals, and in paths of other people's scripts. A single `/` inside is fine
 * (ocserv's own tests log `sp@c/al` in), a path that leads elsewhere is not.
 */
export function userNameProblem(name: string): string {
  if (name === '') return 'a name is missing';
  if (name.length > MAX_NAME_LENGTH) return `a name has at most ${MAX_NAME_LENGTH} characters`;
  if (CONTROL.test(name)) return 'a name holds no control characters';
  if (name.includes(':')) return "a name holds no ':'";
  if (name.includes('\\')) return "a name holds no '\\'";
  if (name.trim() !== name) return 'a name neither begins nor ends with a blank';
  if (name.startsWith('#')) return "a name does not begin with '#'";
  if (name.includes('..') || name.split('/').some((part) => part === '' || part === '.'))
    return 'a name is no path';
  return '';
}

/** Why this is no name of a group; '' = it is one. */
export function groupNameProblem(name: string): string {
  if (name.includes(',')) return "a group holds no ','";
  if (name.includes('/')) return "a group holds no '/'";
  if (name === '*') return "'*' means no group";
  return userNameProblem(name);
}

/** C0, DEL, C1, lone surrogates, line and paragraph separators, and marks that change the direction of text. */
const CONTROL = /[\p{Cc}\p{Cs}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/u;
