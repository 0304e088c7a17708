/**
 * A process that does with sessions what nodes do, as fast as it can: it claims new ones and those of others, parks, ends,
 * asks again after an answer got lost, asserts in a new reign. It may be killed at any moment. Told by its parent which
 * tokens there are; tells it what each claim was answered.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';
import {
  defaultRedisSettings,
  hashToken,
  newToken,
  Redis,
  RedisNodes,
  RedisSessions,
  StoreUnavailable,
  type ClaimRequest,
  type Session,
} from '@sallyport/cluster';
import { sampleClaim, sampleLogin } from '@sallyport/cluster/testing';
import { Random } from '../model/simulation.ts';
import type { Answer } from './history.ts';
import { pause } from './probe.ts';

const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '' },
    name: { type: 'string', default: '' },
    number: { type: 'string', default: '1' },
    seed: { type: 'string', default: '1' },
    target: { type: 'string', default: '100' },
    ipv4: { type: 'string', default: '' },
    ipv6: { type: 'string', default: '' },
  },
});

/** Calls at a time. */
const LANES = 6;
const USERS = 400;

const node = { name: values.name, incarnation: randomBytes(8).toString('hex') };
const grant = { ipv4Pools: [values.ipv4], ipv6Pools: [values.ipv6], ipv6SubnetPrefix: 64 };
const settings = defaultRedisSettings({ url: `redis://127.0.0.1:${values.port}` });
const redis = await untilDone(() => Redis.open(settings));
const sessions = new RedisSessions({ redis, pollMillis: 200 });
const nodes = new RedisNodes(redis);
const random = new Random(Number(values.seed));
const held = new Map<string, Session>();
let tokens: string[] = [];
let answers: Answer[] = [];
let paused = false;
let busy = 0;

/** Until the store answers: what it was asked for may have been done, and may be asked again. */
async function untilDone<T>(work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof StoreUnavailable)) throw error;
      await pause(20);
    }
  }
}

async function claim(request: ClaimRequest): Promise<void> {
  const claimed = await untilDone(() => sessions.claim(request));
  if (!claimed.ok) return;
  const { session, lease, addresses } = claimed;
  answers.push({ sessionId: session.id, epoch: String(lease.epoch), addresses });
  held.set(session.id, session);
}

async function start(): Promise<void> {
  const login = sampleLogin(hashToken(newToken()), `user${random.below(USERS)}`, grant);
  try {
    await sessions.create(login);
  } catch (error) {
    if (!(error instanceof StoreUnavailable)) throw error;
    return; // whether it is there or not: it has no address
  }
  await claim(requestOf(login.tokenHash));
}

function requestOf(tokenHash: string): ClaimRequest {
  return sampleClaim(tokenHash, randomUUID(), { node });
}

async function leave(how: 'park' | 'end' | 'logout'): Promise<void> {
  const ids = [...held.keys()];
  const session = held.get(ids[random.below(Math.max(1, ids.length))] ?? '');
  if (session?.lease === undefined) return;
  const { id, lease } = session;
  held.delete(id);
  const usage = { rxBytes: 1n, txBytes: 1n, activeAt: lease.epoch };
  if (how === 'park') await untilDone(() => sessions.park(id, lease, 'connection-lost', usage));
  if (how === 'end') await untilDone(() => sessions.endByNode(id, lease, 'user-disconnect', usage));
  if (how === 'logout') await untilDone(() => sessions.end(id, 'logout'));
}

async function act(): Promise<void> {
  const dice = random.below(100);
  if (held.size > Number(values.target) && dice < 50) return leave('end');
  const token = tokens.pop();
  if (dice < 25 && token !== undefined) return claim(requestOf(token));
  if (dice < 30 && token !== undefined) {
    // The answer of the first got lost, for what the client knows.
    const request = requestOf(token);
    await claim(request);
    return claim(request);
  }
  if (dice < 65) return start();
  if (dice < 75) return leave('park');
  return leave(dice < 95 ? 'end' : 'logout');
}

async function lane(): Promise<void> {
  for (;;) {
    if (paused) await pause(20);
    else {
      busy++;
      await act().finally(() => busy--);
    }
  }
}

async function assertHeld(): Promise<void> {
  const before = [...held.values()];
  const verdicts = await untilDone(() => sessions.assert(node, before));
  for (const verdict of verdicts) if (!verdict.kept) held.delete(verdict.sessionId);
}

async function beat(): Promise<void> {
  const report = { ...node, number: Number(values.number), address: '', version: '1', tunnels: held.size };
  for (;;) {
    await nodes.heartbeat({ ...report, unready: false }, BigInt(Date.now()) * 1000n).catch(() => undefined);
    await pause(500);
  }
}

process.on('message', (message) => {
  if (message === 'pause') paused = true;
  else if (message === 'go') paused = false;
  else if (Array.isArray(message)) tokens = message.map(String);
});
process.on('disconnect', () => process.exit(0));
setInterval(() => {
  process.send?.({ answers, idle: paused && busy === 0 });
  answers = [];
}, 50);
sessions.notices(node, (notices) => {
  for (const { sessionId, upToEpoch } of notices) {
    const lease = held.get(sessionId)?.lease;
    if (lease !== undefined && lease.epoch <= upToEpoch) held.delete(sessionId);
  }
});
sessions.onNewReign(() => void assertHeld());
void beat();
await untilDone(() => sessions.announce(node));
await assertHeld();
await Promise.all(Array.from({ length: LANES }, lane));
