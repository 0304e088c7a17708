import { type Log } from '@sallyport/chassis';
import {
  poolsOf,
  readSettings,
  reloadSettings,
  type EventLog,
  type PeerRole,
  type Settings,
} from '@sallyport/cluster';
import { loadCertificates, type ListenerCertificates } from '@sallyport/tunnel-node';
import type { GatewayStatus, Lifecycle, ReloadResult } from './admin/ports.ts';

/** What takes new settings. Preparing may fail and changes nothing; taking over must not fail. */
export interface Reloadable {
  /** @returns the step that takes over. @throws Error with one sentence that names the file. */
  prepare(settings: Settings, certificates: ListenerCertificates): Promise<() => void | Promise<void>>;
}

export interface LifecycleParts {
  current: { settings: Settings };
  node: string;
  version: string;
  log: Log;
  events: Pick<EventLog, 'append'>;
  /** Of a cluster; absent = all of them. */
  role?: PeerRole | undefined;
  /** µs. */
  now: () => bigint;
}

/** Start, reload and stop of the running gateway, for signals and the admin service alike. */
export class GatewayLifecycle implements Lifecycle {
  readonly #parts: LifecycleParts;
  readonly #startedAt: bigint;
  readonly #reloadables: Reloadable[] = [];
  #state: GatewayStatus['state'] = 'starting';
  #reloading: Promise<unknown> = Promise.resolve();

  constructor(parts: LifecycleParts) {
    this.#parts = parts;
    this.#startedAt = parts.now();
  }

  /** Takes part in each reload from now on. */
  add(reloadable: Reloadable): void {
    this.#reloadables.push(reloadable);
  }

  get state(): GatewayStatus['state'] {
    return this.#state;
  }

  set state(state: GatewayStatus['state']) {
    this.#state = state;
  }

  status(): GatewayStatus {
    const { node, version, current } = this.#parts;
    return {
      state: this.#state,
      version,
      node,
      revision: current.settings.revision,
      startedAt: this.#startedAt,
    };
  }

  /** All of the new configuration, or nothing of it: it is read and checked whole before anything takes it over. */
  reload(): Promise<ReloadResult> {
    const turn = this.#reloading.then(() => this.#reload());
    this.#reloading = turn.catch(() => undefined);
    return turn;
  }

  /** For the admin service: the same as the signal, so there is one way to stop. */
  stop(): void {
    process.kill(process.pid, 'SIGTERM');
  }

  async #reload(): Promise<ReloadResult> {
    const { current, events, log, now, role } = this.#parts;
    const read = await readSettings(current.settings.file, role);
    if ('errors' in read) return this.#rejected(read.errors);
    const { settings, waiting } = reloadSettings(current.settings, read.settings);
    const pools = newPools(current.settings, settings);
    if (pools.length > 0) {
      return this.#rejected([
        `${settings.file}: the address pool ${pools.join(' and ')} is new, and a new pool needs a restart: ` +
          'restart the gateway (clients come back by themselves), or take it out and reload.',
      ]);
    }
    let steps: (() => void | Promise<void>)[];
    try {
      const isEdge = role === undefined || role === 'tunnel-node';
      const certificates = isEdge ? await loadCertificates(settings) : NO_CERTIFICATES;
      steps = await Promise.all(this.#reloadables.map((part) => part.prepare(settings, certificates)));
    } catch (error) {
      return this.#rejected([error instanceof Error ? error.message : String(error)]);
    }
    current.settings = settings;
    for (const step of steps) await step();
    log.info({ revision: settings.revision, waiting }, 'configuration applied');
    const detail = waiting.length > 0 ? `at the next start: ${waiting.join(', ')}` : '';
    events.append([{ v: 1, at: now(), type: 'config.applied', revision: settings.revision, detail }]);
    return { applied: true, revision: settings.revision, waiting, errors: [] };
  }

  #rejected(errors: string[]): ReloadResult {
    const { revision } = this.#parts.current.settings;
    for (const problem of errors)
      this.#parts.log.error({ problem }, 'configuration rejected, the old one stays');
    this.#parts.events.append([
      { v: 1, at: this.#parts.now(), type: 'config.rejected', revision, detail: errors.join('\n') },
    ]);
    return { applied: false, revision, waiting: [], errors };
  }
}

const NO_CERTIFICATES: ListenerCertificates = { hosts: new Map() };

/** The TUN device and the return path know the pools of the start. */
function newPools(before: Settings, after: Settings): string[] {
  const known = new Set(Object.values(poolsOf(before)).flat());
  return Object.values(poolsOf(after))
    .flat()
    .filter((pool) => !known.has(pool));
}
