/*
 * The records of a whole cluster, in Redis. Each process keeps a copy of all of them, which is what it decides by, and the
 * second copy when Redis forgets: in a new reign it gives Redis what that lacks and reads all anew.
 */
import { randomBytes } from 'node:crypto';
import type { AccountChange, AccountOutcome, AccountRecord, AccountRecords } from './account-records.ts';
import { LatestRead } from './latest-read.ts';
import type { Redis, Reply } from './redis.ts';
import { loadScript } from './scripts.ts';
import { NewerVersion } from './session.ts';

export class RedisAccountRecords implements AccountRecords {
  readonly #redis: Redis;
  /** Records and their texts, by name. */
  readonly #known = new Map<string, { record: AccountRecord; text: string }>();
  readonly #listeners = new Set<(changed: readonly AccountRecord[]) => void>();
  readonly #reading = new LatestRead(() => this.#read());
  #reign = '';
  /** Number of the last change that was read in this reign. */
  #since = 0;

  /** @param redis stays the caller's. */
  constructor(redis: Redis) {
    this.#redis = redis;
  }

  follow(deliver: (changed: readonly AccountRecord[]) => void): () => void {
    this.#listeners.add(deliver);
    if (this.#known.size > 0) deliver([...this.#known.values()].map(({ record }) => record));
    return () => this.#listeners.delete(deliver);
  }

  /** The read begins later than this call: several calls share it. */
  refresh(): Promise<void> {
    return this.#reading.run();
  }

  async change(change: AccountChange, inFile: boolean): Promise<AccountOutcome> {
    const { verb, name } = change;
    const args = {
      ...{ verb, name, inFile, op: randomBytes(OP_BYTES).toString('base64url') },
      groups: verb === 'add' ? change.groups.join(',') : '',
      hash: 'hash' in change ? change.hash : '',
    };
    const outcome = outcomeOf(await this.#redis.run(SCRIPT, args, { confirm: true }));
    if (outcome === 'done') await this.refresh();
    return outcome;
  }

  async #read(): Promise<void> {
    for (;;) {
      const args = { verb: 'read', reign: this.#reign, since: this.#since, limit: PAGE };
      const [reign = '', last = 0, ...rows] = await this.#redis.run(SCRIPT, args);
      if (Number(last) < 0) {
        await this.#assert();
        [this.#reign, this.#since] = [String(reign), 0];
        continue;
      }
      this.#take(rows.map(String));
      this.#since = Number(last);
      if (rows.length < 2 * PAGE) return;
    }
  }

  /** A record is as old as its last change: what Redis lost meanwhile does not come back into the copy. */
  #take(rows: readonly string[]): void {
    const changed: AccountRecord[] = [];
    for (let i = 0; i + 1 < rows.length; i += 2) {
      const [name = '', text = ''] = rows.slice(i, i + 2);
      const record = recordOf(name, text);
      const known = this.#known.get(name);
      if (known !== undefined && known.record.at >= record.at) continue;
      this.#known.set(name, { record, text });
      changed.push(record);
    }
    if (changed.length > 0) for (const deliver of this.#listeners) deliver(changed);
  }

  async #assert(): Promise<void> {
    const copies = Array.from(this.#known, ([name, { text }]) => ({ name, text }));
    for (let i = 0; i < copies.length; i += PAGE)
      await this.#redis.run(
        SCRIPT,
        { verb: 'assert', records: copies.slice(i, i + PAGE) },
        { confirm: true },
      );
  }
}

const SCRIPT = loadScript('account-records', ['records']);
const RECORD_VERSION = 1;
const OP_BYTES = 6;
/** Records that one script gives or takes: Redis serves nobody else meanwhile. */
const PAGE = 500;

function outcomeOf([outcome]: Reply): AccountOutcome {
  if (outcome === 'done' || outcome === 'exists' || outcome === 'unknown') return outcome;
  throw new Error('the script of account records gave no outcome');
}

/** Only our script writes there. @throws NewerVersion: who may log in cannot be told then, so nobody may. */
function recordOf(name: string, text: string): AccountRecord {
  const value: unknown = JSON.parse(text);
  if (typeof value !== 'object' || value === null) throw new Error('an account record is none');
  const fields = new Map<string, unknown>(Object.entries(value));
  const version = Number(fields.get('v'));
  if (version > RECORD_VERSION) throw new NewerVersion('an account record', version);
  const [groups, locked, hash, hashAt] = ['g', 'lk', 'h', 'ha'].map((field) => fields.get(field));
  return {
    name,
    at: BigInt(String(fields.get('at'))),
    deleted: fields.get('del') === true,
    ...(typeof groups === 'string' && { groups: groups === '' ? [] : groups.split(',') }),
    ...(typeof locked === 'boolean' && { locked }),
    ...(typeof hash === 'string' && { hash }),
    ...(typeof hashAt === 'string' && { hashAt: BigInt(hashAt) }),
  };
}
