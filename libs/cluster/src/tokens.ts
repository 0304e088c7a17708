import { createHash, randomBytes } from 'node:crypto';

/** The `webvpn` cookie's value: 32 random bytes, base64url without padding. Never stored, logged or put in an event. */
export function newToken(): string {
  return randomBytes(TOKEN_BYTES).toString('base64url');
}

/** What a store may hold of a token: SHA-256, lower-case hex. The token has full entropy, so no salt is needed. */
export function hashToken(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

/** Names a session in events and for operators; gives no right. */
export function newSessionId(): string {
  return randomBytes(SESSION_ID_BYTES).toString('hex');
}

export const TOKEN_BYTES = 32;
export const SESSION_ID_BYTES = 16;
