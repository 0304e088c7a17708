export { CertificateError, loadCertificates } from './certificates.ts';
export {
  Edge,
  EDGE_LIMITS,
  type ConnectHandler,
  type EdgeLimits,
  type EdgeOptions,
  type UpstreamName,
} from './edge.ts';
export * from './listener.ts';
export {
  LISTENER_LIMITS,
  TlsListener,
  type ListenerLimits,
  type TlsListenerOptions,
} from './listener.tls.ts';
export { NodeMetrics, observeNode } from './metrics.ts';
export type { StrapMode } from './strap.ts';
export {
  openTunnelNode,
  type NodeSettings,
  type TunnelNode,
  type TunnelNodeParts,
} from './open-tunnel-node.ts';
export { Tunnels, type TunnelsOptions } from './tunnels.ts';
