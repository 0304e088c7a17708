/** What a gRPC server of ours has whatever it serves: mutual TLS, limits, health, and who may call. */
import {
  experimental,
  ServerInterceptingCall,
  status,
  type Server,
  type ServerCredentials,
  type ServerInterceptor,
} from '@grpc/grpc-js';
import type { PeerCertificate } from 'node:tls';
import { mayCome, type PeerCertificates, type PeerRole } from './peers.ts';
import { MAX_RPC_MESSAGE_BYTES } from './rpc-client.ts';
import { HEALTH_SERVICE, RpcHealth } from './rpc-health.ts';
import type { Wire } from './wire.ts';
import { WIRE_LOADER } from './wire.ts';

export interface RpcServerOptions {
  /** `HOST:PORT`. */
  listen: string;
  /** Contracts, each with the roles that may call it; certificates that name none may. */
  services: readonly { wire: Wire; callers: readonly PeerRole[] }[];
  certificates: PeerCertificates;
}

/** Options of Nest's gRPC transport, and the health that they serve. */
export function rpcServer({ listen, services, certificates }: RpcServerOptions) {
  const wires = services.map(({ wire }) => wire);
  const health = new RpcHealth(wires.map((wire) => `${wire.package}.${wire.service}`));
  const options = {
    url: listen,
    package: wires.map((wire) => wire.package),
    protoPath: wires.map((wire) => wire.protoPath),
    loader: { ...WIRE_LOADER },
    credentials: serverCredentials(certificates),
    maxReceiveMessageLength: MAX_RPC_MESSAGE_BYTES,
    maxSendMessageLength: MAX_RPC_MESSAGE_BYTES,
    gracefulShutdown: true,
    channelOptions: { interceptors: [onlyFrom(services)], ...SERVER_OPTIONS },
    onLoadPackageDefinition: (_definition: unknown, server: Server) =>
      server.addService(HEALTH_SERVICE, health.handlers),
  };
  return { options, health };
}

/** Who has no certificate of the CA does not come through the handshake. */
function serverCredentials(certificates: PeerCertificates): ServerCredentials {
  // One provider gives both: our own certificate, and the CA for those of the callers.
  return experimental.createCertificateProviderServerCredentials(certificates, certificates, true);
}

/** A certificate of the cluster is not enough: that of a portal does not make a node disconnect its clients. */
function onlyFrom(services: RpcServerOptions['services']): ServerInterceptor {
  const callersOf = new Map(
    services.map(({ wire, callers }) => [`/${wire.package}.${wire.service}/`, callers]),
  );
  return (method, call) => {
    // Whoever has a certificate of the cluster may ask for health.
    if (method.path.startsWith('/grpc.health.v1.')) return new ServerInterceptingCall(call);
    const certificate: PeerCertificate | undefined = call.getAuthContext().sslPeerCertificate;
    const callers = callersOf.get(method.path.slice(0, method.path.lastIndexOf('/') + 1)) ?? [];
    if (certificate && mayCome(certificate, callers)) return new ServerInterceptingCall(call);
    return new ServerInterceptingCall(call, {
      start: () => call.sendStatus({ code: status.PERMISSION_DENIED, details: 'not for this role' }),
    });
  };
}

const SERVER_OPTIONS = {
  'grpc.max_concurrent_streams': 1000,
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 3_000,
};
