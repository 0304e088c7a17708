import { cidrContains, formatCidr, parseCidr, type Cidr } from '@sallyport/protocol';
import { CommandFailed } from './commands.ts';
import type { Conntrack } from './conntrack.ts';
import { ROUTE_PROTOCOL } from './device.tuntap.ts';
import { deviceRoutes, ipBatch } from './ip-command.ts';
import type { ReturnPath, ReturnPathStats } from './return-path.ts';
import type { Owner } from './routes.ts';

/**
 * `routed`: kernel routes on the TUN device, for a routing daemon to spread (CLUSTER.md C7).
 *
 *   a tunnel's address     announce ──► metric 100 ── 60 s ──► metric 200 ── withdraw ──► gone, connections forgotten
 *   the same, at home      announce ──► metric 100 ── 60 s ──► no route   ── withdraw ──► connections forgotten
 *     and returning        announce ─────────────────────────► no route   ── withdraw ──► connections forgotten
 *   home, as aggregates    settle   ──► metric 300 ── settle ──► gone
 *
 * The metric is a preference (lower wins): a node that has just taken an address wins against one that has not noticed
 * yet that it lost it. What lies in an aggregate that the kernel has is at home and needs no route of its own, but for
 * the time in which another node may still have one, which would be the longer prefix.
 *
 * Changes go to the kernel in batches, one after the other. What waits is a set of prefixes, each at most once with what
 * is wanted now, so it is never longer than the addresses that came and went since. A change that fails is tried again
 * every second and stops no other. Between batches the kernel is asked what it has, and gets again what somebody took
 * away. All routes die with the device, that is, with this process.
 */
export class RoutedPath implements ReturnPath {
  readonly #options: RoutedOptions;
  readonly #routes = new Map<string, Route>();
  /** Of the aggregates. */
  readonly #home = new Map<string, Route>();
  readonly #prefixes = new Map<number, string[]>();
  /** Announced at (monotonic ms); the oldest first. */
  readonly #fresh = new Map<Route, number>();
  readonly #dirty = new Set<Route>();
  readonly #failed = new Set<Route>();
  readonly #ticker: NodeJS.Timeout;
  #working: Promise<void> | undefined;
  #checkAt: number;
  #checkDue = false;
  #failures = 0;
  #healthy = true;
  #closed = false;

  constructor(options: RoutedOptions) {
    this.#options = options;
    this.#checkAt = this.#now() + CHECK_MS;
    this.#ticker = setInterval(() => this.handleTick(), TICK_MS);
    this.#ticker.unref();
  }

  announce(tunnelId: number, addresses: Owner, returning = false): void {
    if (this.#closed) return;
    this.withdraw(tunnelId);
    const prefixes = prefixesOf(addresses);
    this.#prefixes.set(
      tunnelId,
      prefixes.map(({ prefix }) => prefix),
    );
    for (const { prefix, cidr } of prefixes) {
      const route = this.#routes.get(prefix) ?? routeOf(prefix, cidr);
      this.#routes.set(prefix, route);
      route.tunnelId = tunnelId;
      this.#fresh.delete(route);
      const needsNone = returning && this.#isAtHome(route);
      if (!needsNone) this.#fresh.set(route, this.#now());
      this.#want(route, needsNone ? undefined : FRESH_METRIC);
    }
  }

  withdraw(tunnelId: number): void {
    for (const prefix of this.#prefixes.get(tunnelId) ?? []) {
      const route = this.#routes.get(prefix);
      if (route?.tunnelId !== tunnelId) continue;
      route.tunnelId = undefined;
      this.#fresh.delete(route);
      this.#want(route, undefined);
    }
    this.#prefixes.delete(tunnelId);
  }

  settle(home: readonly string[]): void {
    const wanted = new Map(home.map(parseCidr).flatMap((cidr) => (cidr ? [[formatCidr(cidr), cidr]] : [])));
    const leaving = [...this.#home.values()].filter(({ prefix }) => !wanted.has(prefix));
    for (const aggregate of leaving) aggregate.leaving = true;
    // They go to the kernel in this order, so that no address is without a route.
    for (const route of leaving.length > 0 ? this.#routes.values() : []) {
      if (route.tunnelId === undefined || route.wanted !== undefined || this.#isAtHome(route)) continue;
      this.#want(route, SETTLED_METRIC);
    }
    for (const aggregate of leaving) this.#want(aggregate, undefined);
    for (const [prefix, cidr] of wanted) {
      const aggregate = this.#home.get(prefix) ?? routeOf(prefix, cidr);
      this.#home.set(prefix, aggregate);
      aggregate.leaving = false;
      if (aggregate.wanted !== HOME_METRIC) this.#want(aggregate, HOME_METRIC);
    }
  }

  /** Once a second. */
  handleTick(): void {
    const settled = this.#now() - SETTLE_SECONDS * 1000;
    for (const [route, since] of this.#fresh) {
      if (since > settled) break;
      this.#fresh.delete(route);
      this.#want(route, this.#isAtHome(route) ? undefined : SETTLED_METRIC);
    }
    for (const route of this.#failed) this.#want(route, route.wanted);
    this.#failed.clear();
    if (this.#now() < this.#checkAt || this.#closed) return;
    this.#checkDue = true;
    this.#working ??= this.#work();
  }

  stats(): ReturnPathStats {
    let announced = 0;
    let waiting = 0;
    for (const { wanted, present } of this.#all()) {
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

  #isAtHome({ cidr }: Route): boolean {
    for (const home of this.#home.values()) {
      if (home.leaving || this.#dirty.has(home) || this.#failed.has(home)) continue;
      const inside = home.cidr.prefixLength <= cidr.prefixLength && cidrContains(home.cidr, cidr.network);
      if (inside && home.present.has(HOME_METRIC)) return true;
    }
    return false;
  }

  *#all(): Generator<Route> {
    yield* this.#routes.values();
    yield* this.#home.values();
  }

  #want(route: Route, metric: number | undefined): void {
    if (this.#closed) return;
    route.wanted = metric;
    this.#dirty.delete(route);
    this.#dirty.add(route);
    this.#working ??= this.#work();
  }

  async #work(): Promise<void> {
    // An address that changes its tunnel is withdrawn and announced at once: that is one change.
    await new Promise(setImmediate);
    while (this.#dirty.size > 0 || this.#checkDue) {
      if (this.#checkDue) await this.#check();
      const routes = [...this.#dirty].slice(0, ROUTES_PER_BATCH);
      for (const route of routes) this.#dirty.delete(route);
      await this.#apply(routes.flatMap(changesOf));
      for (const route of routes) this.#finish(route);
    }
    this.#working = undefined;
  }

  /** What the kernel has lost, because somebody set the device down or took routes away, it gets again. */
  async #check(): Promise<void> {
    this.#checkDue = false;
    const { device, list = deviceRoutes, onRestored } = this.#options;
    const size = this.#routes.size + this.#home.size;
    this.#checkAt = this.#now() + CHECK_MS * Math.max(1, Math.ceil(size / ROUTES_PER_CHECK));
    let lost = 0;
    try {
      const found = new Set(await list(device, ROUTE_PROTOCOL));
      for (const route of this.#all()) {
        // It is set again anyway.
        if (this.#dirty.has(route) || this.#failed.has(route)) continue;
        for (const metric of route.present) {
          if (found.has(`${route.prefix} ${metric}`)) continue;
          route.present.delete(metric);
          lost += 1;
          this.#dirty.add(route);
        }
      }
    } catch (error) {
      // A device that is gone ends the process; anything else is asked again.
      if (!(error instanceof CommandFailed)) throw error;
    }
    if (lost > 0) onRestored?.(lost);
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

  /** After its changes went to the kernel. */
  #finish(route: Route): void {
    if (this.#home.get(route.prefix) === route) return this.#finishHome(route);
    if (route.tunnelId !== undefined || route.present.size > 0) return;
    if (this.#routes.get(route.prefix) === route) this.#routes.delete(route.prefix);
    this.#failed.delete(route);
    this.#options.conntrack.forget(route.prefix);
  }

  #finishHome(aggregate: Route): void {
    if (aggregate.wanted === undefined && aggregate.present.size === 0) {
      this.#home.delete(aggregate.prefix);
      this.#failed.delete(aggregate);
    }
    if (aggregate.wanted === undefined || !aggregate.present.has(aggregate.wanted)) return;
    // Those that were announced one by one go when the aggregate had time to spread.
    for (const route of this.#routes.values()) {
      if (route.wanted !== SETTLED_METRIC || !this.#isAtHome(route)) continue;
      this.#fresh.delete(route);
      this.#fresh.set(route, this.#now());
    }
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
  /** The kernel had lost so many routes; they are set again. */
  onRestored?: (count: number) => void;
  /** Default: `ip -batch`. */
  batch?: typeof ipBatch;
  /** Default: `ip route show`. */
  list?: typeof deviceRoutes;
  /** Monotonic, ms. Default: the machine's. */
  now?: () => number;
}

interface Route {
  readonly prefix: string;
  readonly cidr: Cidr;
  /** Who announced it last and has it still. */
  tunnelId: number | undefined;
  /** Metric; undefined = no route. */
  wanted: number | undefined;
  /** Metrics of the routes that the kernel may have. */
  readonly present: Set<number>;
  /** An aggregate that goes: nothing is at home in it any more. */
  leaving: boolean;
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

function routeOf(prefix: string, cidr: Cidr): Route {
  return { prefix, cidr, tunnelId: undefined, wanted: undefined, present: new Set(), leaving: false };
}

function prefixesOf({ ipv4, ipv6, ipv6PrefixLength }: Owner): Pick<Route, 'prefix' | 'cidr'>[] {
  const prefixes: Pick<Route, 'prefix' | 'cidr'>[] = [];
  for (const text of [ipv4 && `${ipv4}/32`, ipv6 && `${ipv6}/${ipv6PrefixLength}`]) {
    const cidr = text === '' ? undefined : parseCidr(text);
    if (cidr) prefixes.push({ prefix: formatCidr(cidr), cidr });
  }
  return prefixes;
}

/** What `ip` says when a route, its table or its device is gone already. */
const ABSENT = /No such process|FIB table does not exist|Cannot find device/;

export const FRESH_METRIC = 100;
export const SETTLED_METRIC = 200;
/** Another one than those of tunnels: a client's prefix may be as long as an aggregate. */
export const HOME_METRIC = 300;
/** How long a node that lost an address may go on announcing it. */
export const SETTLE_SECONDS = 60;
export const ROUTES_PER_BATCH = 1024;
const TICK_MS = 1000;
/** How long the kernel may lack what somebody took away, at most, before it is noticed. */
export const CHECK_MS = 2000;
/** With more routes it is asked less often: to list 10,000 costs about 50 ms of a processor. */
export const ROUTES_PER_CHECK = 10_000;
