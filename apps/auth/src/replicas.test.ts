/** Two auths and two nodes on one Redis: limits hold whatever races, and an end is heard everywhere. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { after, before, describe, it, type TestContext } from 'node:test';
import {
  hashToken,
  Redis,
  StoreUnavailable,
  type Claimed,
  type Notice,
  type Refused,
} from '@sallyport/cluster';
import { RedisServer } from '@sallyport/cluster/testing';
import type { Grant } from '@sallyport/protocol';
import { begin, formOf, line, PASSWORD, reply } from './auth.fake.ts';
import { logIn, redisReplicas, until, type Replica } from './replicas.fake.ts';

let server: RedisServer;
let clusters = 0;

before(async () => {
  server = await RedisServer.start();
});
after(() => server.stop());

describe('simultaneous logins of one user over two auths and two nodes', () => {
  for (const onLimit of ['refuse', 'replace-oldest'] as const) {
    it(`${onLimit}: fifty that race never have more tunnels than the limit`, async (t) => {
      const { replicas, redis } = await started(t, { maxSameClients: LIMIT, onLimit });
      const racing = Array.from({ length: RACING }, async (_, at) => {
        const replica = replicas[at % 2 === 0 ? 0 : 1];
        const { token } = await logIn(replica, 'alice');
        return connect(replica, token, NODES[at % 3 === 0 ? 0 : 1]);
      });
      const claims = await Promise.all(racing);
      const refused = claims.filter((claim): claim is Refused => !claim.ok);
      assert.equal(refused.length, onLimit === 'refuse' ? RACING - LIMIT : 0);
      assert.ok(refused.every(({ reason }) => reason === 'max-same-clients'));
      const tunnels = await tunnelsOverTime(redis);
      assert.equal(Math.max(...tunnels), LIMIT);
      assert.equal((await replicas[0].sessions.counts()).up, LIMIT);
    });
  }

  it('a device that lost its connection locks no other one out, and comes back where there is room', async (t) => {
    const { replicas } = await started(t, { maxSameClients: 1, onLimit: 'refuse' });
    const [one, other] = replicas;
    const { token: lost } = await logIn(one, 'alice');
    const claim = await connect(one, lost, NODES[0]);
    assert.ok(claim.ok);
    const usage = { rxBytes: 0n, txBytes: 0n, activeAt: 0n };
    await one.sessions.park(claim.session.id, claim.lease, 'connection-lost', usage);

    const { token: device } = await logIn(other, 'alice');
    const taken = await connect(other, device, NODES[1]);
    assert.ok(taken.ok);
    assert.deepEqual(await connect(one, lost, NODES[0]), { ok: false, reason: 'max-same-clients' });
    await other.sessions.end(taken.session.id, 'logout');
    assert.equal((await connect(one, lost, NODES[1])).ok, true);
  });
});

describe('what ends sessions', () => {
  it('is heard by every node within about a second', async (t) => {
    const { replicas } = await started(t, { maxSameClients: 0 });
    const [one, other] = replicas;
    const heard: Notice[] = [];
    for (const [at, node] of NODES.entries())
      t.after(replicas[at === 0 ? 0 : 1].sessions.notices(node, (notices) => heard.push(...notices)));
    let password = PASSWORD;
    const ends: readonly (readonly [string, (tokens: string[]) => Promise<unknown> | void])[] = [
      ['terminate', () => one.sessions.endOfUser('alice', 'terminated')],
      ['logout', (tokens) => Promise.all(tokens.map((token) => other.auth.logout({ token })))],
      ['lock', () => one.accounts.apply({ verb: 'lock', name: 'alice' })],
      [
        'password change',
        () => one.accounts.apply({ verb: 'passwd', name: 'alice', password: (password = 'another') }),
      ],
      ['delete', () => one.accounts.apply({ verb: 'delete', name: 'alice' })],
    ];
    for (const [what, end] of ends) {
      await other.accounts.apply({ verb: 'unlock', name: 'alice' });
      await one.directory.refresh();
      const tokens: string[] = [];
      const up = await Promise.all(
        NODES.map(async (node, at) => {
          const { token } = await logIn(replicas[at === 0 ? 0 : 1], 'alice', password);
          tokens.push(token);
          const claim = await connect(one, token, node);
          return claim.ok ? claim.session.id : assert.fail(claim.reason);
        }),
      );
      const since = performance.now();
      await end(tokens);
      const told = performance.now();
      await until(`both nodes hear of ${what}`, () =>
        up.every((id) => heard.some((notice) => notice.sessionId === id)),
      );
      const millis = (from: number) => `${Math.round(performance.now() - from)} ms`;
      t.diagnostic(
        `${what}: both nodes heard ${millis(told)} after the answer, ${millis(since)} after the order`,
      );
      for (const token of tokens)
        assert.equal(
          (await connect(other, token, NODES[1])).ok,
          false,
          `${what}: the cookie is no good any more`,
        );
    }
    const again = await other.auth.reply(
      reply(formOf(await other.auth.begin(begin())), { username: 'alice', password }),
    );
    assert.equal(again.granted, undefined);
  });
});

describe('failed logins', () => {
  it('at both replicas count for the user and his address; metrics name neither', async (t) => {
    const { replicas } = await started(t, {});
    for (let at = 0; at < 40; at++)
      await logIn(replicas[at % 2 === 0 ? 0 : 1], 'alice', 'wrong').catch(() => undefined);
    const [one] = replicas;
    await until('all are counted', async () => (await one.failures.read('alice', '192.0.2.7')).user === 40);
    assert.equal((await one.failures.read('alice', '192.0.2.7')).address, 40);
    await until('metrics say so', async () => failuresIn(await metricsOf(replicas)) === 80);
    const text = await metricsOf(replicas);
    assert.match(text, /sallyport_auth_failures_total\{of="user",number="many"\} 1\n/);
    assert.ok(!/alice|192\.0\.2/.test(text));
  });

  it('are answered though the store does not take the count', async (t) => {
    const { replicas } = await started(t, {});
    const [one] = replicas;
    let fail: (error: Error) => void = () => assert.fail('nothing was counted');
    one.failures.add = () => new Promise((_, reject) => (fail = reject));
    await assert.rejects(logIn(one, 'alice', 'wrong'), /Login failed/);
    assert.match(
      await one.metrics.text(),
      /sallyport_auth_failures_uncounted_total 0\n/,
      'it was not waited for',
    );
    fail(new StoreUnavailable('away'));
    await until('it is told', async () => /failures_uncounted_total 1\n/.test(await one.metrics.text()));
  });
});

/** How many sessions had a tunnel after each event: the stream has every change, in order. */
async function tunnelsOverTime(redis: Redis): Promise<number[]> {
  const up = new Set<string>();
  const counts: number[] = [];
  const entries = await redis.call('XRANGE', `${redis.prefix}events`, '-', '+');
  assert.ok(Array.isArray(entries));
  for (const entry of entries) {
    const text = JSON.stringify(entry);
    const [, id = '', type = ''] = /"k","(\w*)","t","([\w.]+)"/.exec(text) ?? [];
    if (type === 'claimed') up.add(id);
    if (type === 'ended' || type === 'parked') up.delete(id);
    counts.push(up.size);
  }
  return counts;
}

function connect(
  { sessions }: Replica,
  token: string,
  node: { name: string; incarnation: string },
): Promise<Claimed | Refused> {
  return sessions.claim({
    ...{ tokenHash: hashToken(token), node, connectionId: randomUUID(), wantIpv4: true, wantIpv6: false },
    ...{ client: { address: '192.0.2.7', userAgent: '', platform: '', hostname: '' }, strapKey: '' },
    ...{ mtuBytes: 1400, seenEpoch: 0n },
  });
}

async function metricsOf(replicas: readonly Replica[]): Promise<string> {
  return (await Promise.all(replicas.map(({ metrics }) => metrics.text()))).join('\n');
}

function failuresIn(text: string): number {
  const samples = text.matchAll(/^sallyport_auth_failures_total\{[^}]*\} (\d+)$/gm);
  return [...samples].reduce((sum, [, value]) => sum + Number(value), 0);
}

async function started(t: TestContext, policy: Partial<Grant>) {
  const where = { ...server.settings, cluster: `replicas-${clusters++}` };
  const change = { policy: { ipv4Pools: ['10.9.0.0/24'], ...policy } };
  const opened = await redisReplicas(await line('alice', '*'), where, change);
  t.after(() => opened.close());
  const redis = await Redis.open(where);
  t.after(() => redis.close());
  return { replicas: [await opened.open(), await opened.open()] as const, redis };
}

const LIMIT = 3;
const RACING = 50;
const NODES = [
  { name: 'n1', incarnation: 'a' },
  { name: 'n2', incarnation: 'b' },
] as const;
