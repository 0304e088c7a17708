import type { Log } from '@sallyport/chassis';
import type { NodeIdentity, PeerNode, Release } from '@sallyport/cluster';
import type { Peers } from './peers.ts';

export interface ReleasesParts {
  peers: Pick<Peers, 'addressOf'>;
  client: (address: string) => Promise<Pick<PeerNode, 'release'>>;
  log: Log;
}

/**
 * Tells the former owners of sessions that this node took them (CLUSTER.md C2). Only the fast path beside their mailboxes:
 * nobody waits for it, and what fails, or is too much, is left to the mailbox.
 */
export class Releases {
  readonly #parts: ReleasesParts;
  /** By address: what waits for the call that is under way. */
  readonly #waiting = new Map<string, Release[]>();

  constructor(parts: ReleasesParts) {
    this.#parts = parts;
  }

  /** @param from the process that had the tunnel: a dead one, an older one of this node, or this one is not called. */
  add(from: NodeIdentity, release: Release): void {
    const address = this.#parts.peers.addressOf(from);
    if (address === undefined) return;
    const waiting = this.#waiting.get(address);
    if (waiting === undefined) void this.#send(address, [release]);
    else if (waiting.length < MAX_WAITING_RELEASES) waiting.push(release);
  }

  /** One call at a time to each address; what comes meanwhile goes with the next. */
  async #send(address: string, first: Release[]): Promise<void> {
    const waiting = first;
    this.#waiting.set(address, waiting);
    await Promise.resolve(); // what is claimed in the same turn goes together
    try {
      const client = await this.#parts.client(address);
      while (waiting.length > 0) await client.release(waiting.splice(0, RELEASES_PER_CALL));
    } catch (error) {
      this.#parts.log.debug({ problem: String(error) }, 'a release was not heard: the mailbox has it');
    } finally {
      this.#waiting.delete(address);
    }
  }
}

/** For one node; the mailbox has what is beyond. */
export const MAX_WAITING_RELEASES = 10_000;
export const RELEASES_PER_CALL = 1000;
