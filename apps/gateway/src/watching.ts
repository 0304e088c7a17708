import { X509Certificate } from 'node:crypto';
import {
  certificateMetrics,
  configMetrics,
  processMetrics,
  serveHealth,
  type ConfigMetrics,
  type HealthFacts,
  type HealthServer,
  type Log,
  type Metrics,
  type Supervision,
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
  /** Brings the socket of health, if a supervisor holds it. */
  supervision: Pick<Supervision, 'health'>;
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
      const facts: HealthFacts = {
        startup: () => (parts.lifecycle.state === 'starting' ? ['services are loading'] : []),
        ready: () => watching.#notReady(),
        notes: () => parts.notes?.() ?? [],
      };
      const { adminAddress } = parts.settings();
      watching.#health = await serveHealth(adminAddress, parts.metrics, facts, parts.supervision.health);
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

/** Tells operators that sweeps end nobody (CLUSTER.md C13). @returns what the table calls at each change. */
export function observeSweeps({
  metrics,
  log,
}: Pick<WatchingParts, 'metrics' | 'log'>): (halted: boolean) => void {
  let isHalted = false;
  metrics.gauge(
    'sallyport_sweep_halted',
    '1 = no session ends by its time, because the clocks of the nodes and of Redis differ.',
    [],
    (gauge) => gauge.set(isHalted ? 1 : 0),
  );
  return (halted) => {
    isHalted = halted;
    if (halted) log.warn({}, HALTED);
    else log.info({}, 'sessions end by their time again');
  };
}

const HALTED =
  'no session ends by its time: the clocks of the nodes differ from that of Redis by more than 5 s; look at their NTP';

/** The clockwork that ends what has outlived its time; one round after the other. An outage is told once. */
export function sweeping(
  { sessions, log }: { sessions: Pick<Sessions, 'sweep'>; log: Log },
  everyMs = SWEEP_MS,
): NodeJS.Timeout {
  let busy = false;
  let failing = false;
  const sweep = async () => {
    if (busy) return;
    busy = true;
    try {
      await sessions.sweep();
      if (failing) log.info({}, 'the session table is swept again');
      failing = false;
    } catch (error) {
      if (!failing) log.warn({ err: error }, 'the session table could not be swept');
      failing = true;
    } finally {
      busy = false;
    }
  };
  return setInterval(() => void sweep(), everyMs).unref();
}

export function configuredPools(settings: Settings): PoolUse[] {
  const top = { ...DEFAULT_GRANT, ...settings.policy };
  return unusedPools(policyScopes(settings).map(({ policy }) => ({ ...top, ...policy })));
}

const SWEEP_MS = 1000;
