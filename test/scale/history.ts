import type { SessionAddresses, SessionEvent } from '@sallyport/cluster';

/** What a node was told: it may give these addresses to the client. */
export interface Answer {
  sessionId: string;
  epoch: string;
  addresses: SessionAddresses;
}

/**
 * Who has which address, from the facts alone and in their order: the store appends each in the step that it tells of, so
 * that at no moment between two of them two sessions can have one address unnoticed. Beside it what nodes were told.
 */
export class AddressHistory {
  claims = 0;
  /** Ends of sessions that had an address. */
  releases = 0;
  /** Answers that were compared with the fact that they belong to. */
  compared = 0;
  readonly problems: string[] = [];
  /** Token hashes of the sessions that have not ended, by id. */
  readonly live = new Map<string, string>();
  /** By address: id of the session that has it. */
  readonly #owners = new Map<string, string>();
  readonly #addresses = new Map<string, SessionAddresses>();
  /** By session and epoch. Kept: the answer may come late, and twice. */
  readonly #claimed = new Map<string, string>();
  readonly #answers = new Map<string, string>();

  take(event: SessionEvent): void {
    if (event.type === 'started') this.live.set(event.sessionId, event.tokenHash);
    if (event.type === 'claimed') this.#claim(event.sessionId, String(event.epoch), event.addresses);
    if (event.type === 'ended') this.#end(event.sessionId);
  }

  answered({ sessionId, epoch, addresses }: Answer): void {
    const key = `${sessionId} ${epoch}`;
    const claimed = this.#claimed.get(key);
    if (claimed === undefined) this.#answers.set(key, textOf(addresses));
    else this.#compare(key, claimed, textOf(addresses));
  }

  get owners(): ReadonlyMap<string, string> {
    return this.#owners;
  }

  /** Answers whose fact has not come: none may be left when all facts were read. */
  get unproven(): number {
    return this.#answers.size;
  }

  #claim(id: string, epoch: string, addresses: SessionAddresses): void {
    this.claims++;
    const before = this.#addresses.get(id);
    if (before !== undefined && textOf(before) !== textOf(addresses))
      this.#problem(`${id} had ${textOf(before)} and was given ${textOf(addresses)}`);
    for (const address of ofBoth(addresses)) {
      const owner = this.#owners.get(address);
      if (owner !== undefined && owner !== id)
        this.#problem(`${address} was given to ${id}, but ${owner} has it`);
      this.#owners.set(address, id);
    }
    this.#addresses.set(id, addresses);
    const key = `${id} ${epoch}`;
    this.#claimed.set(key, textOf(addresses));
    const answer = this.#answers.get(key);
    if (answer === undefined) return;
    this.#answers.delete(key);
    this.#compare(key, textOf(addresses), answer);
  }

  #end(id: string): void {
    this.live.delete(id);
    const addresses = this.#addresses.get(id);
    if (addresses === undefined) return;
    this.releases++;
    this.#addresses.delete(id);
    for (const address of ofBoth(addresses)) {
      if (this.#owners.get(address) === id) this.#owners.delete(address);
    }
  }

  #compare(key: string, claimed: string, answer: string): void {
    this.compared++;
    if (claimed !== answer)
      this.#problem(`claim ${key}: the node was told ${answer}, the fact says ${claimed}`);
  }

  #problem(text: string): void {
    if (this.problems.length < PROBLEMS_KEPT) this.problems.push(text);
  }
}

function ofBoth({ ipv4, ipv6 }: SessionAddresses): string[] {
  return [ipv4, ipv6].filter((address) => address !== '');
}

function textOf({ ipv4, ipv6 }: SessionAddresses): string {
  return `${ipv4} ${ipv6}`;
}

const PROBLEMS_KEPT = 20;
