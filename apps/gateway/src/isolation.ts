/**
 * Whether the store is away for everybody or only for this node (CLUSTER.md C3, docs/decisions/0006-isolation.md):
 *
 *            peers have reached it for 3 s, or nobody has answered for `isolation-limit`
 *   joined ─────────────────────────────────────────────────────────────────────► isolated ◄──┐
 *     ▲ ▲                                                                           │   │     │ silent again
 *     │ └─────────────── no peer reaches it: it is down, for everybody ─────────────┘   │     │
 *     └── it has answered for 5 s ── returning ◄───────── it answers ───────────────────┘     │
 *                                        └────────────────────────────────────────────────────┘
 *
 * While it is isolated or returning, balancers get a 404, logins and CONNECTs are refused, and no address is announced.
 * After `isolation-limit` of that its tunnels end without a packet: their clients come back elsewhere.
 */
import type { Log, Metrics } from '@sallyport/chassis';
import type { Tunnels } from '@sallyport/tunnel-node';
import type { Peers, PeerSays } from './peers.ts';

export interface IsolationParts {
  peers: Pick<Peers, 'ask'>;
  tunnels: Pick<Tunnels, 'announcing' | 'abandon' | 'size'>;
  /** `isolation-limit` of the present configuration. */
  limitSeconds: () => number;
  log: Log;
  /** Monotonic, ms. */
  monotonic: () => number;
}

/** When the store answered and when not: monotonic ms, of the moments at which it was asked. */
export interface StoreSight {
  /** Last time that it answered. */
  answeredAt: number | undefined;
  /** First time since then that it did not; undefined = it answers. */
  silentSince: number | undefined;
}

export class Isolation {
  readonly #parts: IsolationParts;
  #state: 'joined' | 'isolated' | 'returning' = 'joined';
  /** Since when it is not joined, ms. */
  #since = 0;
  /** Since when peers are known to reach the store while this node does not. */
  #suspectedSince: number | undefined;
  /** First answer after a silence. */
  #returnedAt = 0;
  #silentSince: number | undefined;
  /** Last time that a peer answered at all. */
  #heardAt = -Infinity;
  #alone = false;
  #asking = false;

  constructor(parts: IsolationParts) {
    this.#parts = parts;
  }

  /** Why this node takes nobody; undefined = it is one of the cluster. */
  get reason(): string | undefined {
    if (this.#state === 'joined') return undefined;
    if (this.#state === 'returning') return 'isolated: the session store has just come back to this node';
    return this.#alone
      ? 'isolated: neither the session store nor another node answers'
      : 'isolated: the session store answers other nodes and not this one';
  }

  /** Once a second. */
  async handleTick(store: StoreSight): Promise<void> {
    this.#silentSince = store.silentSince;
    if (store.silentSince === undefined) return this.#handleAnswers(store.answeredAt ?? -Infinity);
    if (this.#state === 'returning') this.#state = 'isolated';
    if (this.#parts.monotonic() - store.silentSince >= SUSPICIOUS_MS) await this.#ask(store.silentSince);
    this.#closeTunnels();
  }

  #handleAnswers(answeredAt: number): void {
    this.#suspectedSince = undefined;
    if (this.#state === 'isolated') {
      this.#state = 'returning';
      this.#returnedAt = answeredAt;
    }
    if (this.#state === 'returning' && answeredAt - this.#returnedAt >= RETURN_MS) this.#join();
  }

  async #ask(silentSince: number): Promise<void> {
    if (this.#asking) return;
    this.#asking = true;
    const { peers, monotonic } = this.#parts;
    const askedAt = monotonic();
    const answers = await peers.ask().finally(() => (this.#asking = false));
    // The store has answered meanwhile.
    if (this.#silentSince !== silentSince) return;
    const verdict = verdictOf(answers, silentSince, askedAt);
    if (verdict !== 'unknown') this.#heardAt = askedAt;
    const now = monotonic();
    if (verdict === 'isolated') {
      this.#suspectedSince ??= askedAt;
      if (now - this.#suspectedSince >= CONFIRMED_MS) this.#leave(false);
    } else if (verdict === 'down') {
      this.#suspectedSince = undefined;
      this.#join();
    } else if (now - Math.max(silentSince, this.#heardAt) >= this.#limitMs) this.#leave(true);
  }

  get #limitMs(): number {
    return this.#parts.limitSeconds() * 1000;
  }

  #leave(alone: boolean): void {
    this.#alone = alone;
    if (this.#state === 'isolated') return;
    const { log, tunnels, monotonic } = this.#parts;
    this.#state = 'isolated';
    this.#since = monotonic();
    tunnels.announcing = false;
    log.error({ tunnels: tunnels.size, reason: this.reason }, 'this node is isolated');
  }

  #join(): void {
    if (this.#state === 'joined') return;
    this.#state = 'joined';
    this.#parts.tunnels.announcing = true;
    this.#parts.log.info({}, 'this node is one of the cluster again');
  }

  #closeTunnels(): void {
    const { log, tunnels, monotonic } = this.#parts;
    if (this.#state !== 'isolated' || tunnels.size === 0) return;
    if (monotonic() - this.#since < this.#limitMs) return;
    log.warn(
      { closed: tunnels.abandon('isolated') },
      'isolated: tunnels are closed, their clients come back elsewhere',
    );
  }
}

export function observeIsolation(metrics: Metrics, isolation: Pick<Isolation, 'reason'>): void {
  metrics.gauge(
    'sallyport_node_isolated',
    '1 while the session store answers other nodes and not this one, and until it has answered it for a while.',
    [],
    (gauge) => gauge.set(isolation.reason === undefined ? 0 : 1),
  );
}

/** @param silentSince, askedAt ms of this node's clock: the peers tell durations only, so no clocks are compared. */
function verdictOf(
  answers: readonly PeerSays[],
  silentSince: number,
  askedAt: number,
): 'isolated' | 'down' | 'unknown' {
  const answered = answers.filter((says) => says.kind === 'answered');
  // It reached the store a good while after this node could not any more, and not long ago.
  const reached = answered.some(
    ({ silentMs }) => askedAt - silentMs > silentSince + MARGIN_MS && silentMs <= LATELY_MS,
  );
  if (reached) return 'isolated';
  // A node that was always by itself, or the last one, goes on: nobody is there who could have taken its sessions.
  if (answered.length > 0 || answers.every(({ kind }) => kind === 'gone')) return 'down';
  return 'unknown';
}

/** A heartbeat fails after 3 s; the one after it must have had its chance, because a busy process misses answers. */
export const SUSPICIOUS_MS = 4000;
/** What was under way when the store stopped is no sign. */
const MARGIN_MS = 1000;
/** A heartbeat each second, 3 s until one fails. */
const LATELY_MS = 5000;
/** After an outage of the store nodes find it again one after the other. */
export const CONFIRMED_MS = 3000;
/** In this time the mailbox was read: what others took is not announced again. */
export const RETURN_MS = 5000;
