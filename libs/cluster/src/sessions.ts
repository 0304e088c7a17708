import type { Grant, GrantOrigins, Reason } from '@sallyport/protocol';
import type { Lease, Micros, NodeIdentity, Session, SessionAddresses, SessionClient } from './session.ts';

/**
 * The cluster's session table. Each call that changes state is one atomic step that also appends its event.
 * Forms: `sessions.memory.ts` (with a journal); a Redis form follows. Both pass `sessions.contract.ts`.
 * Refusals are values. A fault of the store rejects the promise (`StoreUnavailable`): answer 503, never 401 (C1).
 */
export interface Sessions {
  /** @returns the session in state `authed`. The caller keeps the token; only its hash comes here. */
  create(input: NewSession): Promise<Session>;

  /** The session of a token, also when closed (a tombstone) or past its time; undefined = never heard of. */
  find(tokenHash: string): Promise<Session | undefined>;
  get(id: string): Promise<Session | undefined>;
  /** All sessions that are not closed. */
  list(): Promise<Session[]>;
  /** Those of `list` whose id begins so; the order is any. */
  findByPrefix(idPrefix: string): Promise<Session[]>;
  /** How many `list` would give, by state. */
  counts(): Promise<SessionCounts>;

  /**
   * CONNECT: takes the session for a node. Checks state, the two lifetimes, limits and the CONNECT rate, keeps or
   * picks the addresses, raises the epoch, writes the lease, and leaves a notice for the former owner (C2, C4). Where
   * that is the claiming node itself it is delivered before the claim resolves: it may need the address at once.
   * Repeated with the same `connectionId` it gives the same lease.
   */
  claim(request: ClaimRequest): Promise<Claimed | Refused>;

  /** The tunnel is gone, the session stays. Fenced: nothing happens unless `lease` is the present one. @returns done? */
  park(id: string, lease: Lease, reason: Reason, usage: Usage): Promise<boolean>;
  /** Interim counters and last activity. Fenced. */
  checkpoint(id: string, lease: Lease, usage: Usage): Promise<boolean>;
  /** End by the tunnel's own node: BYE, idle, session timeout. Fenced. */
  endByNode(id: string, lease: Lease, reason: Reason, usage: Usage): Promise<boolean>;
  /** Logout, terminate, ban: not fenced, hits the session whatever the epoch. @returns false if there was nothing to end. */
  end(id: string, reason: Reason): Promise<boolean>;
  /**
   * Ends the sessions of a user, all or those that were made until then: after a new password, those of the old one.
   * @param upTo by the store's clock. @returns how many.
   */
  endOfUser(user: string, reason: Reason, upTo?: Micros): Promise<number>;

  /** Parks what older incarnations of this node still hold (C4). @returns how many. */
  announce(node: NodeIdentity): Promise<number>;
  /** Ids of the sessions that are up with a lease of this process, in any order. */
  leasesOf(node: NodeIdentity): Promise<string[]>;
  /**
   * Tells a node which of its tunnels it lost: on a claim from elsewhere, on an end that it did not ask for.
   * Delivered at least once, in order per session, within about a second. @returns how to stop.
   */
  notices(node: NodeIdentity, deliver: (notices: Notice[]) => void): () => void;

  /** Ends what has outlived its time; forgets old tombstones. Called about once a second. @returns how many ended. */
  sweep(): Promise<number>;

  pools(): Promise<PoolUse[]>;
  /** Takes the limits of the present configuration. */
  configure(limits: SessionLimits): void;
  close(): Promise<void>;
}

export interface NewSession {
  tokenHash: string;
  user: string;
  profile: string;
  grant: Grant;
  origins: GrantOrigins;
  client: SessionClient;
  /** base64 SPKI; '' = client has none. */
  strapKey: string;
}

export interface ClaimRequest {
  tokenHash: string;
  node: NodeIdentity;
  /** Random, of this connection. */
  connectionId: string;
  wantIpv4: boolean;
  wantIpv6: boolean;
  client: SessionClient;
  /** The key that the client rotates to in this CONNECT; '' = it stays. */
  strapKey: string;
  /** The key that this CONNECT proved to have: it stays good until the new one is used. Absent = the newest stored. */
  strapProved?: string;
  /** MTU that the answer will offer, bytes. */
  mtuBytes: number;
  /** Highest epoch that this node has seen. */
  seenEpoch: Micros;
}

export interface Claimed {
  ok: true;
  session: Session;
  lease: Lease;
  addresses: SessionAddresses;
  resumed: boolean;
  /** This node had it last, with all of its addresses: no other can still announce them. */
  returning: boolean;
}

export interface Refused {
  ok: false;
  reason: Reason;
}

/** Payload bytes of this tunnel so far (not added up over epochs) and its last DATA packet. */
export interface Usage {
  rxBytes: bigint;
  txBytes: bigint;
  activeAt: Micros;
}

export interface Notice {
  sessionId: string;
  /** Tunnels of this session with an epoch up to this one are lost. */
  upToEpoch: Micros;
  /** `superseded`: close without a packet. Anything else: the session ended, tell the client. */
  reason: Reason;
}

export interface SessionLimits {
  /** Sessions with a tunnel, in all; 0 = no limit. */
  maxClients: number;
  /** CONNECTs per token and minute; 0 = no limit. */
  connectsPerMinute: number;
  /** Fixed addresses of the configuration (`fixedAddresses`): pools give them to nobody. */
  reserved?: readonly string[];
  /** Of the node that claims (home-slices.ts), CIDRs: it looks there first. Default: none. */
  home?: readonly string[];
}

export type SessionCounts = Record<Exclude<Session['state'], 'closed'>, number>;

export interface PoolUse {
  /** CIDR. */
  pool: string;
  family: 'ipv4' | 'ipv6';
  /** Clients that fit in. */
  size: bigint;
  used: number;
}

/** The store could not answer; nothing is known about whether it did what was asked. */
export class StoreUnavailable extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'StoreUnavailable';
  }
}
