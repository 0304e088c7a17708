import type { Reason } from '@sallyport/protocol';
import type { Micros } from './session.ts';

/** What one tunnel node does for the others (proto/node.proto). */
export interface NodeService {
  tunnels(): Promise<TunnelInfo[]>;
  /** Sends DISCONNECT with the reason and parks the sessions (their cookies stay good). @returns how many tunnels. */
  disconnect(sessionIds: string[], reason: Reason): Promise<number>;
  /** Of a service that stands for several nodes: names of those that did not answer when they were asked last. */
  readonly silent?: ReadonlySet<string>;
}

/** What a node says beyond that to the other nodes of its cluster, and to operators. */
export interface PeerNode extends NodeService {
  /**
   * Sessions that were claimed elsewhere. Only the fast path: the same stands in the node's mailbox, so nobody waits for
   * it and a lost one costs a second (C2).
   */
  release(releases: readonly Release[]): Promise<void>;
  /** No new clients while it drains; the tunnels that are there move away. @returns the state now. */
  drain(drain: boolean): Promise<boolean>;
  status(): Promise<NodeStatus>;
  /** How long ago the node asked what the session store answered last, ms; undefined = it has not answered yet (C3). */
  storeSilence(): Promise<number | undefined>;
}

export interface Release {
  sessionId: string;
  /** Tunnels of this session with an epoch up to this one are lost. */
  upToEpoch: Micros;
}

export interface NodeStatus {
  node: string;
  incarnation: string;
  version: string;
  /** Of the configuration in use. */
  revision: string;
  state: 'starting' | 'online' | 'draining' | 'stopping';
  startedAt: Micros;
  tunnels: number;
}

/** Injection token of the node's own service. */
export const NODE_SERVICE = Symbol('NodeService');

/** One tunnel as operators see it; the source of occtl's `show users`. */
export interface TunnelInfo {
  /** Small number, unique on this node while its process lives: occtl's ID. */
  tunnelId: number;
  sessionId: string;
  epoch: Micros;
  node: string;
  user: string;
  group: string;
  profile: string;
  device: string;
  mtuBytes: number;
  clientAddress: string;
  localDeviceAddress: string;
  hostname: string;
  userAgent: string;
  ipv4: string;
  ipv6: string;
  rxBytes: number;
  txBytes: number;
  dpdSeconds: number;
  keepaliveSeconds: number;
  /** Start of this tunnel and of the session, µs. */
  connectedAt: Micros;
  sessionStartedAt: Micros;
  /** e.g. `TLS1.3-AES_256_GCM`. */
  tlsCipher: string;
  /** '' = no DTLS. */
  dtlsCipher: string;
  dns: string[];
  nbns: string[];
  splitDns: string[];
  routes: string[];
  noRoutes: string[];
}
