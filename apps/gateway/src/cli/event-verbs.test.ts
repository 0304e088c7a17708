import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createLog, StartError } from '@sallyport/chassis';
import {
  hashToken,
  Kafka,
  KAFKA_DEFAULTS,
  Outbox,
  Redis,
  RedisEventLog,
  RedisEventStream,
  RedisSessions,
  systemClock,
  type Session,
} from '@sallyport/cluster';
import {
  freePort,
  RedisServer,
  sampleClaim,
  sampleLogin,
  TestBroker,
  until,
} from '@sallyport/cluster/testing';
import { sallyportProgram } from './program.ts';

describe('sallyport events', { timeout: 600_000 }, () => {
  let folder: string;
  let server: RedisServer;
  let broker: TestBroker;
  let redis: Redis;
  let sessions: RedisSessions;
  let events: RedisEventLog;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sallyport-events-'));
    [server, broker] = await Promise.all([RedisServer.start(), TestBroker.start(join(folder, 'broker'))]);
    redis = await Redis.open(server.settings, { windowMicros: 0n });
    sessions = new RedisSessions({ redis });
    events = await RedisEventLog.open(redis, log);
    const outbox = new Outbox({
      ...{ stream: new RedisEventStream(redis), table: sessions, sink: kafkaOf('events').sink() },
      ...{ cluster: 'test', holder: randomUUID(), clock: systemClock(), log },
    });
    await live();
    while ((await outbox.round()) !== 'idle');
    await outbox.close();
    // Another writer begins when readers see what the one before has written.
    const next = kafkaOf('events').sink();
    await next.open();
    await next.close();
    for (const prefix of ['events', 'strange', 'nowhere'])
      await writeFile(
        join(folder, `${prefix}.yaml`),
        `kafka: { brokers: ["${broker.broker}"], prefix: ${prefix} }\n`,
      );
  });
  after(async () => {
    events.close();
    await redis.close();
    await Promise.all([server.stop(), broker.stop()]);
    await rm(folder, { recursive: true });
  });

  it('replay prints the exact table of sessions, from either topic, and nothing that is secret', async () => {
    const table = (await sessions.list()).toSorted((a, b) => (a.id < b.id ? -1 : 1));
    assert.ok(table.length > 30, `${table.length}`);
    assert.equal(new Set(table.map(({ state }) => state)).size, 3);
    for (const from of ['state', 'facts']) {
      const { out, failure } = await run('-j', 'events', 'replay', '--config', config(), '--from', from);
      assert.equal(failure, undefined);
      assert.deepEqual(JSON.parse(out), table.map(shown), from);
      for (const { tokenHash, strapKeys } of table)
        for (const secret of [tokenHash, ...strapKeys]) assert.ok(!out.includes(secret));
    }
    const { out } = await run('events', 'replay', '--config', config());
    const lines = out.trimEnd().split('\n');
    assert.match(lines[0] ?? '', /^session +user +profile/);
    assert.equal(lines.length, table.length + 1);
  });

  it('ends as a process, with an exit code', async () => {
    const program = fileURLToPath(new URL('../../../../bin/sallyport', import.meta.url));
    const args = (prefix: string) => [
      program,
      'events',
      'replay',
      '--config',
      config(prefix),
      '--from',
      'facts',
    ];
    const { stdout } = await promisify(execFile)(process.execPath, args('events'));
    assert.match(stdout, /^session +user/);
    const failed = await promisify(execFile)(process.execPath, args('nowhere')).catch(
      (error: unknown) => error,
    );
    assert.ok(failed instanceof Error && 'code' in failed && 'stderr' in failed);
    assert.equal(failed.code, 1);
    assert.match(String(failed.stderr), /^[^\n]*has no such topic[^\n]*\n$/);
  });

  it('tail prints each event, from the beginning or from now on, until it is interrupted', async () => {
    const all = await tail('--from', 'beginning', (lines) => lines.length >= EVENTS);
    const json = all.map((line) => JSON.parse(line) as { specversion: string; type: string; data: object });
    assert.ok(json.every(({ specversion }) => specversion === '1.0'));
    assert.ok(json.some(({ type }) => type === 'sallyport.session.moved.v1'));
    assert.ok(!all.some((line) => /tokenHash|strapKeys/.test(line)));
    for (const { tokenHash } of await sessions.list()) assert.ok(!all.join().includes(tokenHash));
  });

  it('lets nothing that a client says command the terminal', async () => {
    const { out } = await run('events', 'replay', '--config', config());
    assert.ok(!out.includes('\u001b'));
    assert.ok(out.includes('?[2J'));
  });

  it('says in one line what is wrong', async () => {
    const file = join(folder, 'wrong.yaml');
    const cases: [string, RegExp][] = [
      ['redis: { url: "redis://127.0.0.1:1" }', /there is no section kafka/],
      ['kafka: { brokers: [] }', /name at least one broker/],
      ['kafka: { broker: [x] }', /broker/],
      [`kafka: { brokers: ["127.0.0.1:${await freePort()}"] }`, /^Kafka at 127\.0\.0\.1:\d+ does not answer/],
      [`kafka: { brokers: ["${broker.broker}"], prefix: nowhere }`, /has no such topic: check kafka\.prefix/],
    ];
    for (const [text, line] of cases) {
      await writeFile(file, `${text}\n`);
      for (const verb of ['replay', 'tail']) {
        const { out, failure } = await run('events', verb, '--config', file);
        assert.ok(failure instanceof StartError, `${text}: ${String(failure)}`);
        assert.match(failure.message, line);
        assert.ok(!failure.message.includes('\n'), failure.message);
        assert.equal(out, '');
      }
    }
    const { failure } = await run('events', 'replay', '--config', join(folder, 'missing.yaml'));
    assert.match(String(failure), /missing\.yaml: cannot be read/);
  });

  it('shows what it can of a topic that holds what is not ours, and fails', async () => {
    const sink = kafkaOf('strange').sink();
    await sink.open();
    await sink.write([{ topic: 'state', key: 'x', value: 'rubbish', headers: {} }]);
    await sink.close();
    const { out, failure } = await run('events', 'replay', '--config', config('strange'));
    assert.equal(out, 'There are no sessions.\n');
    assert.match(String(failure), /may not be the whole table: 1 records are damaged or not ours/);
  });

  /** A few hundred random changes, always the same ones. */
  async function live(): Promise<void> {
    const random = randomFrom(42);
    const known: Session[] = [];
    for (let n = 0; n < OPERATIONS; n++) {
      const session = known[Math.floor(random() * known.length)];
      const what = random();
      if (session === undefined || what < 0.3) {
        const login = sampleLogin(hashToken(`token ${n}`), `user${n % 17}`);
        const client = {
          ...login.client,
          hostname: '\u001b[2J',
          userAgent: n % 5 === 0 ? '\u001b[2J' : 'AnyConnect',
        };
        known.push(await sessions.create({ ...login, client, strapKey: n % 3 === 0 ? `STRAP${n}` : '' }));
        continue;
      }
      const { id, tokenHash } = session;
      const { state, lease } = (await sessions.get(id)) ?? session;
      const node = { name: `n${1 + Math.floor(random() * 3)}`, incarnation: 'i' };
      const usage = { rxBytes: BigInt(n), txBytes: 2n ** 60n + BigInt(n), activeAt: 0n };
      if (what < 0.65) await sessions.claim(sampleClaim(tokenHash, `c${n}`, { node, strapKey: `NEXT${n}` }));
      else if (what < 0.8 && lease) await sessions.park(id, lease, 'connection-lost', usage);
      else if (what < 0.9 && lease) await sessions.checkpoint(id, lease, usage);
      else if (state !== 'closed') await sessions.end(id, 'logout');
    }
  }

  function kafkaOf(prefix: string): Kafka {
    const settings = {
      ...KAFKA_DEFAULTS,
      brokers: [broker.broker],
      prefix,
      partitions: 3,
      replicationFactor: 1,
    };
    return new Kafka(settings, log);
  }

  function config(prefix = 'events'): string {
    return join(folder, `${prefix}.yaml`);
  }

  /** Runs until the lines are enough. */
  async function tail(...args: [...string[], (lines: string[]) => boolean]): Promise<string[]> {
    const enough = args.pop() as (lines: string[]) => boolean;
    const lines: string[] = [];
    const interrupted = () => until(async () => enough(lines), PATIENCE_MS);
    await runWith((text) => lines.push(text.trimEnd()), interrupted, [
      ...['-j', 'events', 'tail', '--config', config()],
      ...(args as string[]),
    ]);
    return lines;
  }
});

async function run(...args: string[]): Promise<{ out: string; failure: unknown }> {
  let out = '';
  const failure: unknown = await runWith(
    (text) => (out += text),
    async () => undefined,
    args,
  ).then(
    () => undefined,
    (error: unknown) => error,
  );
  return { out, failure };
}

async function runWith(
  out: (text: string) => void,
  interrupted: () => Promise<void>,
  args: readonly string[],
): Promise<void> {
  const never = () => Promise.reject(new Error('not here'));
  const program = sallyportProgram({
    ...{ version: '1', socketVariable: undefined, input: process.stdin, prompts: new PassThrough() as never },
    ...{ out, now: Date.now, interrupted, runGateway: never, runRole: never, supervise: never },
  });
  await program.parseAsync(args, { from: 'user' });
}

/** As -j shows it. */
function shown({ tokenHash: _, strapKeys: __, ...session }: Session): unknown {
  return JSON.parse(
    JSON.stringify(session, (_key, value: unknown) => (typeof value === 'bigint' ? String(value) : value)),
  );
}

/** mulberry32. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const log = createLog({ name: 'test', level: 'silent' });
const OPERATIONS = 400;
/** So many of them make an event, at least. */
const EVENTS = 250;
const PATIENCE_MS = 180_000;
