/**
 * Who may do a TLS handshake now (docs/protocol.md §2.1). Slots are few, and a client that says nothing after its
 * ClientHello holds one. So one client (address or /64) gets a part of them, and of the queue, only; and while others
 * wait, a handshake that has had its time yields its slot.
 */
export class HandshakeSlots<T extends Candidate> {
  readonly #limits: SlotLimits;
  readonly #owner: SlotOwner<T>;
  readonly #now: () => number;
  /** Sets keep the order of arrival, so the first is the oldest. */
  readonly #waiting = new Set<T>();
  readonly #busy = new Set<T>();
  readonly #waitingOf = new Map<string, number>();
  readonly #busyOf = new Map<string, number>();

  constructor(limits: SlotLimits, owner: SlotOwner<T>, now: () => number) {
    this.#limits = limits;
    this.#owner = owner;
    this.#now = now;
  }

  get handshaking(): number {
    return this.#busy.size;
  }

  /** The oldest that waits. */
  get oldestWaiting(): T | undefined {
    return this.#waiting.values().next().value;
  }

  [Symbol.iterator](): Iterator<T> {
    return [...this.#waiting, ...this.#busy].values();
  }

  /** Starts it or lets it wait. @returns false when it may not even wait. */
  add(candidate: T): boolean {
    const { group } = candidate;
    const waiting = this.#waitingOf.get(group) ?? 0;
    if (waiting === 0 && this.#hasSlot(group)) {
      this.#start(candidate);
      return true;
    }
    if (this.#waiting.size >= this.#limits.waiting || waiting >= this.#limits.waitingPerAddress) return false;
    candidate.since = this.#now();
    this.#waiting.add(candidate);
    this.#waitingOf.set(group, waiting + 1);
    return true;
  }

  /** It is done or gone: the next may start. @returns whether it was here. */
  leave(candidate: T): boolean {
    if (!this.#remove(candidate)) return false;
    this.#admit();
    return true;
  }

  /** Twice a second. The deadlines count from the start of each stage, whatever trickles in. */
  handleTick(): void {
    const now = this.#now();
    for (const candidate of overdue(this.#waiting, now - this.#limits.waitingSeconds * 1000))
      this.#drop(candidate, 'limit');
    for (const candidate of overdue(this.#busy, now - this.#limits.handshakeSeconds * 1000))
      this.#drop(candidate, 'timeout');
    this.#admit();
    this.#yieldSlots(now - this.#limits.yieldSeconds * 1000);
  }

  #hasSlot(group: string): boolean {
    return this.#busy.size < this.#limits.handshakes && !this.#isAtShare(group);
  }

  #isAtShare(group: string): boolean {
    return (this.#busyOf.get(group) ?? 0) >= this.#limits.handshakesPerAddress;
  }

  #start(candidate: T): void {
    candidate.since = this.#now();
    this.#busy.add(candidate);
    this.#busyOf.set(candidate.group, (this.#busyOf.get(candidate.group) ?? 0) + 1);
    this.#owner.start(candidate);
  }

  /** Past those who wait for a slot of their own address. */
  #admit(): void {
    for (const candidate of this.#waiting) {
      if (this.#busy.size >= this.#limits.handshakes) break;
      if (!this.#isAtShare(candidate.group)) this.#startWaiting(candidate);
    }
  }

  #startWaiting(candidate: T): void {
    this.#remove(candidate);
    this.#start(candidate);
  }

  /** For each that waits, the oldest handshake in its way that began before `before`. */
  #yieldSlots(before: number): void {
    if (this.#waiting.size === 0) return;
    const late = new Set(overdue(this.#busy, before));
    for (const candidate of this.#waiting) {
      if (late.size === 0) return;
      const own = this.#isAtShare(candidate.group);
      const oldest = [...late].find(({ group }) => !own || group === candidate.group);
      if (oldest === undefined) continue;
      late.delete(oldest);
      this.#drop(oldest, 'timeout');
      this.#startWaiting(candidate);
    }
  }

  #drop(candidate: T, cause: 'timeout' | 'limit'): void {
    this.#remove(candidate);
    this.#owner.drop(candidate, cause);
  }

  #remove(candidate: T): boolean {
    if (this.#waiting.delete(candidate)) countDown(this.#waitingOf, candidate.group);
    else if (this.#busy.delete(candidate)) countDown(this.#busyOf, candidate.group);
    else return false;
    return true;
  }
}

export interface Candidate {
  /** `addressGroup` of the client. */
  group: string;
  /** Monotonic ms, start of the present stage. */
  since: number;
}

export interface SlotOwner<T> {
  start(candidate: T): void;
  drop(candidate: T, cause: 'timeout' | 'limit'): void;
}

export interface SlotLimits {
  /** Handshakes at once. */
  handshakes: number;
  /** Of them, of one address or /64. */
  handshakesPerAddress: number;
  /** Connections that wait for a handshake slot; one more is refused. */
  waiting: number;
  /** Of them, of one address or /64. */
  waitingPerAddress: number;
  waitingSeconds: number;
  handshakeSeconds: number;
  /** After this time a handshake yields its slot to one that waits. */
  yieldSeconds: number;
}

function overdue<T extends Candidate>(candidates: Iterable<T>, before: number): T[] {
  const found: T[] = [];
  for (const candidate of candidates) {
    if (candidate.since > before) break;
    found.push(candidate);
  }
  return found;
}

function countDown(counts: Map<string, number>, key: string): void {
  const left = (counts.get(key) ?? 1) - 1;
  if (left === 0) counts.delete(key);
  else counts.set(key, left);
}

export const SLOT_LIMITS: SlotLimits = {
  handshakes: 512,
  handshakesPerAddress: 256,
  waiting: 4096,
  waitingPerAddress: 2048,
  waitingSeconds: 8,
  handshakeSeconds: 10,
  yieldSeconds: 2,
};
