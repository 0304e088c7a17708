import type { Log } from '@sallyport/chassis';
import {
  epochOf,
  sameLease,
  StoreUnavailable,
  type Lease,
  type NodeIdentity,
  type Notice,
  type Sessions,
} from '@sallyport/cluster';

export interface LeaseCheckParts {
  node: NodeIdentity;
  sessions: Pick<Sessions, 'leasesOf' | 'get' | 'park'>;
  /** Tunnels of this node by session. */
  held: ReadonlyMap<string, { lease: Lease }>;
  /** Closes tunnels whose lease is lost, and keeps a claim that is still under way from getting one. */
  lose: (notices: readonly Notice[]) => void;
  log: Log;
  /** Monotonic, ms. */
  now: number;
}

/**
 * Compares the leases that the store says this node has with its tunnels, now and then:
 *
 *   lease without a tunnel    the answer to a claim was lost and its client never came back. Seen at two looks, so that
 *                             a claim under way is no such thing, it is parked, fenced by that lease
 *   tunnel without a lease    the store is asked for the session, and what it says holds: a notice may be lost, too
 */
export class LeaseCheck {
  readonly #parts: LeaseCheckParts;
  /** Leases without a tunnel at the last look. */
  #suspects = new Map<string, Lease>();
  #dueAt: number;
  #looking = false;

  constructor(parts: LeaseCheckParts) {
    this.#parts = parts;
    this.#dueAt = parts.now + LOOK_SECONDS * 1000;
  }

  /** A claim has got no answer: there may be something to find. */
  hasten(now: number): void {
    this.#dueAt = Math.min(this.#dueAt, now + SUSPECT_SECONDS * 1000);
  }

  /** Called about once a second. Never rejects. */
  async handleTick(now: number): Promise<void> {
    if (this.#looking || now < this.#dueAt) return;
    this.#looking = true;
    this.#dueAt = now + LOOK_SECONDS * 1000;
    const done = await this.#quietly(() => this.#look());
    if (!done || this.#suspects.size > 0) this.hasten(now);
    this.#looking = false;
  }

  /** Asks for the session of a tunnel whose lease the store did not know, and obeys. Never rejects. */
  async verify(sessionId: string, lease: Lease): Promise<void> {
    await this.#quietly(async () => {
      const stored = await this.#parts.sessions.get(sessionId);
      // A store that is behind this lease has forgotten: it begins a reign and is told (CLUSTER.md C1).
      if (stored && epochOf(stored) < lease.epoch) return;
      if (stored?.state === 'up' && sameLease(stored.lease, lease)) return;
      const ended = stored?.endReason ?? '';
      const reason = ended === '' ? 'superseded' : ended;
      this.#parts.lose([{ sessionId, upToEpoch: lease.epoch, reason }]);
    });
  }

  async #look(): Promise<void> {
    const { node, sessions, held } = this.#parts;
    const before = [...held].map(([id, { lease }]) => ({ id, lease }));
    const listed = new Set(await sessions.leasesOf(node));
    for (const { id, lease } of before)
      if (!listed.has(id) && held.get(id)?.lease === lease) await this.verify(id, lease);
    const suspects = new Map<string, Lease>();
    for (const id of listed) {
      if (suspects.size >= SUSPECTS_LIMIT) break;
      if (held.has(id)) continue;
      const lease = await this.#ownLease(id);
      if (lease === undefined) continue;
      if (!sameLease(this.#suspects.get(id), lease)) suspects.set(id, lease);
      else if (!held.has(id)) await this.#park(id, lease);
    }
    this.#suspects = suspects;
  }

  async #ownLease(id: string): Promise<Lease | undefined> {
    const { node, sessions } = this.#parts;
    const session = await sessions.get(id);
    if (session?.state !== 'up') return undefined;
    const { lease } = session;
    return lease?.name === node.name && lease.incarnation === node.incarnation ? lease : undefined;
  }

  async #park(sessionId: string, lease: Lease): Promise<void> {
    const { sessions, lose, log } = this.#parts;
    // First: an answer that comes even now must not begin a tunnel with a lease that is given up.
    lose([{ sessionId, upToEpoch: lease.epoch, reason: 'superseded' }]);
    const parked = await sessions.park(sessionId, lease, 'connection-lost', NOTHING_USED);
    if (parked) log.warn({ session: sessionId }, 'a session had a lease and no tunnel: it is parked');
  }

  async #quietly(work: () => Promise<void>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      if (!(error instanceof StoreUnavailable))
        this.#parts.log.error({ err: error }, 'leases cannot be checked');
      return false;
    }
  }
}

export const LOOK_SECONDS = 60;
/** Between two looks when there is something to look for. */
export const SUSPECT_SECONDS = 15;
/** Leases without a tunnel that one look takes note of: the next look goes on. */
export const SUSPECTS_LIMIT = 500;
const NOTHING_USED = { rxBytes: 0n, txBytes: 0n, activeAt: 0n };
