import { statSync } from 'node:fs';
import { type Log } from '@sallyport/chassis';
import {
  certificateWarnings,
  namedFiles,
  policyScopes,
  poolsOf,
  readSettings,
  reloadSettings,
  settingsLine,
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
  #files: Map<string, string>;
  #reloading: Promise<unknown> = Promise.resolve();

  constructor(parts: LifecycleParts) {
    this.#parts = parts;
    this.#startedAt = parts.now();
    this.#files = stamps(parts.current.settings);
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
    const pools = await newPools(current.settings, settings);
    if (pools.length > 0) return this.#rejected(pools);
    const fresh = stamps(settings);
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
    const files = [...fresh].filter(([file, stamp]) => this.#files.get(file) !== stamp).map(([file]) => file);
    this.#files = fresh;
    log.info({ revision: settings.revision, waiting, files }, 'configuration applied');
    const warnings = await certificateWarnings(settings, Date.now());
    for (const problem of warnings) log.warn({ problem }, 'clients may refuse a certificate');
    const detail = waiting.length > 0 ? `at the next start: ${waiting.join(', ')}` : '';
    events.append([{ v: 1, at: now(), type: 'config.applied', revision: settings.revision, detail }]);
    return { applied: true, revision: settings.revision, waiting, errors: [], files, warnings };
  }

  #rejected(errors: string[]): ReloadResult {
    const { revision } = this.#parts.current.settings;
    for (const problem of errors)
      this.#parts.log.error({ problem }, 'configuration rejected, the old one stays');
    this.#parts.events.append([
      { v: 1, at: this.#parts.now(), type: 'config.rejected', revision, detail: errors.join('\n') },
    ]);
    return { applied: false, revision, waiting: [], errors, files: [], warnings: [] };
  }
}

const NO_CERTIFICATES: ListenerCertificates = { hosts: new Map() };

/** The TUN device and the return path know the pools of the start. @returns `FILE:LINE: message` for each that is new. */
async function newPools(before: Settings, after: Settings): Promise<string[]> {
  const known = new Set(Object.values(poolsOf(before)).flat());
  const errors: string[] = [];
  for (const { path, policy } of policyScopes(after)) {
    for (const [key, pools = []] of [
      ['ipv4-network', policy.ipv4Pools],
      ['ipv6-network', policy.ipv6Pools],
    ] as const) {
      for (const pool of pools.filter((one) => !known.has(one))) {
        const line = await settingsLine(after.file, [...path, key]);
        errors.push(
          `${after.file}:${line}: the address pool ${pool} is new, and a new pool needs a restart: restart the gateway ` +
            '(clients come back by themselves), or take it out and reload.',
        );
      }
    }
  }
  return errors;
}

/** Tells whether a file is another one now; '' = it is not there. */
function stamps(settings: Settings): Map<string, string> {
  return new Map(
    namedFiles(settings).map((file) => {
      const facts = statSync(file, { bigint: true, throwIfNoEntry: false });
      return [file, facts ? `${facts.ino}:${facts.size}:${facts.mtimeNs}` : ''];
    }),
  );
}
