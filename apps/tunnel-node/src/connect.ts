/**
 * Whether a CONNECT is let in (docs/protocol.md §5):
 *
 *  1. parse     head of the request
 *  2. find      the session, by the hash of its token
 *  3. strap     is it the client that logged in?
 *  4. mtu       what the client's link carries; too little means no IPv6
 *  5. claim     the store gives this node the lease and the addresses, and tells the former owner
 */
import { randomUUID } from 'node:crypto';
import {
  hashToken,
  type Claimed,
  type ClaimRequest,
  type Micros,
  type NodeIdentity,
  type Session,
  type Sessions,
} from '@sallyport/cluster';
import {
  parseConnect,
  statusOf,
  tlsOverhead,
  tunnelMtu,
  type ConnectRequest,
  type Reason,
  type TunnelMtu,
} from '@sallyport/protocol';
import type { ConnectHead } from './edge.ts';
import type { StreamFacts } from './listener.ts';
import { checkStrap, type StrapMode } from './strap.ts';

export interface Admission {
  sessions: Sessions;
  node: NodeIdentity;
  strap: StrapMode;
  /** The latest epoch that this node knows of. */
  seenEpoch: () => Micros;
}

export interface Admitted {
  ok: true;
  request: ConnectRequest;
  claim: Claimed;
  mtu: TunnelMtu;
  /** Who had a tunnel of the session when it was found; absent = nobody. */
  former?: FormerOwner;
}

export interface FormerOwner extends NodeIdentity {
  epoch: Micros;
}

/** 401 = log in again, 503 = come back later. */
export interface NotAdmitted {
  ok: false;
  reason: Reason;
  status: 401 | 503;
  /** The session that could have been; absent when there is none or it has ended. */
  session?: Session;
}

/** @throws ProtocolError, StoreUnavailable */
export async function admit(
  head: ConnectHead,
  facts: StreamFacts,
  { sessions, node, strap, seenEpoch }: Admission,
): Promise<Admitted | NotAdmitted> {
  // 1. parse
  const request = parseConnect(head.target, joinedCookies(head.rawHeaders));
  if (request.token === '') return refusal('token-missing');
  if (request.token.length > MAX_TOKEN_LENGTH) return refusal('token-unknown');
  // 2. find
  const tokenHash = hashToken(request.token);
  const session = await sessions.find(tokenHash);
  if (session === undefined) return refusal('token-unknown');
  // Whatever ended it, it does not come back.
  if (session.state === 'closed') return refusal(session.endReason || 'token-unknown', 401);
  // 3. strap
  const verdict = checkStrap(strap, session.strapKeys, {
    verify: request.strapVerify,
    pubkey: request.strapPubkey,
    clientFinished: facts.clientFinished,
  });
  if (!verdict.ok) return { ...refusal('strap-failed'), session };
  // 4. mtu
  const mtu = mtuFor(request, facts, session);
  // 5. claim
  const claim = await sessions.claim({
    tokenHash,
    node,
    connectionId: randomUUID(),
    wantIpv4: request.wantIpv4,
    wantIpv6: request.wantIpv6 && mtu.ipv6Fits,
    client: clientOf(request, facts),
    strapKey: verdict.nextKey,
    strapProved: verdict.provedKey,
    mtuBytes: mtu.mtuBytes,
    seenEpoch: seenEpoch(),
  });
  if (!claim.ok) return { ...refusal(claim.reason), session };
  const former = session.state === 'up' && session.lease;
  return { ok: true, request, claim, mtu, ...(former && { former }) };
}

/** Several Cookie headers are one, as for other requests. */
function joinedCookies(rawHeaders: readonly string[]): string[] {
  const others: string[] = [];
  const cookies: string[] = [];
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const [name = '', value = ''] = rawHeaders.slice(at, at + 2);
    if (name.toLowerCase() === 'cookie') cookies.push(value);
    else others.push(name, value);
  }
  return cookies.length === 0 ? others : [...others, 'Cookie', cookies.join('; ')];
}

function refusal(reason: Reason, status = statusOf(reason)): NotAdmitted {
  return { ok: false, reason, status };
}

function clientOf(request: ConnectRequest, facts: StreamFacts): ClaimRequest['client'] {
  return {
    address: facts.peerAddress,
    userAgent: request.userAgent.slice(0, MAX_TEXT_LENGTH),
    platform: request.platform.slice(0, MAX_TEXT_LENGTH),
    hostname: request.hostname.slice(0, MAX_TEXT_LENGTH),
  };
}

function mtuFor(request: ConnectRequest, facts: StreamFacts, session: Session): TunnelMtu {
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

/** Characters; ours have 43. */
const MAX_TOKEN_LENGTH = 512;
/** Characters of each text that a client says about itself. */
const MAX_TEXT_LENGTH = 256;
