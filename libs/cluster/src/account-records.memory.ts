import {
  changedRecord,
  type AccountChange,
  type AccountOutcome,
  type AccountRecord,
  type AccountRecords,
} from './account-records.ts';
import { systemClock, type Clock } from './clock.ts';
import type { EventLog } from './events.ts';

/** Records of one process: several replicas in it share one object. */
export class MemoryAccountRecords implements AccountRecords {
  readonly #clock: Clock;
  readonly #events: Pick<EventLog, 'append'> | undefined;
  readonly #records = new Map<string, AccountRecord>();
  readonly #listeners = new Set<(changed: readonly AccountRecord[]) => void>();

  constructor(options: { clock?: Clock; events?: Pick<EventLog, 'append'> } = {}) {
    this.#clock = options.clock ?? systemClock();
    this.#events = options.events;
  }

  follow(deliver: (changed: readonly AccountRecord[]) => void): () => void {
    this.#listeners.add(deliver);
    if (this.#records.size > 0) deliver([...this.#records.values()]);
    return () => this.#listeners.delete(deliver);
  }

  async refresh(): Promise<void> {
    // Who follows has heard.
  }

  async change(change: AccountChange, inFile: boolean): Promise<AccountOutcome> {
    const { name, verb } = change;
    const record = changedRecord(this.#records.get(name), change, inFile, this.#clock());
    if (typeof record === 'string') return record;
    this.#records.set(name, record);
    this.#events?.append([
      { v: 1, at: record.at, type: 'admin.changed', verb: `user-${verb}`, subject: name },
    ]);
    for (const deliver of this.#listeners) deliver([record]);
    return 'done';
  }
}
