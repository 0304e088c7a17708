import { formatCidr, parseCidr } from '@sallyport/protocol';
import { CommandFailed } from './commands.ts';
import type { Conntrack } from './conntrack.ts';
import { ROUTE_PROTOCOL } from './device.tuntap.ts';
import { ipBatch } from './ip-command.ts';
import type { ReturnPath, ReturnPathStats } from './return-path.ts';
import type { Owner } from './routes.ts';

/**
 * `routed`: one kernel route on the TUN device for each address of a tunnel, for a routing daemon to spread.
 *
 *   announce ──► metric 100 ── 60 s ──► metric 200 ── withdraw ──► gone, tracked connections forgotten
 *
 * The metric is the preference (lower wins): a node that has just taken an address wins against one that has not noticed
 * yet that it lost it. Changes go to the kernel in batches, one after the other. What waits is a set of prefixes, each at
 * most once with what is wanted now, so it is never longer than the addresses that came and went since. A change that
 * fails is tried again every second and stops no other. All routes die with the device, that is, with this process.
 */
export class RoutedPath implements ReturnPath {
  readonly #options: RoutedOptions;
  readonly #routes = new Map<string, Route>();
  readonly #prefixes = new Map<number, string[]>();
  /** Announced at (monotonic ms); the oldest first. */
  readonly #fresh = new Map<Route, number>();
  readonly #dirty = new Set<Route>();
  readonly #failed = new Set<Route>();
  readonly #ticker: NodeJS.Timeout;
  #working: Promise<void> | undefined;
  #failures = 0;
  #healthy = true;
  #closed = false;

  constructor(options: RoutedOptions) {
    this.#options = options;
    this.#ticker = setInterval(() => this.handleTick(), TICK_MS);
    this.#ticker.unref();
  }

  announce(tunnelId: number, addresses: Owner): void {
    if (this.#closed) return;
    this.withdraw(tunnelId);
    const prefixes = prefixesOf(addresses);
    this.#prefixes.set(tunnelId, prefixes);
    for (const prefix of prefixes) {
      const route = this.#routes.get(prefix) ?? {
        prefix,
        tunnelId,
        wanted: FRESH_METRIC,
        present: new Set(),
      };
      this.#routes.set(prefix, route);
      this.#fresh.delete(route);
      this.#fresh.set(route, this.#now());
      route.tunnelId = tunnelId;
      this.#want(route, FRESH_METRIC);
    }
  }

  withdraw(tunnelId: number): void {
    for (const prefix of this.#prefixes.get(tunnelId) ?? []) {
      const route = this.#routes.get(prefix);
      if (route?.tunnelId !== tunnelId) continue;
      this.#fresh.delete(route);
      this.#want(route, undefined);
    }
    this.#prefixes.delete(tunnelId);
  }

  /** Once a second. */
  handleTick(): void {
    const settled = this.#now() - SETTLE_SECONDS * 1000;
    for (const [route, since] of this.#fresh) {
      if (since > settled) break;
      this.#fresh.delete(route);
      this.#want(route, SETTLED_METRIC);
    }
    for (const route of this.#failed) this.#want(route, route.wanted);
    this.#failed.clear();
  }

  stats(): ReturnPathStats {
    let announced = 0;
    let waiting = 0;
    for (const { wanted, present } of this.#routes.values()) {
      if (wanted !== undefined) announced += 1;
      if (present.size !== (wanted === undefined ? 0 : 1) || (wanted && !present.has(wanted))) waiting += 1;
    }
    return { routes: { announced, waiting, failures: this.#failures } };
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#ticker);
    await this.#working;
    await this.#options.conntrack.close();
  }

  #want(route: Route, metric: number | undefined): void {
    if (this.#closed) return;
    route.wanted = metric;
    this.#dirty.add(route);
    this.#working ??= this.#work();
  }

  async #work(): Promise<void> {
    // An address that changes its tunnel is withdrawn and announced at once: that is one change.
    await new Promise(setImmediate);
    while (this.#dirty.size > 0) {
      const routes = [...this.#dirty].slice(0, ROUTES_PER_BATCH);
      for (const route of routes) this.#dirty.delete(route);
      await this.#apply(routes.flatMap(changesOf));
      for (const route of routes) this.#forget(route);
    }
    this.#working = undefined;
  }

  async #apply(changes: readonly Change[]): Promise<void> {
    if (changes.length === 0) return;
    const { device, batch = ipBatch } = this.#options;
    // From here on the kernel may have them, whatever becomes of the batch.
    for (const { add, route, metric } of changes) if (add) route.present.add(metric);
    const lines = changes.map(
      ({ add, route, metric }) =>
        `route ${add ? 'replace' : 'delete'} ${route.prefix} dev ${device} proto ${ROUTE_PROTOCOL} metric ${metric}`,
    );
    let failed: ReadonlyMap<number, string>;
    try {
      failed = await batch(lines);
    } catch (error) {
      if (!(error instanceof CommandFailed)) throw error;
      failed = new Map(changes.map((_, at) => [at, error.message]));
    }
    let problem = '';
    for (const [at, { add, route, metric }] of changes.entries()) {
      const said = failed.get(at);
      if (said !== undefined && (add || !ABSENT.test(said))) {
        problem = said;
        this.#failures += 1;
        this.#failed.add(route);
      } else if (!add) route.present.delete(metric);
    }
    if (problem !== '' && this.#healthy) this.#options.onProblem(problem);
    this.#healthy = problem === '';
  }

  #forget(route: Route): void {
    if (route.wanted !== undefined || route.present.size > 0) return;
    if (this.#routes.get(route.prefix) === route) this.#routes.delete(route.prefix);
    this.#failed.delete(route);
    this.#options.conntrack.forget(route.prefix);
  }

  #now(): number {
    return this.#options.now?.() ?? performance.now();
  }
}

export interface RoutedOptions {
  /** A checked name of a device. */
  device: string;
  conntrack: Pick<Conntrack, 'forget' | 'close'>;
  /** The kernel refused a change, in its words; told once until all went well again. */
  onProblem: (problem: string) => void;
  /** Default: `ip -batch`. */
  batch?: typeof ipBatch;
  /** Monotonic, ms. Default: the machine's. */
  now?: () => number;
}

interface Route {
  readonly prefix: string;
  /** Who announced it last. */
  tunnelId: number;
  /** Metric; undefined = no route. */
  wanted: number | undefined;
  /** Metrics of the routes that the kernel may have. */
  readonly present: Set<number>;
}

interface Change {
  route: Route;
  metric: number;
  add: boolean;
}

/** First the new route, then the old one goes: the address is never without. */
function changesOf(route: Route): Change[] {
  const add = route.wanted === undefined ? [] : [{ route, metric: route.wanted, add: true }];
  const others = [...route.present].filter((metric) => metric !== route.wanted);
  return [...add, ...others.map((metric) => ({ route, metric, add: false }))];
}

function prefixesOf({ ipv4, ipv6, ipv6PrefixLength }: Owner): string[] {
  const prefixes: string[] = [];
  for (const text of [ipv4 && `${ipv4}/32`, ipv6 && `${ipv6}/${ipv6PrefixLength}`]) {
    const cidr = text === '' ? undefined : parseCidr(text);
    if (cidr) prefixes.push(formatCidr(cidr));
  }
  return prefixes;
}

/** What `ip` says when a route, its table or its device is gone already. */
const ABSENT = /No such process|FIB table does not exist|Cannot find device/;

export const FRESH_METRIC = 100;
export const SETTLED_METRIC = 200;
/** How long a node that lost an address may go on announcing it. */
export const SETTLE_SECONDS = 60;
export const ROUTES_PER_BATCH = 1024;
const TICK_MS = 1000;
