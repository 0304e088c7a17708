/** What a CONNECT asks for, and which status refuses it (docs/protocol.md §5). */
import type { Micros, Session } from '@sallyport/cluster';
import {
  tlsOverhead,
  tunnelMtu,
  type ConnectRequest,
  type Reason,
  type TunnelMtu,
} from '@sallyport/protocol';
import type { StreamFacts } from './listener.ts';

export function mtuFor(request: ConnectRequest, facts: StreamFacts, session: Session): TunnelMtu {
  return tunnelMtu({
    baseMtuBytes: request.baseMtuBytes,
    mtuBytes: request.mtuBytes,
    outer: facts.peerAddress.includes(':') ? 'ipv6' : 'ipv4',
    tls: tlsOverhead(facts.tlsVersion, facts.cipher),
    limitBytes: smaller(session.grant.mtuBytes, session.mtuBytes),
  });
}

/** Of two limits, 0 = none. A reconnect never gets a larger MTU than the first tunnel: clients have overrun buffers. */
function smaller(a: number, b: number): number {
  return a === 0 || b === 0 ? Math.max(a, b) : Math.min(a, b);
}

/** Until the session's absolute limit; 0 = no limit. The store refuses a session that is past it. */
export function remainingSeconds(session: Session, now: Micros): number {
  const limit = session.grant.sessionTimeoutSeconds;
  if (limit === 0) return 0;
  const age = Number(now - session.createdAt) / 1e6;
  return Math.max(1, Math.round(limit - age));
}

/** These are final: the client must log in again. Everything else is 503: come back with the same token (C1). */
export function statusOf(reason: Reason): 401 | 503 {
  return LOG_IN_AGAIN.has(reason) ? 401 : 503;
}

const LOG_IN_AGAIN: ReadonlySet<Reason> = new Set<Reason>([
  'token-missing',
  'token-unknown',
  'cookie-timeout',
  'disconnected-timeout',
  'session-timeout',
  'idle-timeout',
  'strap-failed',
  'user-disconnect',
  'server-disconnect',
  'logout',
  'terminated',
  'replaced',
  'user-locked',
  'user-deleted',
  'password-changed',
]);

/** Characters; ours have 43. */
export const MAX_TOKEN_LENGTH = 512;
/** Characters of each text that a client says about itself. */
export const MAX_TEXT_LENGTH = 256;
