/*
 * Kafka. Topics of one cluster:
 *
 *   PREFIX.events           facts; key = session id (or the subject), CloudEvents in binary mode
 *   PREFIX.sessions.state   compacted; key = session id, value = the newest record, tombstone at its end
 *   PREFIX.events.dead      entries that could not be sent, with the reason
 *
 * One writer, by the transactional id PREFIX.outbox: Kafka itself refuses an earlier one. Each transaction also commits
 * an offset of the group PREFIX.outbox.REIGN that names its last stream entry: so after a lost answer the next writer
 * can tell whether it was written. It is no cursor: what is sent next is always the first entry of the stream.
 */
import { readFile } from 'node:fs/promises';
import { randomUUID } from 'node:crypto';
import type { Log } from '@sallyport/chassis';
import type {
  Admin,
  EachBatchPayload,
  IHeaders,
  ITopicConfig,
  ITopicMetadata,
  Kafka as Client,
  KafkaConfig,
  LogEntry,
  Producer,
  SASLOptions,
  Transaction,
} from 'kafkajs';
import type { FactSink, SinkMark, SinkMessage, SinkTopic, StateIndex, StateMark } from './event-sink.ts';
import { markOf, STATE_GAP_KEY, SinkRefused, SinkUnavailable } from './event-sink.ts';
import { kafkaFault } from './kafka-faults.ts';
import type { KafkaSasl, KafkaSettings } from './kafka-settings.ts';

export interface TopicRecord {
  partition: number;
  offset: bigint;
  key: string | null;
  value: string | null;
  headers: Record<string, string>;
}

export class Kafka {
  readonly #settings: KafkaSettings;
  readonly #log: Log;

  constructor(settings: KafkaSettings, log: Log) {
    this.#settings = settings;
    this.#log = log;
  }

  topic(name: SinkTopic): string {
    return topicName(this.#settings.prefix, name);
  }

  /** The one writer of this cluster. */
  sink(): FactSink {
    return new KafkaSink(this, this.#settings);
  }

  /**
   * Creates the topics that are missing and checks those that exist.
   * @throws SinkRefused with one line that says which setting of which topic is wrong
   */
  async ensureTopics(): Promise<TopicFacts> {
    return this.withAdmin('preparing the topics', async (admin) => {
      const wanted = topicConfigs(this.#settings);
      const there = await admin.listTopics();
      const missing = wanted.filter((one) => !there.includes(one.topic));
      if (missing.length > 0)
        await admin.createTopics({ topics: missing, timeout: REQUEST_MS, waitForLeaders: false });
      const topics = await settled(admin, [this.topic('facts'), this.topic('state'), this.topic('dead')]);
      const facts = topics.find((one) => one.name === this.topic('facts'));
      return {
        partitions: facts?.partitions.length ?? 1,
        batchBytes: await this.#checkTopics(admin, wanted),
      };
    });
  }

  /** Reads a topic from its beginning to the end of what is committed now, in order per partition. */
  async read(
    name: SinkTopic,
    deliver: (record: TopicRecord) => void | Promise<void>,
    deadlineMs = READ_MS,
  ): Promise<void> {
    const ends = await this.#ends(name);
    const open = new Map(
      ends.filter((one) => one.low < one.high).map((one) => [one.partition, one.high] as const),
    );
    if (open.size === 0) return;
    const starts = new Map(ends.map((one) => [one.partition, one.low] as const));
    await new Promise<void>((resolve, reject) => {
      const done = { resolve, reject };
      this.#readUntil(name, starts, open, deliver, done, deadlineMs).catch(reject);
    });
  }

  /**
   * Delivers records as they come, until `stop`; goes on by itself after an outage, without a gap.
   * @param onFault told once per outage or refusal
   */
  async follow(
    name: SinkTopic,
    from: 'beginning' | 'end',
    deliver: (record: TopicRecord) => void | Promise<void>,
    onFault: (fault: Error) => void,
  ): Promise<() => Promise<void>> {
    const ends = await this.#ends(name);
    const next = new Map(ends.map((one) => [one.partition, from === 'end' ? one.high : one.low] as const));
    let stopped = false;
    let reading: Reading | undefined;
    const start = async (): Promise<void> => {
      if (stopped) return;
      try {
        reading = await this.#consume(name, next, deliver, () => undefined, restart);
      } catch (error) {
        restart(kafkaFault(error, this.#settings.brokers));
      }
    };
    const restart = (fault: Error) => {
      if (stopped) return;
      onFault(fault);
      void reading?.stop();
      setTimeout(() => void start(), FOLLOW_AGAIN_MS).unref();
    };
    await start();
    return async () => {
      stopped = true;
      await reading?.stop();
    };
  }

  /** Runs `use` with an admin client that is closed afterwards. Failures are ours. */
  async withAdmin<T>(what: string, use: (admin: Admin) => Promise<T>): Promise<T> {
    const admin = (await this.client()).admin();
    try {
      return await within(
        DEADLINE_MS,
        what,
        admin.connect().then(() => use(admin)),
      );
    } catch (error) {
      throw kafkaFault(error, this.#settings.brokers);
    } finally {
      void admin.disconnect().catch(() => undefined);
    }
  }

  /** A new client: reads certificates and the password as they are now. */
  async client(): Promise<Client> {
    const kafkajs = await load();
    return new kafkajs.Kafka({
      clientId: this.#settings.prefix,
      brokers: this.#settings.brokers,
      ...(await credentials(this.#settings)),
      connectionTimeout: CONNECT_MS,
      authenticationTimeout: CONNECT_MS,
      requestTimeout: REQUEST_MS,
      retry: { retries: RETRIES, initialRetryTime: 100, maxRetryTime: 1000 },
      logLevel: kafkajs.logLevel.WARN,
      // Each of these is retried inside the client or comes back to us as an error, which we log ourselves.
      logCreator: () => (entry) => this.#log.debug(logFields(entry), "Kafka's client says"),
    });
  }

  async #checkTopics(admin: Admin, wanted: readonly ITopicConfig[]): Promise<number> {
    const { ConfigResourceTypes } = await load();
    const { resources } = await admin.describeConfigs({
      includeSynonyms: false,
      resources: wanted.map((one) => ({
        type: ConfigResourceTypes.TOPIC,
        name: one.topic,
        configNames: ['cleanup.policy', 'max.message.bytes'],
      })),
    });
    let smallest = Infinity;
    for (const { resourceName, configEntries } of resources) {
      const value = (name: string) =>
        configEntries.find((entry) => entry.configName === name)?.configValue ?? '';
      const compacted = resourceName === this.topic('state');
      const policy = value('cleanup.policy');
      if ((policy === 'compact') !== compacted)
        throw new SinkRefused(
          `Topic ${resourceName} has cleanup.policy=${policy}, and it must be ${compacted ? 'compact' : 'delete'}: change that setting of the topic.`,
        );
      smallest = Math.min(smallest, Number(value('max.message.bytes')));
    }
    if (smallest < SMALLEST_MESSAGE_BYTES)
      throw new SinkRefused(
        `A topic of ${this.#settings.prefix} has max.message.bytes=${smallest}, and it must be ${SMALLEST_MESSAGE_BYTES} or more.`,
      );
    return Math.floor(Math.min(smallest, LARGEST_BATCH_BYTES) * BATCH_SHARE);
  }

  async #ends(name: SinkTopic): Promise<{ partition: number; low: bigint; high: bigint }[]> {
    const offsets = await this.withAdmin('reading offsets', (admin) =>
      admin.fetchTopicOffsets(this.topic(name)),
    );
    return offsets.map((one) => ({
      partition: one.partition,
      low: BigInt(one.low),
      high: BigInt(one.high),
    }));
  }

  async #readUntil(
    name: SinkTopic,
    starts: Map<number, bigint>,
    open: Map<number, bigint>,
    deliver: (record: TopicRecord) => void | Promise<void>,
    done: { resolve: () => void; reject: (fault: Error) => void },
    deadlineMs: number,
  ): Promise<void> {
    const end = (fault?: Error) => {
      clearTimeout(timer);
      void reading.then((one) => one.stop()).catch(() => undefined);
      if (fault === undefined) done.resolve();
      else done.reject(fault);
    };
    const timer = setTimeout(
      () =>
        end(new SinkUnavailable(`Kafka took more than ${deadlineMs} ms to give topic ${this.topic(name)}`)),
      deadlineMs,
    );
    const reading = this.#consume(
      name,
      starts,
      async (record) => {
        const last = open.get(record.partition);
        if (last !== undefined && record.offset < last) await deliver(record);
      },
      (partition, offset) => {
        const last = open.get(partition);
        if (last !== undefined && offset + 1n >= last) open.delete(partition);
        if (open.size === 0) end();
      },
      end,
    );
    await reading.catch((error: unknown) => end(kafkaFault(error, this.#settings.brokers)));
  }

  /** @param next position per partition; moved on. @param progress also told of what is not delivered: markers, aborted records. */
  async #consume(
    name: SinkTopic,
    next: Map<number, bigint>,
    deliver: (record: TopicRecord) => void | Promise<void>,
    progress: (partition: number, offset: bigint) => void,
    failed: (fault: Error) => void,
  ): Promise<Reading> {
    const topic = this.topic(name);
    const groupId = `${this.#settings.prefix}.reader.${randomUUID()}`;
    const consumer = (await this.client()).consumer({
      groupId,
      allowAutoTopicCreation: false,
      maxWaitTimeInMs: 500,
      retry: { restartOnFailure: () => Promise.resolve(false) },
    });
    let stopping: Promise<void> | undefined;
    const stop = () =>
      (stopping ??= within(CLOSE_MS, 'closing a reader', consumer.disconnect())
        .then(() => this.withAdmin('forgetting a reader', (admin) => admin.deleteGroups([groupId])))
        // The group expires by itself.
        .then(
          () => undefined,
          () => undefined,
        ));
    consumer.on(consumer.events.CRASH, ({ payload }) => {
      if (stopping === undefined) failed(kafkaFault(payload.error, this.#settings.brokers));
    });
    consumer.on(consumer.events.END_BATCH_PROCESS, ({ payload }) => {
      next.set(payload.partition, BigInt(payload.lastOffset) + 1n);
      progress(payload.partition, BigInt(payload.lastOffset));
    });
    const eachBatch = async (payload: EachBatchPayload) => {
      const { batch } = payload;
      for (const message of batch.messages) {
        const offset = BigInt(message.offset);
        if (!payload.isRunning() || payload.isStale()) return;
        if (offset < (next.get(batch.partition) ?? 0n)) continue;
        await deliver({ partition: batch.partition, offset, ...asText(message) });
        next.set(batch.partition, offset + 1n);
        await payload.heartbeat();
      }
    };
    try {
      await within(
        DEADLINE_MS,
        'starting a reader',
        consumer
          .connect()
          .then(() => consumer.subscribe({ topics: [topic], fromBeginning: true }))
          .then(() => consumer.run({ autoCommit: false, eachBatch })),
      );
      for (const [partition, offset] of next) consumer.seek({ topic, partition, offset: offset.toString() });
    } catch (error) {
      void stop();
      throw error;
    }
    return { stop };
  }
}

interface Reading {
  stop(): Promise<void>;
}

/** What `open` learns of the topics. */
interface TopicFacts {
  /** Of the topic of facts. */
  partitions: number;
  batchBytes: number;
}

class KafkaSink implements FactSink {
  readonly #kafka: Kafka;
  readonly #settings: KafkaSettings;
  #producer: Producer | undefined;
  #facts: TopicFacts = { partitions: 1, batchBytes: 0 };

  constructor(kafka: Kafka, settings: KafkaSettings) {
    this.#kafka = kafka;
    this.#settings = settings;
  }

  get partitions(): number {
    return this.#facts.partitions;
  }

  get batchBytes(): number {
    return this.#facts.batchBytes;
  }

  async open(): Promise<void> {
    await this.close();
    this.#facts = await this.#kafka.ensureTopics();
    const { Partitioners } = await load();
    const producer = (await this.#kafka.client()).producer({
      transactionalId: `${this.#settings.prefix}.outbox`,
      transactionTimeout: TRANSACTION_MS,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
      createPartitioner: Partitioners.DefaultPartitioner,
    });
    this.#producer = producer;
    // The first transaction takes a new epoch: earlier writers are fenced, what they had open is aborted.
    await this.#guarded('becoming the writer', async () => {
      await producer.connect();
      await (await producer.transaction()).abort();
    });
  }

  async write(messages: readonly SinkMessage[], mark?: SinkMark): Promise<void> {
    await this.#guarded('writing', async () => {
      if (this.#producer === undefined) throw new SinkUnavailable('the writer is closed');
      const transaction = await this.#producer.transaction();
      await transaction.sendBatch({ acks: -1, topicMessages: this.#byTopic(messages) });
      if (mark !== undefined) await this.#sendMark(transaction, mark);
      await transaction.commit();
    });
  }

  async mark(reign: string): Promise<string> {
    const topic = this.#kafka.topic('facts');
    const offsets = await this.#kafka.withAdmin('reading the mark', (admin) =>
      admin.fetchOffsets({ groupId: this.#group(reign), topics: [topic] }),
    );
    const offset = offsets[0]?.partitions.find((one) => one.partition === MARK_PARTITION)?.offset;
    return offset === undefined ? '' : entryIdOf(BigInt(offset));
  }

  async stateIndex(): Promise<StateIndex> {
    await this.#becomeVisible();
    const marks = new Map<string, StateMark>();
    let gap = false;
    await this.#kafka.read('state', ({ key, value, headers, partition, offset }) => {
      if (key === STATE_GAP_KEY) gap = value !== null;
      else if (key !== null) {
        const mark = value === null ? undefined : markOf(headers.ce_id ?? '', partition, offset);
        if (mark === undefined) marks.delete(key);
        else marks.set(key, mark);
      }
    });
    return { marks, gap };
  }

  async stateRecords(
    marks: ReadonlyMap<string, StateMark>,
    deliver: (sessionId: string, value: string) => Promise<void>,
  ): Promise<void> {
    if (marks.size === 0) return;
    await this.#kafka.read('state', async ({ key, value, partition, offset }) => {
      const mark = key === null ? undefined : marks.get(key);
      if (key === null || value === null || mark?.offset !== offset || mark.partition !== partition) return;
      await deliver(key, value);
    });
  }

  async close(): Promise<void> {
    const producer = this.#producer;
    this.#producer = undefined;
    if (producer !== undefined)
      await within(CLOSE_MS, 'closing the writer', producer.disconnect()).catch(() => undefined);
  }

  /** After a failure nobody knows what the client has still in flight, so the writer is given up. */
  async #guarded(what: string, work: () => Promise<void>): Promise<void> {
    try {
      await within(DEADLINE_MS, what, work());
    } catch (error) {
      void this.close();
      throw kafkaFault(error, this.#settings.brokers);
    }
  }

  /**
   * Kafka acknowledges a transaction before readers see it, and takes no second one until they do: so one that is never
   * committed waits for all before it.
   */
  async #becomeVisible(): Promise<void> {
    await this.#guarded('waiting for what was written', async () => {
      if (this.#producer === undefined) throw new SinkUnavailable('the writer is closed');
      const transaction = await this.#producer.transaction();
      const messages = [{ key: STATE_GAP_KEY, value: null }];
      await transaction.sendBatch({
        acks: -1,
        topicMessages: [{ topic: this.#kafka.topic('state'), messages }],
      });
      await transaction.abort();
    });
  }

  #byTopic(messages: readonly SinkMessage[]) {
    const names: readonly SinkTopic[] = ['facts', 'state', 'dead'];
    return names
      .map((name) => ({
        topic: this.#kafka.topic(name),
        messages: messages
          .filter((one) => one.topic === name)
          .map(({ key, value, headers, partition }) => ({
            key,
            value,
            headers,
            ...(partition !== undefined && { partition }),
          })),
      }))
      .filter((one) => one.messages.length > 0);
  }

  async #sendMark(transaction: Transaction, { reign, entryId }: SinkMark): Promise<void> {
    const offset = offsetOf(entryId).toString();
    await transaction.sendOffsets({
      consumerGroupId: this.#group(reign),
      topics: [{ topic: this.#kafka.topic('facts'), partitions: [{ partition: MARK_PARTITION, offset }] }],
    });
  }

  #group(reign: string): string {
    return `${this.#settings.prefix}.outbox.${reign}`;
  }
}

export function topicName(prefix: string, name: SinkTopic): string {
  return { facts: `${prefix}.events`, state: `${prefix}.sessions.state`, dead: `${prefix}.events.dead` }[
    name
  ];
}

function topicConfigs(settings: KafkaSettings): ITopicConfig[] {
  const retention = { name: 'retention.ms', value: String(settings.retentionHours * 3_600_000) };
  // Times of records are the broker's: a fact's own time stands in ce_time, and a broker may refuse a wrong clock's.
  const common = [{ name: 'message.timestamp.type', value: 'LogAppendTime' }];
  const deleted = [{ name: 'cleanup.policy', value: 'delete' }, retention, ...common];
  const compacted = [
    { name: 'cleanup.policy', value: 'compact' },
    { name: 'segment.ms', value: String(STATE_SEGMENT_MS) },
    ...common,
  ];
  const { prefix, partitions: numPartitions, replicationFactor } = settings;
  return [
    { topic: topicName(prefix, 'facts'), numPartitions, replicationFactor, configEntries: deleted },
    { topic: topicName(prefix, 'state'), numPartitions, replicationFactor, configEntries: compacted },
    { topic: topicName(prefix, 'dead'), numPartitions: 1, replicationFactor, configEntries: deleted },
  ];
}

/** Late: a process that serves CONNECT must not wait for what only the outbox needs. */
async function load() {
  return (await import('kafkajs')).default;
}

/** The topics as brokers see them: what a controller has created they learn of a little later. */
async function settled(admin: Admin, names: string[]): Promise<ITopicMetadata[]> {
  for (let tries = 1; ; tries++) {
    try {
      return (await admin.fetchTopicMetadata({ topics: names })).topics;
    } catch (error) {
      if (tries === SETTLE_TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    }
  }
}

/** A stream id in 63 bits: ms above, sequence below. A sequence that does not fit is named lower: sent again, never lost. */
function offsetOf(entryId: string): bigint {
  const [millis = '0', sequence = '0'] = entryId.split('-');
  const low = BigInt(sequence);
  return (BigInt(millis) << SEQUENCE_BITS) | (low < SEQUENCES ? low : SEQUENCES - 1n);
}

/** @param offset negative = none */
function entryIdOf(offset: bigint): string {
  return offset < 0n ? '' : `${offset >> SEQUENCE_BITS}-${offset & (SEQUENCES - 1n)}`;
}

async function credentials(settings: KafkaSettings): Promise<Pick<KafkaConfig, 'ssl' | 'sasl'>> {
  const { tls, sasl } = settings;
  const file = async (key: string, path: string) => {
    try {
      return path === '' ? undefined : await readFile(path, 'utf8');
    } catch (error) {
      throw new SinkRefused(`${key}: ${path} cannot be read.`, { cause: error });
    }
  };
  const password = (await file('kafka.sasl.password-file', sasl?.passwordFile ?? ''))?.replace(/\r?\n$/, '');
  return {
    ...(tls && {
      ssl: {
        ca: await file('kafka.tls.ca', tls.caFile),
        cert: await file('kafka.tls.cert', tls.certFile),
        key: await file('kafka.tls.key', tls.keyFile),
        ...(tls.serverName !== '' && { servername: tls.serverName }),
      },
    }),
    ...(sasl && { sasl: login(sasl, password ?? '') }),
  };
}

/** Kafka's client has one type per mechanism. */
function login({ mechanism, username }: KafkaSasl, password: string): SASLOptions {
  switch (mechanism) {
    case 'plain':
      return { mechanism, username, password };
    case 'scram-sha-256':
      return { mechanism, username, password };
    case 'scram-sha-512':
      return { mechanism, username, password };
  }
}

function asText(message: { key: Buffer | null; value: Buffer | null; headers?: IHeaders }) {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(message.headers ?? {})) {
    const first = Array.isArray(value) ? value[0] : value;
    if (first !== undefined) headers[name] = first.toString();
  }
  return {
    key: message.key?.toString() ?? null,
    value: message.value?.toString() ?? null,
    headers,
  };
}

function logFields({ namespace, log }: LogEntry) {
  const text = (name: string) => {
    const value: unknown = log[name];
    return typeof value === 'string' || typeof value === 'number' ? value : undefined;
  };
  return { part: namespace, said: log.message, broker: text('broker'), error: text('error') };
}

async function within<T>(ms: number, what: string, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new SinkUnavailable(`Kafka did not answer within ${ms} ms (${what})`)),
      ms,
    );
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
    work.catch(() => undefined);
  }
}

const MARK_PARTITION = 0;
const SEQUENCE_BITS = 20n;
const SEQUENCES = 1n << SEQUENCE_BITS;

const CONNECT_MS = 3000;
const REQUEST_MS = 10_000;
/** Of one call, retries included. */
const DEADLINE_MS = 20_000;
const CLOSE_MS = 3000;
/** The broker ends a transaction by itself after this. */
const TRANSACTION_MS = 30_000;
/** Of reading a whole topic. */
const READ_MS = 300_000;
const FOLLOW_AGAIN_MS = 1000;
/** Inside Kafka's client; then the outbox waits and tries again. */
const RETRIES = 4;
const SETTLE_TRIES = 25;
const SETTLE_MS = 200;
const STATE_SEGMENT_MS = 3_600_000;
const SMALLEST_MESSAGE_BYTES = 65_536;
const LARGEST_BATCH_BYTES = 1_000_000;
/** The rest is for the format around the messages. */
const BATCH_SHARE = 0.7;
