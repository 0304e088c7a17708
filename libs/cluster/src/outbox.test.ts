import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Metrics } from '@sallyport/chassis';
import { decodeCloudEvent } from './cloud-events.ts';
import { eventStreamContract } from './event-stream.contract.ts';
import { FakeEventStream } from './event-stream.fake.ts';
import { encodeEvent, encodeRecord } from './journal-lines.ts';
import { DEAD_LETTER_CHARACTERS } from './letters.ts';
import { claimOf, World } from './outbox.fake.ts';
import { registerOutboxMetrics } from './outbox-metrics.ts';
import { BATCH_ENTRIES, LEASE_MS, NEWER_WAIT } from './outbox.ts';
import { SessionReplay } from './replay.ts';
import type { SessionEvent } from './session.ts';

eventStreamContract('the event stream in memory', () => {
  const stream = new FakeEventStream();
  return {
    stream,
    append: (entry) => stream.append(entry),
    pass: (millis) => void (stream.now += millis),
    close: () => undefined,
  };
});

describe('the outbox', () => {
  it('sends each fact once, in order, keyed by its session, and trims what was acknowledged', async () => {
    const world = new World();
    world.start('s1');
    world.start('s2');
    world.claim('s1', 1n);
    world.occur('alice');
    world.end('s2');

    assert.equal(await world.outbox.round(), 'sent');

    assert.deepEqual(world.sent(), [
      's1 sallyport.session.started.v1',
      's2 sallyport.session.started.v1',
      's1 sallyport.session.connected.v1',
      'alice sallyport.auth.succeeded.v1',
      's2 sallyport.session.ended.v1',
    ]);
    assert.equal(world.stream.entries.length, 0);
    assert.equal(await world.outbox.round(), 'idle');
    assert.equal(world.topics.of('facts').length, 5);
  });

  it('writes the present record of every session that a batch touches, and a tombstone at its end', async () => {
    const world = new World();
    world.start('s1');
    world.claim('s1', 1n);
    world.start('s2');
    await world.outbox.round();
    assert.deepEqual([...world.topics.state.keys()], ['s1', 's2']);
    assert.equal(world.topics.state.get('s1'), encodeRecord(world.record('s1')));

    world.end('s1');
    await world.outbox.round();
    assert.deepEqual([...world.topics.state.keys()], ['s2']);
    assert.equal(world.topics.of('state').at(-1)?.value, null);
  });

  it('recognizes a batch that Kafka has and whose answer was lost', async () => {
    const world = new World();
    world.start('s1');
    world.topics.loseAnswers = 1;
    assert.equal(await world.outbox.round(), 'blocked');
    assert.equal(world.stream.entries.length, 1);

    world.claim('s1', 1n);
    while ((await world.outbox.round()) !== 'idle');

    assert.deepEqual(world.ids(), ['s1/0/1', 's1/1/2']);
    assert.equal(world.stream.entries.length, 0);
  });

  it('sends nothing twice when it dies between the acknowledgement and the trim', async () => {
    const world = new World();
    world.start('s1');
    world.start('s2');
    world.stream.failTrims = 1;
    assert.equal(await world.outbox.round(), 'blocked');

    const successor = world.another('b');
    assert.equal(await successor.round(), 'standby');
    world.stream.now += LEASE_MS;
    assert.equal(await successor.round(), 'sent');

    assert.deepEqual(world.ids(), ['s1/0/1', 's2/0/1']);
    assert.equal(world.stream.entries.length, 0);
  });

  it('starts from the first entry in a new reign', async () => {
    const world = new World();
    world.start('s1');
    world.stream.failTrims = 1;
    await world.outbox.round();
    world.stream.reign = 'reign-2';
    await world.outbox.round();
    assert.deepEqual(world.ids(), ['s1/0/1', 's1/0/1'], 'again, with the same id');
  });

  it('keeps everything while Kafka is away, says so once, and sends it in order afterwards', async () => {
    const world = new World();
    world.topics.down = true;
    for (let n = 1n; n <= 20n; n++) {
      if (n === 1n) world.start('s1');
      else world.claim('s1', n);
      assert.equal(await world.outbox.round(), 'blocked');
    }
    assert.equal(world.warnings.length, 1);
    assert.match(world.outbox.status.trouble, /Kafka is away/);

    world.topics.down = false;
    while ((await world.outbox.round()) !== 'idle');

    assert.deepEqual(
      world.ids().map((id) => id.split('/')[2]),
      Array.from({ length: 20 }, (_, i) => `${i + 1}`),
    );
    assert.equal(world.outbox.status.trouble, '');
  });

  it('yields to the one who took over while it slept', async () => {
    const world = new World();
    world.start('s1');
    await world.outbox.round();
    world.stream.now += LEASE_MS;
    const other = world.another('b');
    world.start('s2');
    await other.round();

    world.stream.now += LEASE_MS; // the sleeper believes in its lease again
    world.start('s3');
    assert.equal(await world.outbox.round(), 'blocked');
    assert.match(world.outbox.status.trouble, /another outbox/);
    assert.equal(await other.round(), 'sent', 'the sleeper gave its lease back');
    assert.deepEqual(world.ids(), ['s1/0/1', 's2/0/1', 's3/0/1']);
  });

  it('makes a dead letter of an entry that it cannot read, and goes on', async () => {
    const world = new World();
    world.start('s1');
    world.stream.append({ sessionId: 's9', type: 'started', data: '{"v":1,"type":"started"' });
    world.stream.append({ sessionId: 's9', type: 'ended', data: 'y'.repeat(1_000_000) });
    world.stream.append({ sessionId: 's9', type: 'ended', data: encodeEvent(world.event('s1')) });
    world.start('s2');

    await world.outbox.round();

    assert.deepEqual(world.ids(), ['s1/0/1', 's2/0/1']);
    const dead = world.topics.of('dead');
    assert.deepEqual(
      dead.map((letter) => letter.headers.sallyport_reason),
      ['not JSON', 'larger than any fact', 'type: not that of the entry'],
    );
    assert.equal(dead[1]?.value?.length, DEAD_LETTER_CHARACTERS);
    assert.equal(world.outbox.status.deadLetters, 3);
    assert.equal(world.stream.entries.length, 0);
  });

  it('writes the present state of a session whose fact became a dead letter: what it ended stays ended', async () => {
    const world = new World();
    for (const id of ['s1', 's2', 's3']) world.start(id);
    await world.outbox.round();
    world.end('s1');
    world.claim('s2', 1n);
    for (const entry of world.stream.entries) entry.data = 'broken';
    await world.outbox.round();
    assert.equal(world.topics.of('dead').length, 2);
    assert.deepEqual([...world.topics.state.keys()], ['s2', 's3']);
    assert.equal(world.topics.state.get('s2'), encodeRecord(world.record('s2')));

    world.end('s3');
    world.topics.poison = '"sessionId":"s3"';
    while ((await world.outbox.round()) !== 'idle');
    assert.equal(world.topics.of('dead').length, 3);
    assert.deepEqual([...world.topics.state.keys()], ['s2']);
  });

  it('finds the one fact that Kafka refuses among many', async () => {
    const world = new World();
    for (let i = 0; i < 30; i++) world.start(`s${i}`);
    world.topics.poison = '"sessionId":"s17"';
    for (let i = 0; i < 40; i++) await world.outbox.round();
    assert.equal(world.topics.of('facts').length, 29);
    assert.deepEqual(
      world.topics.of('dead').map((letter) => letter.headers.sallyport_session),
      ['s17'],
    );
    assert.equal(world.stream.entries.length, 0);
  });

  it('leaves the facts of a newer release to it, for a while', async () => {
    const world = new World();
    world.stream.append({
      sessionId: 's1',
      type: 'started',
      data: '{"v":2,"type":"started","sessionId":"s1"}',
    });
    world.start('s2');
    assert.equal(await world.outbox.round(), 'waiting');
    assert.equal(await world.another('newer').round(), 'waiting', 'the lease was free');
    assert.equal(world.topics.messages.length, 0);

    world.clock.pass(Number(NEWER_WAIT / 1_000_000n) + 1);
    assert.equal(await world.outbox.round(), 'sent');
    assert.equal(world.topics.of('dead').length, 1);
    assert.deepEqual(world.ids(), ['s2/0/1']);
  });

  it('bounds a transaction in entries and in bytes', async () => {
    const world = new World();
    world.topics.batchBytes = 1_000_000;
    for (let i = 0; i < BATCH_ENTRIES + 10; i++) world.occur('u');
    await world.outbox.round();
    assert.equal(world.topics.transactions[0], BATCH_ENTRIES);

    world.topics.batchBytes = 10_000;
    for (let i = 0; i < 20; i++) world.start(`s${i}`);
    while ((await world.outbox.round()) !== 'idle');
    assert.ok(world.topics.transactions.length > 5);
    assert.equal(world.topics.of('facts').length, BATCH_ENTRIES + 30);
  });

  it('lets no field out of the cluster that it does not know', async () => {
    const world = new World();
    world.start('s1');
    const [entry] = world.stream.entries;
    assert.ok(entry);
    entry.data = entry.data.replace('{', '{"token":"canary-token","password":"canary-password",');
    world.stream.append({
      sessionId: '',
      type: 'admin.changed',
      data: '{"v":1,"at":"5","type":"admin.changed","verb":"lock","subject":"bob","cookie":"canary-cookie"}',
    });
    await world.outbox.round();
    assert.equal(world.topics.of('facts').length, 2);
    assert.ok(!JSON.stringify(world.topics.messages).includes('canary'));
  });
});

describe('the metrics of the outbox', () => {
  it('say what waits and for how long, and nothing of it where another one sends', async () => {
    const world = new World();
    const metrics = new Metrics();
    registerOutboxMetrics(metrics, () => world.outbox.status);
    const value = async (name: string) =>
      Number(new RegExp(`^sallyport_outbox_${name} (.*)$`, 'm').exec(await metrics.text())?.[1]);
    world.topics.down = true;
    world.start('s1');
    world.stream.now += 90_000;
    await world.outbox.round();
    assert.equal(await value('blocked'), 1);
    assert.equal(await value('stream_entries'), 1);
    assert.ok((await value('stream_bytes')) > 0);
    assert.equal(await value('lag_seconds'), 90);
    world.topics.down = false;
    await world.another('b').round();
    world.stream.now += LEASE_MS;
    await world.another('b').round();
    await world.outbox.round();
    assert.equal(await value('lag_seconds'), 0);
    assert.equal(await value('stream_entries'), 0);
    assert.equal(await value('active'), 0);
  });
});

describe('the cap of the stream', () => {
  it('stops statistics first, then gives up the oldest facts for one gap and a snapshot', async () => {
    const world = new World({ capBytes: 60_000 });
    world.start('gone');
    world.start('stays');
    while ((await world.outbox.round()) !== 'idle');

    world.topics.down = true;
    world.end('gone');
    let held = 0;
    for (let n = 1n; n < 400n && world.outbox.status.level !== 'full'; n++) {
      world.claim('stays', n);
      world.clock.pass(2);
      await world.outbox.round();
      if (world.outbox.status.level === 'stats-held') {
        held++;
        assert.ok(world.stream.statsHeld);
      }
    }
    assert.ok(held > 0, 'statistics were held before facts were given up');
    assert.ok((await world.stream.size()).bytes <= 60_000);
    const before = world.topics.of('facts').length;

    world.topics.down = false;
    world.clock.pass(2);
    while ((await world.outbox.round()) !== 'idle');

    const types = world.sent().slice(before);
    assert.deepEqual(types.slice(0, 3), [
      'null sallyport.events.gap.v1',
      'null sallyport.events.gap.v1',
      'stays sallyport.session.snapshot.v1',
    ]);
    const gap = decodeCloudEvent('sallyport.events.gap.v1', world.topics.of('facts')[before]?.value ?? '');
    assert.ok(gap?.kind === 'gap' && gap.gap.count > 0 && gap.gap.reason === 'cap');
    assert.deepEqual([...world.topics.state], [['stays', encodeRecord(world.record('stays'))]]);
    assert.deepEqual(world.replayed(), [world.record('stays')]);

    world.clock.pass(2);
    await world.outbox.round();
    assert.ok(!world.stream.statsHeld);
  });

  it('repeats a snapshot that was cut off', async () => {
    const world = new World();
    world.start('s1');
    await world.outbox.round();
    await world.stream.dropOldest(1);
    world.start('s2');
    await world.stream.dropOldest(1);
    world.topics.loseAnswers = 1;
    assert.equal(await world.outbox.round(), 'blocked');
    while ((await world.outbox.round()) !== 'idle');
    assert.deepEqual(
      world
        .replayed()
        .map((session) => session.id)
        .sort(),
      ['s1', 's2'],
    );
    assert.equal(world.outbox.status.resyncs, 1);
  });

  it('takes the facts of a session that ended before the snapshot for the old news that they are', async () => {
    const world = new World();
    world.start('s1');
    await world.outbox.round();
    world.claim('s1', 1n);
    world.end('s1');
    world.outbox.requestResync();
    await world.outbox.round();
    while ((await world.outbox.round()) !== 'idle');
    assert.deepEqual(world.replayed(), []);
  });

  it('writes the whole table on request', async () => {
    const world = new World();
    world.start('s1');
    await world.outbox.round();
    world.forget('s1'); // as a store that lost its writes does
    world.outbox.requestResync();
    await world.outbox.round();
    assert.equal(world.topics.state.size, 0);
    assert.deepEqual(world.replayed(), []);
  });
});

describe('a replay of the facts', () => {
  it('gives the exact table, from facts that come twice and late', async () => {
    const world = new World();
    for (let i = 0; i < 12; i++) {
      world.start(`s${i}`);
      if (i % 2 === 0) world.claim(`s${i}`, BigInt(i + 1));
      if (i % 4 === 0) world.park(`s${i}`);
      if (i % 5 === 0) world.end(`s${i}`);
    }
    await world.outbox.round();
    assert.deepEqual(world.replayed(), world.live());

    const facts = world.topics.of('facts');
    world.topics.messages.push(...facts.slice(3, 9), ...facts.slice(0, 20));
    assert.deepEqual(world.replayed(), world.live());
  });

  it('takes a higher epoch for newer, even with a lower number', () => {
    const world = new World();
    world.start('s1');
    world.claim('s1', 10n);
    const lost = world.record('s1');
    const replay = new SessionReplay();
    for (const event of world.history) replay.handleFact({ kind: 'session', event }, 0);
    const again: SessionEvent = { ...claimOf(lost, 20n, world.clock.now), n: 2 };
    replay.handleFact({ kind: 'session', event: again }, 0);
    assert.equal(replay.sessions[0]?.lease?.epoch, 20n);
    replay.handleFact({ kind: 'session', event: { ...claimOf(lost, 5n, world.clock.now), n: 9 } }, 0);
    assert.equal(replay.sessions[0]?.lease?.epoch, 20n);
  });

  it('counts facts whose predecessors are missing', () => {
    const world = new World();
    world.start('s1');
    world.claim('s1', 1n);
    const replay = new SessionReplay();
    replay.handleFact({ kind: 'session', event: world.event('s1') }, 0);
    assert.equal(replay.unfit, 1);
    assert.deepEqual(replay.sessions, []);
  });
});
