/*
 * What Redis forgot and no node holds comes back from the topic of session state (CLUSTER.md C1). In each reign, by the
 * outbox that has the lease:
 *
 *   1. begin: claims of unknown tokens wait, at most RESTORE_MICROS in all
 *   2. the facts of the stream are sent first, as far as it reached then: the topic must not be behind the store
 *   3. the newest record of each session in the topic that the table lacks is written, except those with a tunnel
 *   4. the nodes have asserted: those with a tunnel that nobody asserted are written as parked
 *   5. release: nobody waits any longer
 *   6. the outbox writes the whole table to both topics (resync.ts): finish. Before that the topic would lose them for good
 *
 * A step that fails is done again, here or by the next holder: writing is create-if-missing, by (epoch, n).
 */
import type { Log } from '@sallyport/chassis';
import { decodeCloudEvent, STATE_TYPE } from './cloud-events.ts';
import type { FactSink, StateMark } from './event-sink.ts';
import { compareEntryIds, type StreamBatch } from './event-stream.ts';
import { MalformedLine } from './journal-lines.ts';
import type { Session } from './session.ts';

/** Who restores, and in which reign: another holder or another reign makes the store refuse. */
export interface RestoreFence {
  holder: string;
  reign: string;
}

/** The table of a store that may forget. Each method rejects with `StoreUnavailable`, also where the fence does not hold. */
export interface RestoreTable {
  /** @returns the last entry of the stream, '0-0' = none, and whether nodes still assert. */
  begin(fence: RestoreFence): Promise<{ upTo: string; asserting: boolean }>;
  /** Which of these sessions the table lacks, or has an older record of that no node holds. */
  missing(fence: RestoreFence, marks: ReadonlyMap<string, StateMark>): Promise<string[]>;
  /** Writes what is missing; `up` as parked. @param away µs that the store was away before this reign. */
  write(fence: RestoreFence, sessions: readonly Session[], away: bigint): Promise<RestoreCounts>;
  release(fence: RestoreFence): Promise<void>;
  finish(fence: RestoreFence): Promise<void>;
}

export interface RestoreCounts {
  restored: number;
  /** Their time was over, or somebody else has their address. */
  ended: number;
  /** Already there. */
  kept: number;
}

export interface RestoreOptions {
  table: RestoreTable;
  sink: FactSink;
  fence: RestoreFence;
  /** µs that the store was away before this reign. */
  away: bigint;
  log: Log;
}

/** The restore of one reign. */
export class Restore {
  readonly #options: RestoreOptions;
  #phase: 'begin' | 'drain' | 'nodes' | 'over' = 'begin';
  #upTo = '';
  /** Those with a tunnel, as the topic knows them. */
  #up = new Map<string, StateMark>();
  readonly #counts: RestoreCounts = { restored: 0, ended: 0, kept: 0 };

  constructor(options: RestoreOptions) {
    this.#options = options;
  }

  get reign(): string {
    return this.#options.fence.reign;
  }

  /**
   * Goes on as far as it can.
   * @param sent the newest entry that Kafka is known to have in this reign; '' = none.
   * @returns true = the table may be written to the topics.
   */
  async step(batch: StreamBatch, sent: string): Promise<boolean> {
    const { table, fence } = this.#options;
    if (this.#phase === 'begin') {
      this.#upTo = (await table.begin(fence)).upTo;
      this.#phase = 'drain';
    }
    if (this.#phase === 'drain') {
      const waits = batch.entries.some(
        ({ id }) => compareEntryIds(id, sent) > 0 && compareEntryIds(id, this.#upTo) <= 0,
      );
      if (waits && batch.gap === undefined) return false;
      await this.#restoreUnheld(batch);
      if (this.#up.size === 0) await table.release(fence);
      this.#phase = 'nodes';
    }
    if (this.#phase === 'nodes') {
      if ((await table.begin(fence)).asserting) return false;
      await this.#write(this.#up);
      await table.release(fence);
      this.#phase = 'over';
      this.#tell();
    }
    return true;
  }

  /** Not when facts were given up and the topic was not written anew: it may hold what has ended since. */
  async #restoreUnheld(batch: StreamBatch): Promise<void> {
    const { sink, log } = this.#options;
    const index = batch.gap === undefined ? await sink.stateIndex() : undefined;
    if (index === undefined || index.gap) {
      log.warn(
        {},
        'nothing is restored from Kafka: facts were given up before, so its table is not complete',
      );
      return;
    }
    await this.#write(index.marks, (session, mark) => {
      if (session.state !== 'up') return true;
      this.#up.set(session.id, mark);
      return false;
    });
  }

  async #write(
    marks: ReadonlyMap<string, StateMark>,
    isWanted: (session: Session, mark: StateMark) => boolean = () => true,
  ): Promise<void> {
    const { table, sink, fence, away } = this.#options;
    if (marks.size === 0) return;
    const wanted = new Map<string, StateMark>();
    for (const id of await table.missing(fence, marks)) {
      const mark = marks.get(id);
      if (mark !== undefined) wanted.set(id, mark);
    }
    let slice: Session[] = [];
    const write = async () => {
      const { restored, ended, kept } = await table.write(fence, slice, away);
      this.#counts.restored += restored;
      this.#counts.ended += ended;
      this.#counts.kept += kept;
      slice = [];
    };
    await sink.stateRecords(wanted, async (id, value) => {
      const session = this.#recordOf(id, value);
      const mark = wanted.get(id);
      if (session === undefined || mark === undefined || !isWanted(session, mark)) return;
      slice.push(session);
      if (slice.length >= SLICE) await write();
    });
    if (slice.length > 0) await write();
  }

  #recordOf(id: string, value: string): Session | undefined {
    try {
      const fact = decodeCloudEvent(STATE_TYPE, value);
      if (fact?.kind === 'snapshot' && fact.record.id === id) return fact.record;
    } catch (error) {
      if (!(error instanceof MalformedLine)) throw error;
    }
    this.#options.log.warn(
      { session: id },
      'a record of the topic of session state is damaged: not restored',
    );
    return undefined;
  }

  #tell(): void {
    const { restored, ended } = this.#counts;
    if (restored + ended === 0) return;
    this.#options.log.warn({ restored, ended }, 'Redis had forgotten sessions: restored from Kafka');
  }
}

/** Records that are held in memory at a time. */
const SLICE = 500;
