/**
 * The messages of libs/cluster/proto/admin.proto as JavaScript sees them, and what they are made from.
 * Of 64-bit numbers the wire carries decimal text (`longs: String`): both sides read them with BigInt or Number.
 */
import type { Fact, ListedNode, PolicyExplained, Session, TunnelInfo } from '@sallyport/cluster';

/** How both sides load the contract. */
export const PROTO_OPTIONS = {
  keepCase: false,
  defaults: true,
  oneofs: true,
  longs: String,
  arrays: true,
} as const;
export const ADMIN_PACKAGE = 'sallyport.admin.v1';
/** Messages a page; ten thousand tunnels are twenty pages. */
export const PAGE_SIZE = 500;

export interface StatusResponse {
  state: string;
  version: string;
  pid: number;
  startedAt: string;
  node: string;
  revision: string;
  activeSessions: number;
  totalSessions: string;
  sessionsHandled: string;
  authenticationFailures: string;
  timedOutSessions: string;
  timedOutIdleSessions: string;
  closedErrorSessions: string;
  averageSessionSeconds: string;
  maxSessionSeconds: string;
  rxBytes: string;
  txBytes: string;
  minMtuBytes: number;
  maxMtuBytes: number;
  notes: string[];
}

export interface ListTunnelsRequest {
  user: string;
  tunnelId: number;
  node: string;
}

export type Tunnel = Omit<
  TunnelInfo,
  'epoch' | 'rxBytes' | 'txBytes' | 'connectedAt' | 'sessionStartedAt'
> & {
  rxBytes: string;
  txBytes: string;
  connectedAt: string;
  sessionStartedAt: string;
};

export interface ListTunnelsResponse {
  tunnels: Tunnel[];
}

export interface ListSessionsRequest {
  sessionId: string;
}

export interface SessionEntry {
  sessionId: string;
  user: string;
  group: string;
  profile: string;
  state: string;
  userAgent: string;
  clientAddress: string;
  hostname: string;
  ipv4: string;
  ipv6: string;
  node: string;
  createdAt: string;
  activeAt: string;
  rxBytes: string;
  txBytes: string;
}

export interface ListSessionsResponse {
  sessions: SessionEntry[];
}

export interface EventsRequest {
  last: number;
  follow: boolean;
}

export interface AdminEvent {
  at: string;
  type: string;
  sessionId: string;
  user: string;
  profile: string;
  reason: string;
  address: string;
  node: string;
  detail: string;
  rxBytes: string;
  txBytes: string;
}

/** Exactly one is set; `target` names it. */
export interface Target {
  target?: 'user' | 'tunnelId' | 'sessionId';
  user?: string;
  tunnelId?: number;
  sessionId?: string;
  /** Whose tunnelId it is. */
  node?: string;
}

export interface NodeEntry {
  name: string;
  number: number;
  state: string;
  address: string;
  version: string;
  tunnels: number;
  beatAt: string;
  incarnation: string;
}

export interface ListNodesResponse {
  nodes: NodeEntry[];
}

export interface DrainRequest {
  node: string;
  drain: boolean;
}

export interface DrainResponse {
  found: boolean;
}

export interface PoolEntry {
  pool: string;
  family: string;
  size: string;
  used: number;
}

export interface ListPoolsResponse {
  pools: PoolEntry[];
}

export interface ExplainUserRequest {
  user: string;
  profile: string;
}

export interface ExplainUserResponse {
  policy: Omit<PolicyExplained, 'refused'> & { refused: string };
  failure: LoginFailure | null;
  succeededAt: string;
  counts: { spanSeconds: number; user: number; address: number };
}

export interface LoginFailure {
  at: string;
  reason: string;
  text: string;
  profile: string;
  method: string;
  address: string;
}

export interface TargetResponse {
  count: number;
}

export interface ReloadResponse {
  applied: boolean;
  revision: string;
  waiting: string[];
  errors: string[];
  files: string[];
  warnings: string[];
}

export interface AccountEntry {
  name: string;
  groups: string[];
  locked: boolean;
}

export interface ListAccountsResponse {
  accounts: AccountEntry[];
}

export interface ChangeAccountRequest {
  verb: string;
  name: string;
  groups: string[];
  password: string;
}

export interface ChangeAccountResponse {
  problem: string;
}

export function tunnelMessage({ epoch: _epoch, ...tunnel }: TunnelInfo): Tunnel {
  return {
    ...tunnel,
    rxBytes: String(tunnel.rxBytes),
    txBytes: String(tunnel.txBytes),
    connectedAt: String(tunnel.connectedAt),
    sessionStartedAt: String(tunnel.sessionStartedAt),
  };
}

export function nodeMessage(node: ListedNode): NodeEntry {
  const { alive, name, number, address, version, tunnels, incarnation, drain } = node;
  return {
    ...{ name, number, address, version, tunnels, incarnation },
    state: alive ? (drain ? 'draining' : 'online') : 'silent',
    beatAt: String(node.beatAt),
  };
}

export function sessionMessage(session: Session): SessionEntry {
  return {
    sessionId: session.id,
    user: session.user,
    group: session.grant.group,
    profile: session.profile,
    state: session.state,
    userAgent: session.client.userAgent,
    clientAddress: session.client.address,
    hostname: session.client.hostname,
    ipv4: session.addresses.ipv4,
    ipv6: session.addresses.ipv6,
    node: session.state === 'up' ? (session.lease?.name ?? '') : '',
    createdAt: String(session.createdAt),
    activeAt: String(session.activeAt),
    rxBytes: String(session.rxBytes),
    txBytes: String(session.txBytes),
  };
}

/** @param session of a session's fact, if it is known still. */
export function eventMessage(fact: Fact, session?: Pick<Session, 'user' | 'profile'>): AdminEvent {
  const message: AdminEvent = {
    at: String(fact.at),
    type: fact.type,
    sessionId: 'sessionId' in fact ? fact.sessionId : '',
    user: 'user' in fact ? fact.user : (session?.user ?? ''),
    profile: 'profile' in fact ? fact.profile : (session?.profile ?? ''),
    reason: 'reason' in fact ? fact.reason : '',
    address: 'address' in fact ? fact.address : 'client' in fact ? fact.client.address : '',
    node: 'node' in fact ? fact.node : 'lease' in fact ? fact.lease.name : '',
    detail: detailOf(fact),
    rxBytes: 'rxBytes' in fact ? String(fact.rxBytes) : '0',
    txBytes: 'txBytes' in fact ? String(fact.txBytes) : '0',
  };
  return message;
}

function detailOf(fact: Fact): string {
  switch (fact.type) {
    case 'claimed': {
      const addresses = [fact.addresses.ipv4, fact.addresses.ipv6]
        .filter((address) => address !== '')
        .join(' ');
      return fact.resumed ? `${addresses} resumed${fact.moved ? ' from another node' : ''}` : addresses;
    }
    case 'auth.succeeded':
    case 'auth.failed':
      return fact.method;
    case 'node.ready':
    case 'node.stopping':
      return fact.incarnation;
    case 'config.applied':
    case 'config.rejected':
      return [fact.revision, fact.detail].filter((text) => text !== '').join(' ');
    case 'admin.changed':
      return `${fact.verb} ${fact.subject}`;
    case 'connect.refused':
    case 'started':
    case 'parked':
    case 'stats':
    case 'ended':
      return '';
  }
}
