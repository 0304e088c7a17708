import type { FactSink, SinkMark, SinkMessage, SinkTopic, StateIndex, StateMark } from './event-sink.ts';
import { markOf, STATE_GAP_KEY, MessageRefused, SinkUnavailable, WriterFenced } from './event-sink.ts';

/** Kafka's topics in memory, for several writers. */
export class FakeTopics {
  readonly partitions = 2;
  readonly messages: SinkMessage[] = [];
  readonly marks = new Map<string, string>();
  down = false;
  /** The next writes happen, but their answer is lost. */
  loseAnswers = 0;
  /** A message with this text in its value is refused for good. */
  poison = '';
  batchBytes = 100_000;
  /** Sizes of the transactions, in messages. */
  readonly transactions: number[] = [];
  newest = 0;

  of(topic: SinkTopic): SinkMessage[] {
    return this.messages.filter((message) => message.topic === topic);
  }

  /** What compaction leaves. */
  get state(): Map<string, string> {
    const state = new Map<string, string>();
    for (const { key, value } of this.of('state')) {
      if (key === null) continue;
      if (value === null) state.delete(key);
      else state.set(key, value);
    }
    return state;
  }
}

export class FakeSink implements FactSink {
  readonly #topics: FakeTopics;
  #epoch = 0;

  constructor(topics: FakeTopics) {
    this.#topics = topics;
  }

  get partitions(): number {
    return this.#topics.partitions;
  }

  get batchBytes(): number {
    return this.#topics.batchBytes;
  }

  async open(): Promise<void> {
    if (this.#topics.down) throw new SinkUnavailable('Kafka is away');
    this.#epoch = ++this.#topics.newest;
  }

  async write(messages: readonly SinkMessage[], mark?: SinkMark): Promise<void> {
    const topics = this.#topics;
    if (this.#epoch === 0 || topics.down) throw new SinkUnavailable('Kafka is away');
    if (this.#epoch !== topics.newest) throw new WriterFenced();
    if (
      topics.poison !== '' &&
      messages.some((one) => one.topic !== 'dead' && one.value?.includes(topics.poison))
    )
      throw new MessageRefused('too large');
    topics.messages.push(...messages);
    topics.transactions.push(messages.length);
    if (mark !== undefined) topics.marks.set(mark.reign, mark.entryId);
    if (topics.loseAnswers > 0) {
      topics.loseAnswers--;
      throw new SinkUnavailable('the answer was lost');
    }
  }

  async mark(reign: string): Promise<string> {
    return this.#topics.marks.get(reign) ?? '';
  }

  async stateIndex(): Promise<StateIndex> {
    if (this.#topics.down) throw new SinkUnavailable('Kafka is away');
    const marks = new Map<string, StateMark>();
    for (const [at, { key, value, headers }] of this.#topics.of('state').entries()) {
      if (key === null || key === STATE_GAP_KEY) continue;
      const mark = markOf(headers.ce_id ?? '', 0, BigInt(at));
      if (value === null || mark === undefined) marks.delete(key);
      else marks.set(key, mark);
    }
    return { marks, gap: this.#topics.state.has(STATE_GAP_KEY) };
  }

  async stateRecords(
    marks: ReadonlyMap<string, StateMark>,
    deliver: (sessionId: string, value: string) => Promise<void>,
  ): Promise<void> {
    const messages = this.#topics.of('state');
    for (const [id, { offset }] of marks) await deliver(id, messages[Number(offset)]?.value ?? '');
  }

  async close(): Promise<void> {
    this.#epoch = 0;
  }
}
