import 'reflect-metadata';
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { createLog, Supervision } from '@sallyport/chassis';
import {
  DEFAULT_GRANT,
  forGrantFields,
  hashToken,
  initAuthority,
  issueCertificate,
  Kafka,
  KAFKA_DEFAULTS,
  newToken,
  Redis,
  RedisSessions,
  replaySessions,
  RESTORE_MICROS,
  StoreUnavailable,
  type KafkaSettings,
  type Session,
} from '@sallyport/cluster';
import { freePort, RedisServer, TestBroker, until } from '@sallyport/cluster/testing';
import type { Origin } from '@sallyport/protocol';
import type { Running } from '../wiring.ts';
import { startAuth } from './auth.ts';
import { openStore } from './store.ts';

/*
 * The role auth as it runs, on a real Redis and a real Kafka. Redis is killed and comes back empty, as a primary without
 * persistence does before Sentinel acts (CLUSTER.md C1).
 */
describe('a primary that comes back empty', { timeout: 600_000 }, () => {
  let folder: string;
  let kafka: Kafka;
  let server: RedisServer;
  let broker: TestBroker;
  let auth: Running;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sallyport-restore-'));
    server = await RedisServer.start();
    broker = await TestBroker.start(join(folder, 'broker'));
    const settings: KafkaSettings = { ...KAFKA_DEFAULTS, brokers: [broker.broker], prefix: 'restore' };
    kafka = new Kafka({ ...settings, partitions: 3, replicationFactor: 1 }, log);
    auth = await startOne();
  });
  after(async () => {
    await auth.close();
    await broker.stop();
    await server.stop();
    await rm(folder, { recursive: true });
  });

  test('the parked sessions are back with address and token, the ended ones stay ended, the topic holds the same', async () => {
    const redis = await Redis.open(server.settings, { restoreMicros: RESTORE_MICROS });
    const sessions = new RedisSessions({ redis });
    try {
      const tokens = await Promise.all(Array.from({ length: 50 }, (_, i) => login(sessions, `user${i}`)));
      const parked: string[] = [];
      const ended: string[] = [];
      const held: Session[] = [];
      const lost: string[] = [];
      const waiting: string[] = [];
      for (const [i, token] of tokens.entries()) {
        if (i % 5 === 4) waiting.push(token);
        else {
          const session = await connect(sessions, token, `c${i}`);
          if (i % 5 === 3) held.push(session);
          else if (i % 5 === 2) lost.push(token);
          else {
            assert.ok(session.lease);
            await sessions.park(session.id, session.lease, 'connection-lost', USAGE);
            parked.push(token);
            if (i % 5 === 1) await sessions.end(session.id, 'logout');
            if (i % 5 === 1) ended.push(token);
          }
        }
      }
      const before = new Map((await sessions.list()).map((session) => [session.tokenHash, session]));
      await until(() => isSame(sessions), PATIENCE_MS);

      await server.kill();
      await rm(join(server.folder, 'appendonlydir'), { recursive: true });
      await server.launch();

      // A node says what it holds; the other one is dead.
      await until(async () => {
        await sessions.counts();
        return (await sessions.assert(NODE, held)).every(({ kept }) => kept);
      }, PATIENCE_MS);
      for (const token of ended) assert.ok(await isUnknownOrWaits(sessions, token));
      await until(async () => (await sessions.counts()).parked === 20, PATIENCE_MS);
      for (const token of [...parked.filter((one) => !ended.includes(one)), ...lost]) {
        const was = before.get(hashToken(token)) ?? assert.fail();
        const now = await connect(sessions, token, `again-${was.id}`);
        assert.deepEqual([now.id, now.addresses], [was.id, was.addresses]);
      }
      for (const token of waiting) assert.equal((await sessions.find(hashToken(token)))?.state, 'authed');
      for (const { id, lease } of held) assert.deepEqual((await sessions.get(id))?.lease, lease);
      await until(async () => !(await waits(sessions)), PATIENCE_MS);
      for (const token of ended) assert.equal(await sessions.find(hashToken(token)), undefined);

      await until(() => isSame(sessions), PATIENCE_MS);
      const table = new Map((await sessions.list()).map((session) => [session.id, session]));
      assert.equal(table.size, 40);
      assert.deepEqual(await topic(), table);
      // Partitions show a transaction one after the other.
      await until(async () => {
        const facts = await replaySessions(kafka, 'facts');
        const { unfit, incomplete, malformed } = facts;
        return (
          isDeepStrictEqual(new Map(facts.sessions.map((one) => [one.id, one])), table) &&
          isDeepStrictEqual([unfit, incomplete, malformed], [0, false, 0])
        );
      }, PATIENCE_MS);
    } finally {
      await sessions.close();
      await redis.close();
    }
  });

  async function topic(): Promise<Map<string, Session>> {
    const { sessions } = await replaySessions(kafka, 'state');
    return new Map(sessions.map((session) => [session.id, session]));
  }

  /** Is the topic as new as the table? */
  async function isSame(sessions: RedisSessions): Promise<boolean> {
    const table = await sessions.list();
    const there = await topic();
    return there.size === table.length && table.every(({ id, n }) => there.get(id)?.n === n);
  }

  async function startOne(): Promise<Running> {
    const pki = join(folder, 'pki');
    await initAuthority(pki, { cluster: 'test' });
    await issueCertificate(pki, { name: 'a1', roles: ['auth'], hosts: [], days: 2 });
    await writeFile(join(folder, 'users'), '', { mode: 0o600 });
    const stateDir = join(folder, 'state');
    await mkdir(stateDir, { mode: 0o700 });
    const config = join(folder, 'auth.yaml');
    await writeFile(
      config,
      `ipv4-network: 10.90.0.0/24
return-path: nat
users-file: users
admin-address: "127.0.0.1:${await freePort()}"
log-level: error
redis: { url: "redis://127.0.0.1:${server.port}" }
kafka: { brokers: ["${broker.broker}"], prefix: restore, partitions: 3, replication-factor: 1 }
pki: { ca: pki/ca.pem, cert: pki/a1.pem, key: pki/a1.key }
listen: { auth: "127.0.0.1:${await freePort()}" }
`,
    );
    return startAuth({ config, stateDir, supervision: Supervision.take({}, process.pid), openStore });
  }
});

async function login(sessions: RedisSessions, user: string): Promise<string> {
  const token = newToken();
  const grant = {
    ...DEFAULT_GRANT,
    group: 'staff',
    ipv4Pools: ['10.90.0.0/24'],
    disconnectedTimeoutSeconds: 3600,
  };
  await sessions.create({
    ...{
      tokenHash: hashToken(token),
      user,
      profile: 'staff',
      client: CLIENT,
      strapKey: randomBytes(8).toString('base64'),
    },
    ...{ grant, origins: forGrantFields((): Origin => ({ scope: 'default', name: '' })) },
  });
  return token;
}

/** As a node does, again and again while the store asks for patience. */
async function connect(sessions: RedisSessions, token: string, connectionId: string): Promise<Session> {
  for (const end = Date.now() + PATIENCE_MS; ;) {
    try {
      const claimed = await sessions.claim({
        ...{ tokenHash: hashToken(token), node: NODE, connectionId, wantIpv4: true, wantIpv6: false },
        ...{ client: CLIENT, strapKey: '', mtuBytes: 1400, seenEpoch: 0n },
      });
      assert.ok(claimed.ok, claimed.ok ? '' : claimed.reason);
      return claimed.session;
    } catch (error) {
      if (!(error instanceof StoreUnavailable) || Date.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

async function isUnknownOrWaits(sessions: RedisSessions, token: string): Promise<boolean> {
  try {
    return (await sessions.find(hashToken(token))) === undefined;
  } catch (error) {
    return error instanceof StoreUnavailable;
  }
}

/** Is a token that nobody knows answered by "later"? */
async function waits(sessions: RedisSessions): Promise<boolean> {
  return sessions.find(hashToken('nobody')).then(
    () => false,
    () => true,
  );
}

const log = createLog({ name: 'test', level: 'silent' });
const NODE = { name: 'n1', incarnation: 'first' };
const CLIENT = { address: '192.0.2.1', userAgent: 'AnyConnect', platform: 'linux', hostname: 'laptop' };
const USAGE = { rxBytes: 5n, txBytes: 6n, activeAt: 0n };
/** A machine with other work starts a broker's groups slowly. */
const PATIENCE_MS = 180_000;
