/*
 *             started            claimed (first CONNECT)
 *   (nothing) ───────▶ authed ───────────────────────────▶ up ◀──┐ claimed (another CONNECT, perhaps on another node)
 *                        │                                │ ▲ └──┘ stats
 *                        │                         parked │ │ claimed
 *                        │                                ▼ │
 *                        │                              parked ◀──┐ parked (the store was away: its time does not count)
 *                        │ ended                  ended │ │ ▲  └──┘
 *                        └──────────────▶ closed ◀──────┴─┘ (from up and parked)
 *
 * `closed` is final. An event whose `n` is not above the record's is old news and changes nothing.
 */
import type { Grant, GrantOrigins, Reason } from '@sallyport/protocol';

/** Microseconds since 1970, from the store's clock. */
export type Micros = bigint;

/** A node's name stays; its incarnation is new with each start of its process (CLUSTER.md C4). */
export interface NodeIdentity {
  name: string;
  incarnation: string;
}

/** Which node owns a session. Leases compare as (epoch, claimId): two are never equal (C1). */
export interface Lease extends NodeIdentity {
  /** µs, 64 bit, only grows. */
  epoch: Micros;
  /** Random, of this claim. */
  claimId: string;
}

/** `closed` records are tombstones: their token is refused, their lease cannot come back. */
export type SessionState = 'authed' | 'up' | 'parked' | 'closed';

/** Client facts that operators see; all untrusted. */
export interface SessionClient {
  address: string;
  userAgent: string;
  platform: string;
  hostname: string;
}

export interface SessionAddresses {
  /** '' = none. */
  ipv4: string;
  /** The client's address in its prefix, without the length (`grant.ipv6SubnetPrefix`); '' = none. */
  ipv6: string;
}

/** One session, as stored. Times are µs; 0n = not yet. */
export interface Session {
  /** Version of the record's form; a store refuses a newer one with a reason. */
  v: number;
  id: string;
  /** SHA-256 of the token, hex. The token itself is never stored. */
  tokenHash: string;
  user: string;
  profile: string;
  grant: Grant;
  origins: GrantOrigins;
  client: SessionClient;
  state: SessionState;
  /** The present one while `up`, else the last one; undefined before the first claim. */
  lease?: Lease;
  addresses: SessionAddresses;
  /** base64 SPKI of the client's STRAP keys, newest first, at most two; empty = client has none. */
  strapKeys: string[];
  /** MTU that was offered first, bytes: a later tunnel never gets a larger one. 0 = no tunnel yet. */
  mtuBytes: number;
  createdAt: Micros;
  /** Start of the present tunnel. */
  upAt: Micros;
  /** 0n while there is a tunnel. */
  parkedAt: Micros;
  /** Last DATA packet in either direction, as last checkpointed; moved on by the time that the session was parked. */
  activeAt: Micros;
  endedAt: Micros;
  endReason: Reason | '';
  /** Payload bytes over all epochs: rx from the client, tx to it. */
  rxBytes: bigint;
  txBytes: bigint;
  /** What the present (or last) tunnel has of them. */
  tunnelRxBytes: bigint;
  tunnelTxBytes: bigint;
  /** Number of events so far. */
  n: number;
}

interface EventHead {
  v: number;
  sessionId: string;
  /** Epoch of the lease at that time; 0n before the first claim. */
  epoch: Micros;
  /** 1, 2, 3 … in the session: (sessionId, n) names an event, and consumers ignore lower ones. */
  n: number;
  at: Micros;
}

/** Facts of one session, in order. Applying them to nothing rebuilds it. Bytes are totals over all epochs. */
export type SessionEvent = EventHead &
  (
    | {
        type: 'started';
        tokenHash: string;
        user: string;
        profile: string;
        grant: Grant;
        origins: GrantOrigins;
        client: SessionClient;
        strapKeys: string[];
      }
    | {
        /** A CONNECT was accepted: the first (`resumed` false) or a later one, perhaps from another node. */
        type: 'claimed';
        lease: Lease;
        addresses: SessionAddresses;
        client: SessionClient;
        strapKeys: string[];
        mtuBytes: number;
        resumed: boolean;
        moved: boolean;
      }
    | { type: 'parked'; reason: Reason; activeAt: Micros; rxBytes: bigint; txBytes: bigint }
    | { type: 'stats'; activeAt: Micros; rxBytes: bigint; txBytes: bigint }
    | { type: 'ended'; reason: Reason; activeAt: Micros; rxBytes: bigint; txBytes: bigint }
  );

export const SESSION_VERSION = 1;

/** Two keys stay good: the newest, and the one before it until the newest is used (CLUSTER.md C13). */
export const STRAP_KEYS_KEPT = 2;

/** An event that cannot follow on the state of its session: a fault of ours or of the journal, never of a client. */
export class ImpossibleTransition extends Error {
  constructor(sessionId: string, state: SessionState | 'nothing', event: SessionEvent, detail = '') {
    const why = detail === '' ? '' : ` (${detail})`;
    super(`session ${sessionId} in state ${state} cannot take event ${event.type} n=${event.n}${why}`);
    this.name = 'ImpossibleTransition';
  }
}

/** A record or event of a later release: reading it as ours could lose what we do not know of. */
export class NewerVersion extends Error {
  constructor(what: string, version: number) {
    super(
      `${what} has version ${version}, this program reads up to ${SESSION_VERSION}: use the newer program`,
    );
    this.name = 'NewerVersion';
  }
}

export type EventOf<T extends SessionEvent['type']> = Extract<SessionEvent, { type: T }>;

/**
 * One step of the session's life. Pure: the same events always give the same record.
 * @param session undefined before `started`.
 * @returns a new record; the given one unchanged when the event is old news.
 * @throws ImpossibleTransition, NewerVersion
 */
export function apply(session: Session | undefined, event: SessionEvent): Session {
  if (event.v > SESSION_VERSION)
    throw new NewerVersion(`event ${event.type} of session ${event.sessionId}`, event.v);
  if (session === undefined) {
    if (event.type !== 'started') throw new ImpossibleTransition(event.sessionId, 'nothing', event);
    return started(event);
  }
  if (event.sessionId !== session.id) {
    throw new ImpossibleTransition(session.id, session.state, event, `event of ${event.sessionId}`);
  }
  if (event.n <= session.n) return session;
  if (!FOLLOWS[event.type].includes(session.state))
    throw new ImpossibleTransition(session.id, session.state, event);
  switch (event.type) {
    case 'started':
      throw new ImpossibleTransition(session.id, session.state, event);
    case 'claimed':
      return claimed(session, event);
    case 'parked':
      return { ...counted(session, event), state: 'parked', parkedAt: event.at };
    case 'stats':
      return counted(session, event);
    case 'ended':
      return { ...counted(session, event), state: 'closed', endedAt: event.at, endReason: event.reason };
  }
}

/** 0n before the first claim. */
export function epochOf(session: Session): Micros {
  return session.lease?.epoch ?? 0n;
}

/**
 * How far ahead of the clock an epoch may be, µs: more than clocks of primaries differ. What is higher was given by no claim,
 * and what has to be higher still would soon be no whole number in Lua.
 */
export const EPOCH_LEAD_MICROS = 86_400_000_000n;

/** May a claim have given it? @param now µs since 1970. */
export function isEpoch(epoch: bigint, now: Micros): boolean {
  return epoch >= 0n && epoch <= now + EPOCH_LEAD_MICROS;
}

export function sameLease(a: Lease | undefined, b: Lease): boolean {
  return a !== undefined && a.epoch === b.epoch && a.claimId === b.claimId;
}

/** States that an event may find. */
const FOLLOWS: Record<SessionEvent['type'], readonly SessionState[]> = {
  started: [],
  claimed: ['authed', 'up', 'parked'],
  parked: ['up', 'parked'],
  stats: ['up'],
  ended: ['authed', 'up', 'parked'],
};

function started(event: EventOf<'started'>): Session {
  return {
    v: SESSION_VERSION,
    id: event.sessionId,
    tokenHash: event.tokenHash,
    user: event.user,
    profile: event.profile,
    grant: event.grant,
    origins: event.origins,
    client: event.client,
    state: 'authed',
    lease: undefined,
    addresses: NO_ADDRESSES,
    strapKeys: event.strapKeys,
    mtuBytes: 0,
    createdAt: event.at,
    upAt: 0n,
    parkedAt: 0n,
    activeAt: 0n,
    endedAt: 0n,
    endReason: '',
    rxBytes: 0n,
    txBytes: 0n,
    tunnelRxBytes: 0n,
    tunnelTxBytes: 0n,
    n: event.n,
  };
}

function claimed(session: Session, event: EventOf<'claimed'>): Session {
  if (event.lease.epoch <= epochOf(session)) {
    throw new ImpossibleTransition(
      session.id,
      session.state,
      event,
      `epoch ${event.lease.epoch} is not above`,
    );
  }
  return {
    ...session,
    state: 'up',
    lease: event.lease,
    addresses: event.addresses,
    client: event.client,
    strapKeys: event.strapKeys,
    mtuBytes: event.mtuBytes,
    upAt: event.at,
    parkedAt: 0n,
    activeAt: activeAtClaim(session, event.at),
    tunnelRxBytes: 0n,
    tunnelTxBytes: 0n,
    n: event.n,
  };
}

/** Idle time is inherited over a move; parked time counts towards `disconnected-timeout` only (CLUSTER.md C13). */
function activeAtClaim(session: Session, now: Micros): Micros {
  if (session.state === 'authed') return now;
  if (session.state !== 'parked' || now < session.parkedAt) return session.activeAt;
  return session.activeAt + (now - session.parkedAt);
}

function counted(session: Session, event: EventOf<'parked' | 'stats' | 'ended'>): Session {
  if (event.epoch !== epochOf(session)) {
    throw new ImpossibleTransition(session.id, session.state, event, `its epoch is ${event.epoch}`);
  }
  return {
    ...session,
    activeAt: event.activeAt,
    rxBytes: event.rxBytes,
    txBytes: event.txBytes,
    tunnelRxBytes: session.tunnelRxBytes + (event.rxBytes - session.rxBytes),
    tunnelTxBytes: session.tunnelTxBytes + (event.txBytes - session.txBytes),
    n: event.n,
  };
}

const NO_ADDRESSES: SessionAddresses = { ipv4: '', ipv6: '' };
