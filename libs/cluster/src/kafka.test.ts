import assert from 'node:assert/strict';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { TestBroker } from './broker.fake.ts';
import { SinkRefused, SinkUnavailable, WriterFenced } from './event-sink.ts';
import type { FactSink, SinkMessage } from './event-sink.ts';
import { RedisEventStream } from './event-stream.redis.ts';
import type { KafkaSettings } from './kafka-settings.ts';
import { KAFKA_DEFAULTS } from './kafka-settings.ts';
import type { TopicRecord } from './kafka.ts';
import { Kafka } from './kafka.ts';
import { recordingLog, World } from './outbox.fake.ts';
import { LEASE_MS } from './outbox.ts';
import { RedisServer } from './redis-server.fake.ts';
import { Redis } from './redis.ts';
import type { TailedEvent } from './replay.ts';
import { replaySessions, tailEvents } from './replay.ts';
import { sampleClaim, sampleLogin } from './session.fake.ts';
import type { Session } from './session.ts';
import { RedisSessions } from './sessions.redis.ts';

describe('events in a real Kafka', { timeout: 900_000 }, () => {
  const dir = mkdtempSync(join(tmpdir(), 'sallyport-kafka-test-'));
  let broker: TestBroker;

  before(async () => {
    writeFileSync(join(dir, 'secure.properties'), secureListener(dir));
    const secure = ['--listener', 'SECURE=SASL_SSL', '--properties', join(dir, 'secure.properties')];
    broker = await TestBroker.start(join(dir, 'broker'), secure);
  });
  after(async () => {
    await broker.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  it('keeps the order of each session, and both topics give the exact table', async () => {
    const { kafka, world } = onKafka('order');
    for (let i = 0; i < 40; i++) {
      world.start(`s${i}`);
      world.occur(`user${i}`);
    }
    for (let epoch = 1n; epoch <= 5n; epoch++) for (let i = 0; i < 40; i += 2) world.claim(`s${i}`, epoch);
    for (let i = 0; i < 40; i += 4) world.park(`s${i}`);
    for (let i = 0; i < 40; i += 5) world.end(`s${i}`);
    await drain(world);

    const facts = await all(kafka);
    assert.equal(facts.length, 40 + 40 + 100 + 10 + 8);
    for (const one of facts) {
      assert.equal(one.key, one.headers.ce_partitionkey);
      assert.equal(one.headers.ce_subject, one.key);
    }
    for (const session of world.history.map((event) => event.sessionId)) {
      const numbers = facts.filter((one) => one.key === session).map((one) => numberOf(one));
      assert.deepEqual(
        numbers,
        numbers.toSorted((a, b) => a - b),
      );
    }
    assert.ok(new Set(facts.map((one) => one.partition)).size > 1, 'more than one partition is used');

    for (const from of ['state', 'facts'] as const) {
      const table = await replaySessions(kafka, from);
      assert.deepEqual(byId(table.sessions), byId(world.live()), from);
      assert.deepEqual([table.unfit, table.malformed, table.incomplete], [0, 0, false], from);
    }
    await world.outbox.close();
  });

  it('loses nothing and doubles nothing when an outbox dies in the middle and the broker is away', async () => {
    const { kafka, world } = onKafka('outage');
    world.start('s1');
    await drain(world);

    // Dies between Kafka's acknowledgement and the trim.
    world.claim('s1', 1n);
    world.stream.failTrims = 1;
    assert.equal(await world.outbox.round(), 'blocked');
    world.stream.now += LEASE_MS + 1;
    const second = world.another('b');
    world.claim('s1', 2n);
    await drain(world, second);

    await broker.stop();
    for (let epoch = 3n; epoch <= 20n; epoch++) world.claim('s1', epoch);
    assert.equal(await second.round(), 'blocked');
    assert.equal(await second.round(), 'blocked');
    assert.match(second.status.trouble, /^Kafka at 127\.0\.0\.1:\d+ does not answer/);
    assert.equal(world.stream.entries.length, 18);
    assert.equal(world.warnings.length, 2, 'once per outbox');

    broker = await TestBroker.start(join(dir, 'broker'), [...broker.again, ...secureAgain(dir, broker)]);
    await drain(world, second);

    assert.deepEqual(
      (await all(kafka)).map((one) => numberOf(one)),
      Array.from({ length: 21 }, (_, i) => i + 1),
    );
    assert.equal(world.stream.entries.length, 0);
    assert.deepEqual((await replaySessions(kafka, 'state')).sessions, world.live());
    await second.close();
  });

  it('sends every fact of a real Redis once, through two outbox processes that are killed in turn', async (t) => {
    const server = await RedisServer.start();
    t.after(() => server.stop());
    const redis = await Redis.open(server.settings, { windowMicros: 0n });
    t.after(() => redis.close());
    const sessions = new RedisSessions({ redis });
    const { kafka } = onKafka('kill');
    await kafka.ensureTopics();
    const children = new Set<ChildProcess>();
    const launch = () => {
      const program = fileURLToPath(new URL('./outbox-child.fake.js', import.meta.url));
      const args = [program, String(server.port), broker.broker, 'kill'];
      const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
      children.add(child);
      return child;
    };
    t.after(() => children.forEach((child) => child.kill('SIGKILL')));
    let facts = 0;
    const live = async (from: number) => {
      for (let i = from; i < from + 60; i++) {
        const token = i.toString(16).padStart(64, '0');
        const { id } = await sessions.create(sampleLogin(token, `u${i}`));
        const claimed = await sessions.claim(sampleClaim(token, `c${i}`));
        assert.ok(claimed.ok);
        if (i % 3 === 0) await sessions.end(id, 'logout');
        facts += i % 3 === 0 ? 3 : 2;
      }
    };

    const stream = new RedisEventStream(redis);
    const waiting = async () => (await stream.size()).entries;
    for (let round = 0; round < 3; round++) {
      const [one, other] = [launch(), launch()];
      await Promise.all([live(round * 60), until(async () => facts > round * 60 && (await waiting()) < 40)]);
      one.kill('SIGKILL');
      other.kill('SIGKILL');
    }
    launch();
    await until(async () => (await waiting()) === 0);

    const ids = (await all(kafka)).map((one) => one.headers.ce_id);
    assert.equal(ids.length, facts);
    assert.equal(new Set(ids).size, facts);
    const table = byId(await sessions.list());
    assert.ok(table.length > 100);
    assert.deepEqual(byId((await replaySessions(kafka, 'state')).sessions), table);
    assert.deepEqual(byId((await replaySessions(kafka, 'facts')).sessions), table);
  });

  it('lets one of two writers write: the earlier one is fenced', async () => {
    const { kafka } = onKafka('fence');
    const first = kafka.sink();
    const second = kafka.sink();
    await first.open();
    await first.write([message('a')], { reign: 'r', entryId: '1-0' });
    await second.open();
    assert.equal(await second.mark('r'), '1-0');
    assert.equal(await second.mark('another'), '');
    await assert.rejects(first.write([message('b')]), WriterFenced);
    await second.write([message('c')], { reign: 'r', entryId: '1700000000000-7' });
    await second.open();
    assert.equal(await second.mark('r'), '1700000000000-7');
    assert.deepEqual(
      (await all(kafka)).map((one) => one.key),
      ['a', 'c'],
    );
    await Promise.all([first.close(), second.close()]);
  });

  it('writes a transaction wholly or not at all', async () => {
    const { kafka } = onKafka('whole');
    const sink = kafka.sink();
    await sink.open();
    const large: SinkMessage = { topic: 'state', key: 'b', value: 'x'.repeat(2_000_000), headers: {} };
    await assert.rejects(
      sink.write([message('a'), large], { reign: 'r', entryId: '5-0' }),
      /MESSAGE|message/,
    );
    await sink.open();
    assert.equal(await sink.mark('r'), '');
    await sink.write([message('c')]);
    assert.deepEqual(
      (await all(kafka)).map((one) => one.key),
      ['c'],
    );
    await sink.close();
  });

  it('files what it cannot send as dead letters', async () => {
    const { kafka, world } = onKafka('dead');
    world.start('s1');
    world.stream.append({ sessionId: 's1', type: 'claimed', data: '{"v":1}' });
    world.start('s2');
    await drain(world);
    assert.equal((await all(kafka)).length, 2);
    const dead: TopicRecord[] = [];
    await kafka.read('dead', (record) => void dead.push(record));
    assert.deepEqual(
      dead.map(({ value, headers }) => [value, headers.sallyport_session, headers.sallyport_type]),
      [['{"v":1}', 's1', 'claimed']],
    );
    await world.outbox.close();
  });

  it('writes gap, snapshot and tombstones after it had to give facts up', async () => {
    const { kafka, world } = onKafka('gap');
    for (const id of ['stays', 'goes', 'new']) if (id !== 'new') world.start(id);
    await drain(world);
    world.end('goes');
    world.start('new');
    world.claim('stays', 1n);
    await world.stream.dropOldest(3);
    await drain(world);
    const types = (await all(kafka)).map((one) => one.headers.ce_type);
    assert.equal(types.filter((type) => type === 'sallyport.events.gap.v1').length, 3, 'one per partition');
    for (const from of ['state', 'facts'] as const)
      assert.deepEqual(byId((await replaySessions(kafka, from)).sessions), byId(world.live()), from);
    await world.outbox.close();
  });

  it('shows events as they come', async () => {
    const { kafka, world } = onKafka('tail');
    world.start('before');
    await drain(world);
    const seen: TailedEvent[] = [];
    const stop = await tailEvents(kafka, 'end', (event) => void seen.push(event), assert.fail);
    world.start('s1');
    world.occur('alice');
    await drain(world);
    await until(() => seen.length === 2);
    await stop();
    assert.deepEqual(seen.map((event) => event.type).sort(), [
      'sallyport.auth.succeeded.v1',
      'sallyport.session.started.v1',
    ]);
    const started = seen.find((event) => event.subject === 's1');
    assert.equal(started?.specversion, '1.0');
    assert.equal(started.id, 's1/0/1');
    assert.equal(started.source, '/sallyport/test');
    assert.match(started.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
    await world.outbox.close();
  });

  it('creates its topics with the right settings, and refuses those that have wrong ones', async () => {
    const { kafka } = onKafka('topics');
    await kafka.ensureTopics();
    const facts = await kafka.ensureTopics();
    assert.equal(facts.partitions, 3);
    const settings = await kafka.withAdmin('the settings', (admin) =>
      admin.describeConfigs({
        includeSynonyms: false,
        resources: ['topics.events', 'topics.sessions.state', 'topics.events.dead'].map((name) => ({
          type: 2,
          name,
        })),
      }),
    );
    const of = (topic: string, key: string) =>
      settings.resources
        .find(({ resourceName }) => resourceName === topic)
        ?.configEntries.find(({ configName }) => configName === key)?.configValue;
    assert.equal(of('topics.sessions.state', 'cleanup.policy'), 'compact');
    for (const topic of ['topics.events', 'topics.events.dead']) {
      assert.equal(of(topic, 'cleanup.policy'), 'delete');
      assert.equal(of(topic, 'retention.ms'), String(KAFKA_DEFAULTS.retentionHours * 3_600_000));
      assert.equal(of(topic, 'message.timestamp.type'), 'LogAppendTime');
    }
    const other = { topic: 'wrong.sessions.state', numPartitions: 1, replicationFactor: 1 };
    await kafka.withAdmin('a topic of somebody else', (admin) =>
      admin.createTopics({ topics: [other], waitForLeaders: false }),
    );
    await until(() =>
      kafka.withAdmin('looking', async (admin) => (await admin.listTopics()).includes(other.topic)),
    );
    await assert.rejects(
      onKafka('wrong').kafka.ensureTopics(),
      (error: Error) =>
        error instanceof SinkRefused &&
        /wrong\.sessions\.state has cleanup\.policy=delete, and it must be compact/.test(error.message),
    );
  });

  it('speaks TLS with a password, and says in one line what is wrong with either', async () => {
    const good = secureSettings(dir, broker, {});
    await new Kafka(good, recordingLog([])).ensureTopics();

    const wrong: [Partial<KafkaSettings>, RegExp][] = [
      [{ sasl: sasl(dir, 'wrong') }, /did not accept the user name and password: check kafka\.sasl/],
      [{ tls: tls('') }, /has a certificate that kafka\.tls does not trust/],
      [
        { tls: { ...tls(join(dir, 'cert.pem')), serverName: 'other.example' } },
        /does not trust \(Hostname\/IP/,
      ],
      [{ sasl: sasl(dir, 'missing') }, /^kafka\.sasl\.password-file: .* cannot be read\.$/],
    ];
    for (const [change, line] of wrong) {
      const warnings: string[] = [];
      const kafka = new Kafka(secureSettings(dir, broker, change), recordingLog(warnings));
      await assert.rejects(kafka.ensureTopics(), (error: Error) => {
        assert.ok(error instanceof SinkRefused, `${error.name}: ${error.message}`);
        assert.match(error.message, line);
        assert.ok(!error.message.includes('\n') && !error.message.includes('pass-'), error.message);
        return true;
      });
      assert.deepEqual(warnings, [], 'the client itself says nothing');
    }
    // A port that closes the connection may also be a broker that starts: said, and tried again.
    for (const change of [{ sasl: undefined }, { brokers: [broker.broker] }, { tls: undefined }]) {
      const kafka = new Kafka(secureSettings(dir, broker, change), recordingLog([]));
      await assert.rejects(kafka.ensureTopics(), (error: Error) => {
        assert.ok(error instanceof SinkUnavailable, error.message);
        assert.match(error.message, /closed the connection: .*kafka\.sasl or kafka\.tls\.$/);
        return true;
      });
    }
  });

  function onKafka(prefix: string): { kafka: Kafka; world: World; sink?: FactSink } {
    const settings: KafkaSettings = {
      ...KAFKA_DEFAULTS,
      brokers: [broker.broker],
      prefix,
      partitions: 3,
      replicationFactor: 1,
    };
    const warnings: string[] = [];
    const kafka = new Kafka(settings, recordingLog(warnings));
    return { kafka, world: new World({ sink: () => kafka.sink() }) };
  }
});

async function drain(world: World, outbox = world.outbox): Promise<void> {
  await until(async () => (await outbox.round()) === 'idle');
}

async function until(done: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await done())) {
    assert.ok(Date.now() < deadline, 'within a minute');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** All facts that were written, also those whose transaction was acknowledged a moment ago. Ends every other writer. */
async function all(kafka: Kafka): Promise<TopicRecord[]> {
  const sink = kafka.sink();
  await sink.open(); // waits for the transaction before
  await sink.close();
  const records: TopicRecord[] = [];
  await kafka.read('facts', (record) => void records.push(record));
  return records;
}

function numberOf(record: TopicRecord): number {
  return Number(record.headers.ce_id?.split('/')[2] ?? 0);
}

function byId(sessions: readonly Session[]): Session[] {
  return sessions.toSorted((a, b) => (a.id < b.id ? -1 : 1));
}

function message(key: string): SinkMessage {
  return { topic: 'facts', key, value: '{}', headers: {} };
}

function secureSettings(dir: string, broker: TestBroker, change: Partial<KafkaSettings>): KafkaSettings {
  return {
    ...KAFKA_DEFAULTS,
    brokers: [`127.0.0.1:${broker.listeners.SECURE}`],
    prefix: 'secure',
    replicationFactor: 1,
    tls: tls(join(dir, 'cert.pem')),
    sasl: sasl(dir, 'right'),
    ...change,
  };
}

function tls(caFile: string) {
  return { caFile, certFile: '', keyFile: '', serverName: '' };
}

function sasl(dir: string, password: 'right' | 'wrong' | 'missing') {
  if (password !== 'missing') writeFileSync(join(dir, password), `pass-${password}\n`);
  return { mechanism: 'plain' as const, username: 'outbox', passwordFile: join(dir, password) };
}

/** Listener SECURE: TLS with a certificate of its own, user `outbox` by SASL PLAIN. */
function secureListener(dir: string): string {
  const key = join(dir, 'key.pem');
  const cert = join(dir, 'cert.pem');
  const subject = ['-subj', '/CN=kafka', '-addext', 'subjectAltName=IP:127.0.0.1'];
  execFileSync(
    'openssl',
    ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-keyout', key, '-out', cert, ...subject],
    { stdio: 'ignore' },
  );
  writeFileSync(join(dir, 'store.pem'), readFileSync(key, 'utf8') + readFileSync(cert, 'utf8'));
  const module = 'org.apache.kafka.common.security.plain.PlainLoginModule';
  return [
    'sasl.enabled.mechanisms=PLAIN',
    `listener.name.secure.plain.sasl.jaas.config=${module} required user_outbox="pass-right";`,
    'listener.name.secure.ssl.keystore.type=PEM',
    `listener.name.secure.ssl.keystore.location=${join(dir, 'store.pem')}`,
    '',
  ].join('\n');
}

function secureAgain(dir: string, broker: TestBroker): string[] {
  return [
    ...['--listener', `SECURE=SASL_SSL:${broker.listeners.SECURE}`],
    ...['--properties', join(dir, 'secure.properties')],
  ];
}
