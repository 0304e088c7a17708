import { X509Certificate } from 'node:crypto';
import {
  certificateMetrics,
  configMetrics,
  processMetrics,
  serveHealth,
  type ConfigMetrics,
  type HealthServer,
  type Log,
  type Metrics,
} from '@sallyport/chassis';
import {
  DEFAULT_GRANT,
  policyScopes,
  unusedPools,
  type PeerRole,
  type PoolUse,
  type Sessions,
  type Settings,
} from '@sallyport/cluster';
import type { ListenerCertificates } from '@sallyport/tunnel-node';
import type { GatewayLifecycle } from './lifecycle.ts';

export interface WatchingParts {
  settings: () => Settings;
  certificates: ListenerCertificates;
  version: string;
  metrics: Metrics;
  log: Log;
  sessions: Sessions;
  tunnels: { readonly size: number };
  lifecycle: GatewayLifecycle;
  /** Of a cluster: its session table is swept and counted by auth. Absent = it is this process's own. */
  role?: PeerRole | undefined;
  /** More reasons why balancers should send no new clients here. */
  notReady?: (() => string[]) | undefined;
  notes?: (() => string[]) | undefined;
}

/** Health and metrics of the whole gateway, and the clockwork that ends what has outlived its time. */
export class Watching {
  readonly #parts: WatchingParts;
  readonly #config: ConfigMetrics;
  readonly #sweeper: NodeJS.Timeout | undefined;
  #certificates: ListenerCertificates;
  #health: HealthServer | undefined;

  private constructor(parts: WatchingParts) {
    this.#parts = parts;
    this.#certificates = parts.certificates;
    processMetrics(parts.metrics, { version: parts.version, name: parts.role ?? 'gateway' });
    this.#config = configMetrics(parts.metrics);
    this.applied(parts.settings(), parts.certificates);
    certificateMetrics(parts.metrics, () => this.#notAfter());
    if (parts.role === undefined) observeSessions(parts);
    this.#sweeper = parts.role === undefined ? sweeping(parts) : undefined;
  }

  /** @throws StartError when `admin-address` cannot be listened on. */
  static async open(parts: WatchingParts): Promise<Watching> {
    const watching = new Watching(parts);
    try {
      watching.#health = await serveHealth(parts.settings().adminAddress, parts.metrics, {
        startup: () => (parts.lifecycle.state === 'starting' ? ['services are loading'] : []),
        ready: () => watching.#notReady(),
        notes: () => parts.notes?.() ?? [],
      });
    } catch (error) {
      clearInterval(watching.#sweeper);
      throw error;
    }
    return watching;
  }

  applied(settings: Settings, certificates: ListenerCertificates): void {
    this.#certificates = certificates;
    this.#config.applied(settings.revision, Math.floor(Date.now() / 1000));
  }

  async close(): Promise<void> {
    clearInterval(this.#sweeper);
    await this.#health?.close();
  }

  /** Why balancers should send no new clients here. */
  #notReady(): string[] {
    const { lifecycle, settings, tunnels } = this.#parts;
    const { maxClients } = settings();
    return [
      ...(lifecycle.state === 'stopping' ? ['stopping'] : []),
      ...(this.#parts.notReady?.() ?? []),
      ...(maxClients > 0 && tunnels.size >= maxClients ? ['full: max-clients is reached'] : []),
    ];
  }

  #notAfter(): { host: string; keyType: string; notAfterSeconds: number }[] {
    return [...this.#certificates.hosts].flatMap(([host, { pairs }]) =>
      pairs.map(({ cert }) => {
        const leaf = new X509Certificate(cert);
        return {
          host,
          keyType: leaf.publicKey.asymmetricKeyType ?? '',
          notAfterSeconds: Date.parse(leaf.validTo) / 1000,
        };
      }),
    );
  }
}

/** Gauges of the whole session table: for the process that owns it. */
export function observeSessions({
  metrics,
  sessions,
  settings,
}: Pick<WatchingParts, 'metrics' | 'sessions' | 'settings'>): void {
  metrics.gauge('sallyport_sessions_limit', 'max-clients; 0 = no limit.', [], (gauge) =>
    gauge.set(settings().maxClients),
  );
  metrics.gauge('sallyport_session_records', 'Sessions in the table, by state.', ['state'], async (gauge) => {
    for (const [state, count] of Object.entries(await sessions.counts())) gauge.set({ state }, count);
  });
  metrics.gauge(
    'sallyport_pool_addresses',
    'Addresses of each pool, by state.',
    ['pool', 'family', 'state'],
    async (gauge) => {
      gauge.reset();
      // Those in use come second and count: before the first tunnel there are none.
      for (const { pool, family, size, used } of [
        ...configuredPools(settings()),
        ...(await sessions.pools()),
      ]) {
        gauge.set({ pool, family, state: 'used' }, used);
        gauge.set({ pool, family, state: 'free' }, Number(size) - used);
      }
    },
  );
}

/** The clockwork that ends what has outlived its time; one round after the other. */
export function sweeping({ sessions, log }: Pick<WatchingParts, 'sessions' | 'log'>): NodeJS.Timeout {
  let busy = false;
  const sweep = async () => {
    if (busy) return;
    busy = true;
    try {
      await sessions.sweep();
    } catch (error) {
      log.warn({ err: error }, 'the session table could not be swept');
    } finally {
      busy = false;
    }
  };
  return setInterval(() => void sweep(), SWEEP_MS).unref();
}

export function configuredPools(settings: Settings): PoolUse[] {
  const top = { ...DEFAULT_GRANT, ...settings.policy };
  return unusedPools(policyScopes(settings).map(({ policy }) => ({ ...top, ...policy })));
}

const SWEEP_MS = 1000;
