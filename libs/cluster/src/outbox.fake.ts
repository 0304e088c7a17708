import assert from 'node:assert/strict';
import type { Log } from '@sallyport/chassis';
import { decodeCloudEvent, encodeOccurrence } from './cloud-events.ts';
import { FakeSink, FakeTopics } from './event-sink.fake.ts';
import type { FactSink } from './event-sink.ts';
import { FakeEventStream } from './event-stream.fake.ts';
import type { Fact } from './events.ts';
import { encodeEvent } from './journal-lines.ts';
import { Outbox } from './outbox.ts';
import { SessionReplay } from './replay.ts';
import { decideStart } from './session-decisions.ts';
import { sampleLogin, TestClock } from './session.fake.ts';
import type { Session, SessionEvent } from './session.ts';
import { apply } from './session.ts';

export interface WorldOptions {
  capBytes?: number;
  /** Where the outboxes write; absent = topics in memory. */
  sink?: () => FactSink;
}

/** A store, a stream and topics in memory around one outbox. */
export class World {
  readonly clock = new TestClock();
  readonly stream = new FakeEventStream();
  readonly topics = new FakeTopics();
  /** What was logged as error or warning. */
  readonly warnings: string[] = [];
  readonly log = recordingLog(this.warnings);
  readonly history: SessionEvent[] = [];
  readonly outbox: Outbox;
  readonly #table = new Map<string, Session>();
  readonly #options: WorldOptions;

  constructor(options: WorldOptions = {}) {
    this.#options = options;
    this.outbox = this.another('a');
  }

  another(holder: string): Outbox {
    return new Outbox({
      stream: this.stream,
      sink: this.#options.sink?.() ?? new FakeSink(this.topics),
      table: {
        ofFact: (id) => Promise.resolve(this.#table.get(id)),
        list: () => Promise.resolve(this.live()),
      },
      cluster: 'test',
      holder,
      clock: this.clock.read,
      log: this.log,
      capBytes: this.#options.capBytes,
    });
  }

  start(id: string): void {
    this.#append(decideStart(sampleLogin(`hash-${id}`), id, this.clock.now));
  }

  claim(id: string, epoch: bigint): void {
    this.#append(claimOf(this.record(id), epoch, this.clock.now));
  }

  park(id: string): void {
    const { lease, n } = this.record(id);
    const usage = { activeAt: this.clock.now, rxBytes: 10n, txBytes: 2n ** 60n };
    const head = { v: 1, sessionId: id, epoch: lease?.epoch ?? 0n, n: n + 1, at: this.clock.now };
    this.#append({ ...head, type: 'parked', reason: 'connection-lost', ...usage });
  }

  end(id: string): void {
    const { lease, n } = this.record(id);
    const usage = { activeAt: this.clock.now, rxBytes: 10n, txBytes: 2n ** 60n };
    const head = { v: 1, sessionId: id, epoch: lease?.epoch ?? 0n, n: n + 1, at: this.clock.now };
    this.#append({ ...head, type: 'ended', reason: 'logout', ...usage });
  }

  occur(user: string): void {
    const fact: Fact = {
      v: 1,
      at: this.clock.now,
      type: 'auth.succeeded',
      user,
      profile: 'staff',
      method: 'local',
      address: '192.0.2.7',
      sessionId: 's1',
    };
    this.stream.append({ sessionId: '', type: fact.type, data: encodeOccurrence(fact) });
  }

  forget(id: string): void {
    this.#table.delete(id);
  }

  record(id: string): Session {
    const record = this.#table.get(id);
    assert.ok(record, id);
    return record;
  }

  /** The newest event of a session. */
  event(id: string): SessionEvent {
    const event = this.history.filter((one) => one.sessionId === id).at(-1);
    assert.ok(event);
    return event;
  }

  live(): Session[] {
    return [...this.#table.values()].filter((session) => session.state !== 'closed');
  }

  /** Key and type of all facts in Kafka. */
  sent(): string[] {
    return this.topics.of('facts').map(({ key, headers }) => `${key} ${headers.ce_type}`);
  }

  ids(): string[] {
    return this.topics.of('facts').map(({ headers }) => headers.ce_id ?? '');
  }

  replayed(): Session[] {
    const replay = new SessionReplay();
    for (const { value, headers, partition } of this.topics.of('facts')) {
      const fact = decodeCloudEvent(headers.ce_type ?? '', value ?? '');
      assert.ok(fact);
      if (fact.kind === 'gap' || fact.kind === 'resynced') {
        // All keys live in partition 0 here.
        if (partition === 0) replay.handleFact(fact, 0);
      } else replay.handleFact(fact, 0);
    }
    assert.equal(replay.incomplete, false);
    assert.equal(replay.unfit, 0);
    return replay.sessions;
  }

  #append(event: SessionEvent): void {
    this.history.push(event);
    this.#table.set(event.sessionId, apply(this.#table.get(event.sessionId), event));
    this.stream.append({ sessionId: event.sessionId, type: event.type, data: encodeEvent(event) });
  }
}

/** A CONNECT's event that follows on a record. */
export function claimOf(session: Session, epoch: bigint, at: bigint): SessionEvent {
  return {
    v: 1,
    type: 'claimed',
    sessionId: session.id,
    epoch,
    n: session.n + 1,
    at,
    lease: { name: 'n1', incarnation: 'i1', epoch, claimId: `c${epoch}` },
    addresses: { ipv4: '10.90.0.7', ipv6: '' },
    client: session.client,
    strapKeys: [],
    mtuBytes: 1400,
    resumed: session.n > 1,
    moved: false,
  };
}

/** Keeps warnings and errors; debug and the rest say nothing. */
export function recordingLog(warnings: string[]): Log {
  const silent = () => undefined;
  const log: Log = {
    error: (fields, message) => warnings.push(`${message} ${JSON.stringify(fields)}`),
    warn: (fields, message) => warnings.push(`${message} ${JSON.stringify(fields)}`),
    info: silent,
    debug: silent,
    trace: silent,
    child: () => log,
    level: 'warn',
  };
  return log;
}
