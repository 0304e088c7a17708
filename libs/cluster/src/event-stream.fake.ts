import type { EventStream, StreamBatch, StreamEntry, StreamGap, StreamSize } from './event-stream.ts';
import { compareEntryIds } from './event-stream.ts';
import { StoreUnavailable } from './sessions.ts';

/** An EventStream in memory, with the faults that a test wants. */
export class FakeEventStream implements EventStream {
  entries: StreamEntry[] = [];
  reign = 'reign-1';
  statsHeld = false;
  settled = true;
  /** While set, every call rejects. */
  down = false;
  /** The next trims reject: Kafka has the facts and the store did not hear of it. */
  failTrims = 0;
  #gap: StreamGap | undefined;
  #lease: { holder: string; until: number } | undefined;
  #last = 0;
  /** ms */
  now = 1_800_000_000_000;

  append(entry: Omit<StreamEntry, 'id'>): string {
    const id = `${this.now}-${this.#last++}`;
    this.entries.push({ id, ...entry });
    return id;
  }

  async takeLease(holder: string, millis: number): Promise<boolean> {
    this.#check();
    if (this.#lease !== undefined && this.#lease.holder !== holder && this.#lease.until > this.now)
      return false;
    this.#lease = { holder, until: this.now + millis };
    return true;
  }

  async dropLease(holder: string): Promise<void> {
    this.#check();
    if (this.#lease?.holder === holder) this.#lease = undefined;
  }

  async read(limit: number): Promise<StreamBatch> {
    this.#check();
    return {
      reign: this.reign,
      settled: this.settled,
      gap: this.#gap,
      entries: this.entries.slice(0, limit),
    };
  }

  async trim(holder: string, reign: string, upTo: string): Promise<boolean> {
    this.#check();
    if (this.failTrims > 0) {
      this.failTrims--;
      throw new StoreUnavailable('connection lost');
    }
    if (!this.#holds(holder) || reign !== this.reign) return false;
    this.entries = this.entries.filter((entry) => compareEntryIds(entry.id, upTo) > 0);
    return true;
  }

  async size(): Promise<StreamSize> {
    this.#check();
    const bytes = this.entries.reduce((sum, entry) => sum + entry.data.length + 50, 0);
    const [oldest] = this.entries;
    const lagMillis = oldest === undefined ? 0 : this.now - Number.parseInt(oldest.id, 10);
    return { entries: this.entries.length, bytes, lagMillis, statsHeld: this.statsHeld };
  }

  async holdStats(hold: boolean): Promise<void> {
    this.#check();
    this.statsHeld = hold;
  }

  async dropOldest(count: number): Promise<number> {
    this.#check();
    const dropped = this.entries.splice(0, count);
    const [first] = dropped;
    const last = dropped.at(-1);
    if (first === undefined || last === undefined) return 0;
    this.#gap = {
      count: (this.#gap?.count ?? 0) + dropped.length,
      from: this.#gap?.from ?? first.id,
      to: last.id,
      at: BigInt(this.now) * 1000n,
    };
    return dropped.length;
  }

  async clearGap(holder: string, gap: StreamGap): Promise<boolean> {
    this.#check();
    if (!this.#holds(holder) || this.#gap?.count !== gap.count || this.#gap.to !== gap.to) return false;
    this.#gap = undefined;
    return true;
  }

  #holds(holder: string): boolean {
    return this.#lease?.holder === holder && this.#lease.until > this.now;
  }

  #check(): void {
    if (this.down) throw new StoreUnavailable('the store is away');
  }
}
