import type { Reason } from '@sallyport/protocol';
import type { Micros } from './session.ts';

/** What one tunnel node does for the others (proto/node.proto). */
export interface NodeService {
  tunnels(): Promise<TunnelInfo[]>;
  /** Sends DISCONNECT with the reason and parks the sessions (their cookies stay good). @returns how many tunnels. */
  disconnect(sessionIds: string[], reason: Reason): Promise<number>;
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
