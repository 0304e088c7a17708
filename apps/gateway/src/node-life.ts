import type { Log } from '@sallyport/chassis';
import {
  NodeReplaced,
  ServiceUnavailable,
  StoreUnavailable,
  type Nodes,
  type NodeReport,
  type NodeStatus,
  type PeerNode,
  type Release,
  type Upstream,
} from '@sallyport/cluster';
import type { Reason } from '@sallyport/protocol';
import type { Tunnels } from '@sallyport/tunnel-node';
import type { HomeSlice } from './home-slice.ts';
import type { Isolation, StoreSight } from './isolation.ts';
import type { GatewayLifecycle } from './lifecycle.ts';
import type { Peers } from './peers.ts';

export interface NodeLifeParts {
  nodes: Nodes;
  tunnels: Pick<
    Tunnels,
    'abandon' | 'tunnels' | 'disconnect' | 'release' | 'moveAway' | 'size' | 'lastId' | 'refusing'
  >;
  lifecycle: Pick<GatewayLifecycle, 'status'>;
  announcement: Pick<NodeReport, 'name' | 'incarnation' | 'number' | 'address'>;
  /** What each heartbeat says of its slice of the pools. Absent = it has none. */
  home?: Pick<HomeSlice, 'said'>;
  /** Both absent: there are no other nodes. */
  peers?: Pick<Peers, 'look'>;
  isolation?: Pick<Isolation, 'reason' | 'handleTick'>;
  /** Another process goes by the name of this node: it must end. Told once. */
  onReplaced?: (why: NodeReplaced) => void;
  log: Log;
  /** µs since 1970. */
  now: () => bigint;
  /** Monotonic ms. */
  monotonic?: () => number;
}

/**
 * One node among the others: its heartbeat, and how it drains:
 *
 *   1. at once      404 to balancers; no new logins; CONNECT of live sessions is served still
 *   2. after 3 s    (balancers have seen it) its tunnels end in waves, without a packet: the clients come back elsewhere;
 *                   one that comes back here stays, because it found nothing else
 *   3. after 300 s  no CONNECT any more, and the rest goes
 *
 * The flag is in the store and outlives the process, so a node that is started again while it drains goes on draining.
 */
export class NodeLife implements PeerNode {
  readonly #parts: NodeLifeParts;
  readonly #monotonic: () => number;
  readonly #timer: NodeJS.Timeout;
  #drainingSince: number | undefined;
  #wave = 0;
  /** Newest tunnel when the draining began. */
  #newest = 0;
  #store: StoreSight = { answeredAt: undefined, silentSince: undefined };
  #beating: Promise<void> | undefined;
  #replaced = false;

  constructor(parts: NodeLifeParts) {
    this.#parts = parts;
    this.#monotonic = parts.monotonic ?? (() => performance.now());
    this.#timer = setInterval(() => void this.handleTick(), BEAT_MS);
    this.#timer.unref();
  }

  get draining(): boolean {
    return this.#drainingSince !== undefined;
  }

  tunnels = () => this.#parts.tunnels.tunnels();
  disconnect = (sessionIds: string[], reason: Reason) => this.#parts.tunnels.disconnect(sessionIds, reason);
  release = async (releases: readonly Release[]) => this.#parts.tunnels.release(releases);

  async drain(drain: boolean): Promise<boolean> {
    const { nodes, announcement } = this.#parts;
    await nodes.drain(announcement.name, drain);
    this.#take(drain);
    return this.draining;
  }

  async status(): Promise<NodeStatus> {
    const { lifecycle, announcement, tunnels } = this.#parts;
    const { version, revision, startedAt, state } = lifecycle.status();
    return {
      node: announcement.name,
      incarnation: announcement.incarnation,
      version,
      revision,
      startedAt,
      state: state === 'online' && this.draining ? 'draining' : state,
      tunnels: tunnels.size,
    };
  }

  async storeSilence(): Promise<number | undefined> {
    const { answeredAt } = this.#store;
    return answeredAt === undefined ? undefined : this.#monotonic() - answeredAt;
  }

  /** For balancers. */
  notReady(): string[] {
    const isolated = this.#parts.isolation?.reason;
    return [
      ...(this.#replaced ? ['replaced by another process'] : []),
      ...(this.draining ? ['draining'] : []),
      ...(isolated === undefined ? [] : [isolated]),
    ];
  }

  /** For people: a store that is away for everybody must not make balancers act. */
  notes(): string[] {
    const silent = this.#store.silentSince;
    return silent !== undefined && this.#monotonic() - silent > BEAT_MS
      ? ['the session store cannot be reached']
      : [];
  }

  /** The portal as clients of this node reach it. */
  guarded(portal: Upstream): Upstream {
    return (request) =>
      this.notReady().length > 0
        ? Promise.reject(new ServiceUnavailable('this node takes nobody', { reason: this.#unwilling }))
        : portal(request);
  }

  get #unwilling(): Reason {
    return this.#parts.isolation?.reason === undefined ? 'draining' : 'isolated';
  }

  /** Called by its own clock about once a second. */
  async handleTick(): Promise<void> {
    await this.#beat();
    if (this.#replaced) return;
    await this.#parts.isolation?.handleTick(this.#store);
    await this.#moveAway();
  }

  /** A heartbeat under way is waited for: it would write the record of a node that has left. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#beating;
  }

  async #moveAway(): Promise<void> {
    this.#refuse();
    const since = this.#drainingSince;
    if (since === undefined) return;
    const seconds = (this.#monotonic() - since) / 1000;
    const { tunnels, log } = this.#parts;
    if (this.#isLate) this.#newest = tunnels.lastId;
    if (seconds < BALANCERS_SEE_SECONDS || tunnels.size === 0) return;
    this.#wave ||= Math.max(LEAST_WAVE, Math.ceil(tunnels.size / WAVES));
    const moved = await tunnels.moveAway(this.#wave, this.#newest);
    if (moved > 0) log.info({ moved, left: tunnels.size }, 'draining: tunnels move away');
  }

  /** CONNECTs, from now on. */
  #refuse(): void {
    const isolated = this.#parts.isolation?.reason !== undefined;
    this.#parts.tunnels.refusing = isolated ? 'isolated' : this.#isLate ? 'draining' : undefined;
  }

  get #isLate(): boolean {
    const since = this.#drainingSince;
    return since !== undefined && this.#monotonic() - since >= DRAIN_DEADLINE_SECONDS * 1000;
  }

  /** One at a time: a store that does not answer holds up the heartbeat and nothing else. */
  async #beat(): Promise<void> {
    if (this.#beating) return;
    this.#beating = this.#tell();
    await this.#beating;
    this.#beating = undefined;
  }

  /** Never rejects. */
  async #tell(): Promise<void> {
    const { nodes, peers, announcement, home, tunnels, lifecycle, log, now } = this.#parts;
    const { version, state } = lifecycle.status();
    const begun = this.#monotonic();
    try {
      const record = await nodes.heartbeat(
        {
          ...announcement,
          ...{ home: home?.said ?? '', tunnels: tunnels.size, version },
          unready: state === 'stopping' || this.notReady().length > 0,
        },
        now(),
      );
      this.#store = { answeredAt: begun, silentSince: undefined };
      this.#take(record.drain);
      await peers?.look();
    } catch (error) {
      if (error instanceof NodeReplaced) return this.#yield(error);
      if (!(error instanceof StoreUnavailable)) log.error({ err: error }, 'the heartbeat failed');
      this.#store = { ...this.#store, silentSince: this.#store.silentSince ?? begun };
    }
  }

  /** The clients are the other one's; without a packet they come back at once. */
  #yield(why: NodeReplaced): void {
    const { tunnels, lifecycle, onReplaced } = this.#parts;
    void this.close();
    if (this.#replaced) return;
    this.#replaced = true;
    if (lifecycle.status().state === 'stopping') return;
    tunnels.refusing = 'server-shutdown';
    tunnels.abandon('superseded');
    onReplaced?.(why);
  }

  #take(drain: boolean): void {
    if (drain === this.draining) return;
    this.#drainingSince = drain ? this.#monotonic() : undefined;
    this.#wave = 0;
    this.#newest = this.#parts.tunnels.lastId;
    this.#refuse();
    this.#parts.log.info({ drain }, drain ? 'the node drains' : 'the node takes clients again');
  }
}

export const BEAT_MS = 1000;
/** haproxy with `inter 300ms fall 2` needs one; kube-proxy's probes some. */
export const BALANCERS_SEE_SECONDS = 3;
export const DRAIN_DEADLINE_SECONDS = 300;
/** One a second. */
export const WAVES = 30;
export const LEAST_WAVE = 10;
