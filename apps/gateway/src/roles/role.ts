/** What the roles of a cluster have in common. */
import { configMetrics, processMetrics, serveHealth, StartError, type Supervision } from '@sallyport/chassis';
import {
  PeerCertificates,
  type AccountRecords,
  type Assertions,
  type EventLog,
  type LoginFailures,
  type NodeIdentity,
  type Nodes,
  type Occurrence,
  type PeerRole,
  type SessionLimits,
  type Sessions,
  type Settings,
} from '@sallyport/cluster';
import type { Logins } from '@sallyport/auth';
import { GatewayLifecycle } from '../lifecycle.ts';
import { openProcess, sentence, type Closer, type ProcessParts } from '../wiring.ts';

export interface RoleOptions {
  /** The YAML file. */
  config: string;
  /** Folder for the admin socket and what has to be put back after a crash. */
  stateDir: string;
  supervision: Supervision;
  openStore: OpenStore;
}

/** The store of the cluster, as the roles need it. */
export interface ClusterStore {
  sessions: Sessions;
  /** Absent = the store forgets nothing while this process lives. */
  assertions?: Assertions;
  /** For auth only. */
  logins?: Logins;
  /** For auth only: what operators changed of the users. */
  records?: AccountRecords;
  /** Failed logins, over all replicas of auth. */
  failures: LoginFailures;
  nodes: Nodes;
  events: EventLog;
  /** The last failed and the last good login of a user. */
  lastLogins?: (user: string) => Promise<Occurrence[]>;
  close(): Promise<void>;
}

export interface StoreSurroundings extends Pick<ProcessParts, 'log' | 'metrics'> {
  node: NodeIdentity;
  role: PeerRole;
  /** Refusals of the whole cluster: those of the present configuration. */
  limits: SessionLimits;
}

/** @throws Error with one sentence: what to mend. */
export type OpenStore = (settings: Settings, around: StoreSurroundings) => Promise<ClusterStore>;

export interface RoleParts extends ProcessParts {
  role: PeerRole;
  certificates: PeerCertificates;
}

/** @throws StartError */
export async function openRole(role: PeerRole, config: string, closers: Closer[]): Promise<RoleParts> {
  const parts = await openProcess(config, closers, role);
  const { redis, pki, file } = parts.settings();
  if (!redis || !pki)
    throw new StartError(
      `${file} is no configuration of a cluster: it needs redis and pki. One process by itself is sallyport gateway.`,
    );
  const log = parts.log.child({ role });
  const certificates = await sentence(PeerCertificates.open(pki, log));
  closers.push(() => certificates.close());
  parts.metrics.gauge(
    'sallyport_peer_certificate_not_after_timestamp_seconds',
    'When the certificate of this service towards the others of the cluster ends.',
    [],
    (gauge) => gauge.set(certificates.current.notAfter / 1000),
  );
  return { ...parts, log, role, certificates };
}

/** Addresses of a service that this role cannot do without. @throws StartError */
export function addressesOf(
  settings: Settings,
  service: 'auth' | 'portal' | 'downloader' | 'catalog',
): string[] {
  const addresses = settings.services[service];
  if (addresses.length > 0) return addresses;
  throw new StartError(`${settings.file}: services names no ${service}, and this role needs it.`);
}

/** Lifecycle, health and metrics of a role that serves no clients itself. */
export async function openWatching(
  { role, current, settings, log, metrics, now, node, version, closers }: RoleParts,
  events: Pick<EventLog, 'append'> = { append: () => undefined },
): Promise<GatewayLifecycle> {
  const lifecycle = new GatewayLifecycle({
    ...{ current, node: node.name, version, log, events, now, role },
  });
  processMetrics(metrics, { version, name: role });
  const config = configMetrics(metrics);
  const applied = (next: Settings) => config.applied(next.revision, Math.floor(Date.now() / 1000));
  applied(settings());
  lifecycle.add({
    prepare: async (next) => () => {
      log.level = next.logLevel;
      applied(next);
    },
  });
  const health = await serveHealth(settings().adminAddress, metrics, {
    startup: () => (lifecycle.state === 'starting' ? ['services are loading'] : []),
    ready: () => (lifecycle.state === 'stopping' ? ['stopping'] : []),
  });
  closers.push(() => health.close());
  return lifecycle;
}
