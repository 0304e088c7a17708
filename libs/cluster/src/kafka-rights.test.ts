import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { TestBroker } from './broker.fake.ts';
import { SinkRefused } from './event-sink.ts';
import type { KafkaSettings } from './kafka-settings.ts';
import { KAFKA_DEFAULTS } from './kafka-settings.ts';
import { Kafka } from './kafka.ts';
import { recordingLog } from './outbox.fake.ts';
import { until } from './redis-server.fake.ts';
import { replaySessions } from './replay.ts';

/** A Kafka with an authorizer and users by SCRAM, who have the rights of docs/events.md and no others. */
describe('the rights that docs/events.md asks of Kafka', { timeout: 900_000 }, () => {
  const dir = mkdtempSync(join(tmpdir(), 'sallyport-rights-'));
  let broker: TestBroker;
  let admin: Kafka;

  before(async () => {
    writeFileSync(join(dir, 'users'), 'auth=pass-auth\nreads=pass-reads\n');
    writeFileSync(join(dir, 'properties'), PROPERTIES);
    const args = ['--listener', 'SECURE=SASL_PLAINTEXT', '--properties', join(dir, 'properties')];
    broker = await TestBroker.start(join(dir, 'broker'), [...args, '--scram', join(dir, 'users')]);
    admin = new Kafka({ ...KAFKA_DEFAULTS, brokers: [broker.broker] }, recordingLog([]));
    await admin.withAdmin('the rights of the documentation', (client) =>
      client.createAcls({ acl: documented().map((right) => aclOf(right)) }),
    );
  });
  after(async () => {
    await broker.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  it('are enough: topics are made, facts go out, the table is read, by either mechanism', async () => {
    await until(() => writes(), PATIENCE_MS);
    await until(() => reads(), PATIENCE_MS);
    const other = { ...settings('auth'), sasl: { ...sasl('auth'), mechanism: 'scram-sha-256' as const } };
    await new Kafka(other, recordingLog([])).ensureTopics();
    writeFileSync(join(dir, 'auth'), 'wrong\n');
    await assert.rejects(
      new Kafka(settings('auth', false), recordingLog([])).ensureTopics(),
      (error: Error) => {
        assert.ok(error instanceof SinkRefused);
        assert.match(error.message, /did not accept the user name and password/);
        return true;
      },
    );
  });

  for (const right of documented().filter(({ when }) => when !== 'wanted'))
    it(`are all needed: ${right.user} without ${right.operation} of ${right.resource} is refused`, async () => {
      const { kind, ...acl } = filterOf(right);
      await admin.withAdmin('taking a right', (client) =>
        client.deleteAcls({ filters: [{ ...acl, ...kind }] }),
      );
      if (right.operation === 'Create') await withoutTopics();
      const work = right.user === 'auth' ? writes : reads;
      let refusal: unknown;
      await until(async () => {
        refusal = await work().then(
          () => undefined,
          (error: unknown) => error,
        );
        return /docs\/events\.md lists the rights/.test(String(refusal));
      }, PATIENCE_MS);
      await admin.withAdmin('giving it back', (client) => client.createAcls({ acl: [aclOf(right)] }));
      await until(work, PATIENCE_MS);
    });

  /** All that the outbox does. */
  async function writes(): Promise<true> {
    const kafka = new Kafka(settings('auth'), recordingLog([]));
    const sink = kafka.sink();
    try {
      await sink.open();
      await sink.mark('r');
      const mark = { reign: 'r', entryId: `${++written}-0` };
      await sink.write([{ topic: 'facts', key: 's1', value: '{}', headers: {} }], mark);
      await sink.write([{ topic: 'dead', key: null, value: '{}', headers: {} }]);
      await sink.stateIndex();
    } finally {
      await sink.close();
    }
    return true;
  }

  /** All that the command line does. */
  async function reads(): Promise<true> {
    const kafka = new Kafka(settings('reads'), recordingLog([]));
    for (const from of ['state', 'facts'] as const) await replaySessions(kafka, from);
    return true;
  }

  async function withoutTopics(): Promise<void> {
    const topics = ['acl.events', 'acl.sessions.state', 'acl.events.dead'];
    await admin.withAdmin('deleting', (client) => client.deleteTopics({ topics }));
    await until(
      () =>
        admin.withAdmin('looking', async (client) => {
          const there = await client.listTopics();
          return topics.every((topic) => !there.includes(topic));
        }),
      PATIENCE_MS,
    );
  }

  function settings(user: string, good = true): KafkaSettings {
    if (good) writeFileSync(join(dir, user), `pass-${user}\n`);
    return {
      ...{ ...KAFKA_DEFAULTS, brokers: [`127.0.0.1:${broker.listeners.SECURE}`], prefix: 'acl' },
      ...{ partitions: 1, replicationFactor: 1, sasl: sasl(user) },
    };
  }

  function sasl(username: string) {
    return { mechanism: 'scram-sha-512' as const, username, passwordFile: join(dir, username) };
  }
});

interface Right {
  user: string;
  resource: string;
  name: string;
  pattern: string;
  operation: string;
  /** First word of the last column. */
  when: string;
}

/** One per operation of the table. */
function documented(): Right[] {
  const text = readFileSync(new URL('../../../docs/events.md', import.meta.url), 'utf8');
  const rows = text.split('\n').filter((line) => /^\| (auth|reads) /.test(line));
  return rows.flatMap((row) => {
    const [user = '', resource = '', name = '', pattern = '', operations = '', when = ''] = row
      .split('|')
      .slice(1)
      .map((cell) => cell.trim());
    const common = { user, resource, name: name.replaceAll('`', '').replace('PREFIX', 'acl'), pattern };
    return operations.split(', ').map((operation) => ({
      ...{ ...common, operation, when: /^\w+/.exec(when)?.[0] ?? '' },
    }));
  });
}

function aclOf(right: Right) {
  const { kind, ...acl } = filterOf(right);
  return { ...acl, ...kind };
}

/** In the numbers of Kafka's protocol (KIP-140). */
function filterOf({ user, resource, name, pattern, operation }: Right) {
  return {
    ...{ resourceName: name, principal: `User:${user}`, host: '*' },
    kind: {
      resourceType: numberOf(RESOURCES, resource),
      resourcePatternType: numberOf(PATTERNS, pattern),
      operation: numberOf(OPERATIONS, operation),
      permissionType: ALLOW,
    },
  };
}

function numberOf(names: Record<string, number>, name: string): number {
  const value = names[name];
  assert.ok(value !== undefined, `docs/events.md names "${name}", which Kafka does not know`);
  return value;
}

let written = 0;
const RESOURCES = { Topic: 2, Group: 3, TransactionalId: 5 };
const PATTERNS = { literal: 3, prefixed: 4 };
const OPERATIONS = { Read: 3, Write: 4, Create: 5, Delete: 6, Describe: 8, DescribeConfigs: 10 };
const ALLOW = 3;
const PROPERTIES = [
  'authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer',
  // Who comes by the plain listener: brokers among each other, and who gives the rights here.
  'super.users=User:ANONYMOUS',
  'sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256',
  ...['512', '256'].map(
    (bits) =>
      `listener.name.secure.scram-sha-${bits}.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;`,
  ),
  '',
].join('\n');
const PATIENCE_MS = 180_000;
