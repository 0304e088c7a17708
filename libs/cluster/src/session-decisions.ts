/*
 * What the rules of a session say: pure functions from a record and a request to events or a refusal. The memory form
 * gathers the context, takes the decision and makes it durable in one step. A form whose one step happens elsewhere, as
 * a script in Redis, cannot call them: it has the same rules in its own language, and what makes them the same is
 * sessions.contract.ts, which every form passes. So a rule of this file needs a test there.
 *
 * A claim, in this order:
 *   1. the same connection again: the lease that it has, or `superseded` when another CONNECT came later
 *   2. closed, or past one of its lifetimes: refused (and ended)
 *   3. CONNECT rate of this token
 *   4. an address family that is wanted and offered
 *   5. limits: per user (refuse, or the oldest goes; of too many parked ones the oldest goes), then in all
 *   6. addresses: those that the session has, else fixed, sticky or free ones; where the pools are empty the session
 *      parked longest yields, one of the same user first
 *   7. a higher epoch, the lease, the event
 */
import type { Grant, Reason } from '@sallyport/protocol';
import { epochOf, isEpoch, sameLease, SESSION_VERSION, STRAP_KEYS_KEPT } from './session.ts';
import type { EventOf, Lease, Micros, Session, SessionAddresses, SessionEvent } from './session.ts';
import type { ClaimRequest, NewSession, SessionLimits, Usage } from './sessions.ts';

export function decideStart(input: NewSession, sessionId: string, now: Micros): EventOf<'started'> {
  return {
    v: SESSION_VERSION,
    type: 'started',
    sessionId,
    epoch: 0n,
    n: 1,
    at: now,
    tokenHash: input.tokenHash,
    user: input.user,
    profile: input.profile,
    grant: input.grant,
    origins: input.origins,
    client: input.client,
    strapKeys: input.strapKey === '' ? [] : [input.strapKey],
  };
}

/** What a claim depends on besides its session. */
export interface ClaimContext {
  now: Micros;
  limits: SessionLimits;
  /** Other sessions with a tunnel: in all, and those of the same user. */
  upInAll: number;
  upOfUser: readonly Session[];
  /** Other sessions of the same user that are parked. */
  parkedOfUser: readonly Session[];
  /** CONNECTs of this token in the last minute. */
  connects: number;
  /** Did this connection have a lease of this session before? */
  hadLease: boolean;
  /** Who holds the fixed address of the grant, if it is another session. */
  fixedHolder(family: Family): Session | undefined;
  /** Other parked sessions with an address that the pools of the grant may give. Asked only when these are empty. */
  parkedInPools(family: Family): readonly Session[];
  /** Chooses for these families, as if `leaving` had ended already. */
  choose(families: Families, leaving: readonly Session[]): SessionAddresses | Reason;
}

export type Family = 'ipv4' | 'ipv6';
export type Families = Record<Family, boolean>;
export const FAMILIES: readonly Family[] = ['ipv4', 'ipv6'];

export type ClaimDecision =
  | { type: 'refused'; reason: Reason; events: SessionEvent[] }
  | { type: 'repeated'; lease: Lease; addresses: SessionAddresses }
  | { type: 'claimed'; lease: Lease; addresses: SessionAddresses; resumed: boolean; events: SessionEvent[] };

export function decideClaim(session: Session, request: ClaimRequest, context: ClaimContext): ClaimDecision {
  const { now } = context;
  const families = familiesOf(session.grant, request);
  if (session.state === 'up' && session.lease?.claimId === request.connectionId) {
    return { type: 'repeated', lease: session.lease, addresses: offered(session.addresses, families) };
  }
  if (session.state === 'closed') return refused(closedReason(session));
  const over = outlived(session, now);
  if (over !== undefined) return { type: 'refused', reason: over, events: [endedEvent(session, over, now)] };
  if (context.hadLease) return refused('superseded');
  const { connectsPerMinute } = context.limits;
  if (connectsPerMinute > 0 && context.connects >= connectsPerMinute) return refused('connect-rate');
  if (!families.ipv4 && !families.ipv6) return refused('no-address-family');

  const leaving = makeRoom(session, context, families);
  if (typeof leaving === 'string') return refused(leaving);
  const chosen = chooseOrYield(session, context, families, leaving);
  if (typeof chosen === 'string') return refused(chosen);

  const claim = claimedEvent(session, request, chosen, now);
  return {
    type: 'claimed',
    lease: claim.lease,
    addresses: offered(chosen, families),
    resumed: claim.resumed,
    events: [...leaving.map((other) => endedEvent(other, 'replaced', now)), claim],
  };
}

/** Why a session is past its time; undefined = it is not. Equal counts as past. */
export function outlived(session: Session, now: Micros): Reason | undefined {
  const end = lifetimeEnd(session);
  return end !== undefined && now >= end.at ? end.reason : undefined;
}

/** When a session that nobody touches ends, and why: the earlier of its state's lifetime and the session timeout. */
export function lifetimeEnd(session: Session): { at: Micros; reason: Reason } | undefined {
  if (session.state === 'closed') return undefined;
  const { cookieTimeoutSeconds, disconnectedTimeoutSeconds, sessionTimeoutSeconds } = session.grant;
  const absolute = lifetime(session.createdAt, sessionTimeoutSeconds, 'session-timeout');
  const ofState =
    session.state === 'authed'
      ? lifetime(session.createdAt, cookieTimeoutSeconds, 'cookie-timeout')
      : session.state === 'parked'
        ? lifetime(session.parkedAt, disconnectedTimeoutSeconds, 'disconnected-timeout')
        : undefined;
  if (absolute === undefined || ofState === undefined) return absolute ?? ofState;
  return ofState.at < absolute.at ? ofState : absolute;
}

/** Fenced: undefined unless `lease` is the present one. */
export function decidePark(
  session: Session,
  lease: Lease,
  reason: Reason,
  usage: Usage,
  now: Micros,
): EventOf<'parked'> | undefined {
  if (session.state !== 'up' || !sameLease(session.lease, lease)) return undefined;
  return { ...head(session, now), type: 'parked', reason, ...totals(session, usage, now) };
}

/** Fenced. */
export function decideCheckpoint(
  session: Session,
  lease: Lease,
  usage: Usage,
  now: Micros,
): EventOf<'stats'> | undefined {
  if (session.state !== 'up' || !sameLease(session.lease, lease)) return undefined;
  return { ...head(session, now), type: 'stats', ...totals(session, usage, now) };
}

/** Fenced. A session that this very lease has parked already ends too: its BYE may follow the loss of its connection. */
export function decideEndByNode(
  session: Session,
  lease: Lease,
  reason: Reason,
  usage: Usage,
  now: Micros,
): EventOf<'ended'> | undefined {
  if (session.state !== 'up' && session.state !== 'parked') return undefined;
  if (!sameLease(session.lease, lease)) return undefined;
  return { ...endedEvent(session, reason, now), ...totals(session, usage, now) };
}

/** Not fenced. */
export function decideEnd(session: Session, reason: Reason, now: Micros): EventOf<'ended'> | undefined {
  return session.state === 'closed' ? undefined : endedEvent(session, reason, now);
}

/**
 * The node's process was replaced: what its older incarnations held is parked.
 * @param incarnation the present one.
 * @param away how long the store was away while the session was up: it counts as neither idle nor parked time.
 */
export function decideAnnounce(
  session: Session,
  incarnation: string,
  now: Micros,
  away: Micros,
): EventOf<'parked'> | undefined {
  if (session.state !== 'up' || session.lease === undefined || session.lease.incarnation === incarnation)
    return undefined;
  return {
    ...head(session, now),
    type: 'parked',
    reason: 'node-restarted',
    ...unchanged(session),
    activeAt: earlier(session.activeAt + away, now),
  };
}

/**
 * The store was away for a time that must not count: parked sessions are as old as when it went (CLUSTER.md C12).
 * A clock that was set meanwhile may make `away` far too long, or let them be parked in the future: `now` is the latest.
 */
export function decideReturn(session: Session, away: Micros, now: Micros): EventOf<'parked'> | undefined {
  const parkedAt = earlier(session.parkedAt + away, now);
  if (session.state !== 'parked' || parkedAt === session.parkedAt) return undefined;
  return {
    ...head(session, parkedAt),
    type: 'parked',
    reason: 'node-restarted',
    ...unchanged(session),
    activeAt: earlier(session.activeAt + away, now),
  };
}

/** How long the store was away. A clock that was set back meanwhile does not make it negative. */
export function timeAway(lastAlive: Micros | undefined, now: Micros): Micros {
  return lastAlive === undefined || lastAlive > now ? 0n : now - lastAlive;
}

/** How long a tombstone is kept, µs. */
export function tombstoneLifetime(session: Session): Micros {
  return seconds(Math.max(session.grant.cookieTimeoutSeconds, TOMBSTONE_MIN_SECONDS));
}

export function seconds(count: number): Micros {
  return BigInt(Math.ceil(count * 1_000_000));
}

/**
 * Parked sessions that a user with a limit may have besides a new one, or as many as he may have up: each keeps an
 * address.
 */
export const PARKED_PER_USER_MIN = 8;
/** Shortest time that an ended session is remembered. */
export const TOMBSTONE_MIN_SECONDS = 300;

// Below: the parts of a claim.

function familiesOf(grant: Grant, request: ClaimRequest): Families {
  return {
    ipv4: request.wantIpv4 && (grant.explicitIpv4 !== '' || grant.ipv4Pools.length > 0),
    ipv6: request.wantIpv6 && (grant.explicitIpv6 !== '' || grant.ipv6Pools.length > 0),
  };
}

function offered(addresses: SessionAddresses, families: Families): SessionAddresses {
  return { ipv4: families.ipv4 ? addresses.ipv4 : '', ipv6: families.ipv6 ? addresses.ipv6 : '' };
}

function closedReason(session: Session): Reason {
  const told: readonly (Reason | '')[] = ['cookie-timeout', 'disconnected-timeout', 'session-timeout'];
  return session.endReason !== '' && told.includes(session.endReason) ? session.endReason : 'token-unknown';
}

/** @returns the sessions that must end for this one to come in, or why it may not. */
function makeRoom(session: Session, context: ClaimContext, families: Families): Session[] | Reason {
  const { maxSameClients, onLimit } = session.grant;
  const leaving: Session[] = [];
  const excess = context.upOfUser.length + 1 - maxSameClients;
  if (maxSameClients > 0 && excess > 0 && session.state !== 'up') {
    if (onLimit === 'refuse') return 'max-same-clients';
    leaving.push(...[...context.upOfUser].sort(olderFirst).slice(0, excess));
  }
  const parkedExcess = context.parkedOfUser.length - Math.max(maxSameClients, PARKED_PER_USER_MIN);
  if (maxSameClients > 0 && parkedExcess > 0 && session.state === 'authed')
    leaving.push(...[...context.parkedOfUser].sort(parkedFirst).slice(0, parkedExcess));
  for (const family of FAMILIES) {
    if (!families[family] || session.addresses[family] !== '') continue;
    const holder = context.fixedHolder(family);
    if (holder === undefined || leaving.includes(holder)) continue;
    // Of two sessions of one user only one can have the fixed address: a parked one yields, a live one by `on-limit`.
    if (holder.user !== session.user || (holder.state === 'up' && onLimit === 'refuse'))
      return 'address-taken';
    leaving.push(holder);
  }
  const { maxClients } = context.limits;
  const upLeaving = leaving.filter((other) => other.state === 'up').length;
  if (maxClients > 0 && session.state !== 'up' && context.upInAll - upLeaving >= maxClients)
    return 'max-clients';
  return leaving;
}

/** @param leaving gets the parked sessions that yield. */
function chooseOrYield(
  session: Session,
  context: ClaimContext,
  families: Families,
  leaving: Session[],
): SessionAddresses | Reason {
  for (const family of FAMILIES) {
    if (!families[family] || session.addresses[family] !== '') continue;
    const alone = { ipv4: family === 'ipv4', ipv6: family === 'ipv6' };
    if (context.choose(alone, leaving) !== 'pool-empty') continue;
    const parked = context.parkedInPools(family).filter((other) => !leaving.includes(other));
    const own = parked.filter((other) => other.user === session.user);
    const [yielding] = (own.length > 0 ? own : parked).toSorted(parkedFirst);
    if (yielding === undefined) return 'pool-empty';
    leaving.push(yielding);
  }
  return context.choose(families, leaving);
}

function parkedFirst(a: Session, b: Session): number {
  if (a.parkedAt !== b.parkedAt) return a.parkedAt < b.parkedAt ? -1 : 1;
  return a.id < b.id ? -1 : 1;
}

function olderFirst(a: Session, b: Session): number {
  if (a.createdAt !== b.createdAt) return a.createdAt < b.createdAt ? -1 : 1;
  return a.id < b.id ? -1 : 1;
}

function claimedEvent(
  session: Session,
  request: ClaimRequest,
  addresses: SessionAddresses,
  now: Micros,
): EventOf<'claimed'> {
  const { name, incarnation } = request.node;
  // CLUSTER.md C1: above what is stored, what the clock says and what this node has seen.
  const seen = isEpoch(request.seenEpoch, now) ? request.seenEpoch : 0n;
  const epoch = [epochOf(session) + 1n, now, seen + 1n].reduce((a, b) => (a > b ? a : b));
  return {
    ...head(session, now),
    epoch,
    type: 'claimed',
    lease: { name, incarnation, epoch, claimId: request.connectionId },
    addresses,
    client: request.client,
    strapKeys: rotated(session.strapKeys, request),
    mtuBytes: session.mtuBytes === 0 ? request.mtuBytes : session.mtuBytes,
    resumed: session.state !== 'authed',
    moved: session.lease !== undefined && session.lease.name !== name,
  };
}

function rotated(keys: string[], request: ClaimRequest): string[] {
  if (request.strapKey === '' || request.strapKey === keys[0]) return keys;
  const proved =
    request.strapProved === undefined || request.strapProved === '' ? keys[0] : request.strapProved;
  return proved === undefined ? [request.strapKey] : [request.strapKey, proved].slice(0, STRAP_KEYS_KEPT);
}

function endedEvent(session: Session, reason: Reason, now: Micros): EventOf<'ended'> {
  return { ...head(session, now), type: 'ended', reason, ...unchanged(session) };
}

function earlier(a: Micros, b: Micros): Micros {
  return a < b ? a : b;
}

function head(session: Session, now: Micros) {
  return { v: SESSION_VERSION, sessionId: session.id, epoch: epochOf(session), n: session.n + 1, at: now };
}

function unchanged(session: Session) {
  return { activeAt: session.activeAt, rxBytes: session.rxBytes, txBytes: session.txBytes };
}

/** Usage of one tunnel to totals of the session. Counters never go back, activity never lies in the future. */
function totals(session: Session, usage: Usage, now: Micros) {
  const rx = usage.rxBytes - session.tunnelRxBytes;
  const tx = usage.txBytes - session.tunnelTxBytes;
  const seen = usage.activeAt > now ? now : usage.activeAt;
  return {
    activeAt: seen > session.activeAt ? seen : session.activeAt,
    rxBytes: session.rxBytes + (rx > 0n ? rx : 0n),
    txBytes: session.txBytes + (tx > 0n ? tx : 0n),
  };
}

function lifetime(from: Micros, length: number, reason: Reason): { at: Micros; reason: Reason } | undefined {
  return length > 0 ? { at: from + seconds(length), reason } : undefined;
}

function refused(reason: Reason): ClaimDecision {
  return { type: 'refused', reason, events: [] };
}
