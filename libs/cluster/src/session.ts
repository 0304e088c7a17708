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
  /** Address of the client's prefix, without the length; '' = none. */
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
  lease?: Lease;
  addresses: SessionAddresses;
  /** base64 SPKI of the client's STRAP keys, newest first, at most two; empty = client has none. */
  strapKeys: string[];
  createdAt: Micros;
  /** Start of the present tunnel. */
  upAt: Micros;
  parkedAt: Micros;
  /** Last DATA packet in either direction, as last checkpointed. */
  activeAt: Micros;
  endedAt: Micros;
  endReason: Reason | '';
  /** Payload bytes over all epochs: rx from the client, tx to it. */
  rxBytes: bigint;
  txBytes: bigint;
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

/** Facts of one session, in order. Applying them to nothing rebuilds it. */
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
        resumed: boolean;
        moved: boolean;
      }
    | { type: 'parked'; reason: Reason; activeAt: Micros; rxBytes: bigint; txBytes: bigint }
    | { type: 'stats'; activeAt: Micros; rxBytes: bigint; txBytes: bigint }
    | { type: 'ended'; reason: Reason; activeAt: Micros; rxBytes: bigint; txBytes: bigint }
  );

export const SESSION_VERSION = 1;
