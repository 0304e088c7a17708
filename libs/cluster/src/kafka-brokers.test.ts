import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { TestBroker } from './broker.fake.ts';
import { KAFKA_DEFAULTS } from './kafka-settings.ts';
import { Kafka } from './kafka.ts';
import { recordingLog, World } from './outbox.fake.ts';
import { until } from './redis-server.fake.ts';
import { replaySessions } from './replay.ts';
import type { Session } from './session.ts';

/** What is acknowledged is on two of three brokers. */
describe('three brokers, one of which dies', { timeout: 900_000 }, () => {
  const dir = mkdtempSync(join(tmpdir(), 'sallyport-brokers-'));
  let broker: TestBroker;

  before(async () => {
    broker = await TestBroker.start(dir, ['--nodes', '3']);
  });
  after(async () => {
    await broker.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  it('lose no fact, double none, and go on without waiting for it', async () => {
    const brokers = broker.brokers.map(({ port }) => `127.0.0.1:${port}`);
    const kafka = new Kafka({ ...KAFKA_DEFAULTS, brokers, prefix: 'three', partitions: 3 }, recordingLog([]));
    const world = new World({ sink: () => kafka.sink() });
    let facts = 0;
    const live = (round: number) => {
      for (let i = 0; i < 30; i++) {
        world.start(`s${round}-${i}`);
        world.claim(`s${round}-${i}`, BigInt(i + 1));
        if (i % 3 === 0) world.end(`s${round}-${i}`);
        facts += i % 3 === 0 ? 3 : 2;
      }
    };
    const drain = () => until(async () => (await world.outbox.round()) === 'idle', PATIENCE_MS);

    live(1);
    await drain();
    const victim = broker.brokers.at(-1) ?? assert.fail();
    live(2);
    const sending = drain();
    process.kill(victim.pid, 'SIGKILL');
    await sending;
    live(3);
    await drain();

    assert.equal(await counted(kafka, facts), facts, 'each once');
    for (const from of ['state', 'facts'] as const)
      assert.deepEqual(byId((await replaySessions(kafka, from)).sessions), byId(world.live()), from);
    await world.outbox.close();
  });
});

async function count(kafka: Kafka): Promise<number> {
  const ids: string[] = [];
  await kafka.read('facts', ({ headers }) => void ids.push(headers.ce_id ?? ''));
  assert.equal(new Set(ids).size, ids.length, 'none twice');
  return ids.length;
}

/** When there are as many, or when patience ends: what there is then, or what is wrong. */
async function counted(kafka: Kafka, wanted: number): Promise<number> {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      const found = await count(kafka);
      if (found >= wanted || performance.now() > end) return found;
    } catch (error) {
      if (error instanceof assert.AssertionError || performance.now() > end) throw error;
    }
    await sleep(500);
  }
}

function byId(sessions: readonly Session[]): Session[] {
  return sessions.toSorted((a, b) => (a.id < b.id ? -1 : 1));
}

const PATIENCE_MS = 300_000;
