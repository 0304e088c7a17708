import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { ATTEMPT_MILLIS } from './deadline.ts';
import { freePort, RedisServer, until } from './redis-server.fake.ts';
import { defaultRedisSettings, type RedisSettings } from './redis-settings.ts';
import { Redis, RedisProblem, type RedisOptionsOfOurs } from './redis.ts';
import { sampleClaim, sampleLogin } from './session.fake.ts';
import { StoreUnavailable } from './sessions.ts';
import { RedisSessions } from './sessions.redis.ts';
import { hashToken, newToken } from './tokens.ts';

describe('the connection to Redis', () => {
  let server: RedisServer;
  let folder: string;
  const opened: Redis[] = [];
  let clusters = 0;

  before(async () => {
    server = await RedisServer.start();
    folder = await mkdtemp(join(tmpdir(), 'sallyport-redis-test-'));
  });
  after(async () => {
    await Promise.all(opened.map((redis) => redis.close()));
    await server.stop();
    await rm(folder, { recursive: true });
  });

  const open = async (options: RedisOptionsOfOurs = {}, settings: Partial<RedisSettings> = {}) => {
    const cluster = `redis-${clusters++}`;
    const redis = await Redis.open(
      { ...server.settings, cluster, ...settings },
      { windowMicros: 0n, ...options },
    );
    opened.push(redis);
    return { redis, sessions: new RedisSessions({ redis, pollMillis: 20 }) };
  };
  const problem = (settings: RedisSettings, expected: RegExp) =>
    assert.rejects(Redis.open(settings, { openMillis: 60_000 }), (error) => {
      assert.ok(error instanceof RedisProblem, String(error));
      assert.match(error.message, expected);
      assert.doesNotMatch(error.message, /\n|swordfish/);
      return true;
    });
  const login = () => sampleLogin(hashToken(newToken()));

  it('goes on when the server has lost its scripts', async () => {
    const { sessions } = await open();
    await sessions.create(login());
    await server.cli('SCRIPT', 'FLUSH');
    await sessions.create(login());
    assert.equal((await sessions.list()).length, 2);
  });

  it('keeps two clusters on one Redis apart', async () => {
    const a = await open();
    const b = await open();
    const session = await a.sessions.create(login());
    assert.equal(await b.sessions.find(session.tokenHash), undefined);
    assert.deepEqual(await b.sessions.list(), []);
    const refused = await b.sessions.claim(sampleClaim(session.tokenHash, 'c1'));
    assert.deepEqual(refused, { ok: false, reason: 'token-unknown' });
  });

  it('refuses keys of a newer release with a reason, and reads those of an older one', async () => {
    const { redis, sessions } = await open();
    const session = await sessions.create(login());
    await redis.call('HSET', `${redis.prefix}meta`, 'v', '2');
    await assert.rejects(sessions.find(session.tokenHash), {
      name: 'NewerVersion',
      message: /version 2.*newer program/,
    });
    await redis.call('HDEL', `${redis.prefix}meta`, 'v');
    assert.equal((await sessions.find(session.tokenHash))?.id, session.id);
    const key = `${redis.prefix}s:${session.id}`;
    // Its first byte is the version.
    await redis.call('SETRANGE', key, 0, '\u0002');
    await assert.rejects(sessions.claim(sampleClaim(session.tokenHash, 'c1')), { name: 'NewerVersion' });
  });

  it('says store-unavailable when a script got no answer, and the repeated claim gives the one lease', async () => {
    const { redis, sessions } = await open({}, { cluster: 'unanswered' });
    const { sessions: hasty } = await open({ deadlineMillis: 1500 }, { cluster: 'unanswered' });
    const session = await sessions.create(login());
    server.pause();
    const claims = [
      hasty.claim(sampleClaim(session.tokenHash, 'c1')),
      hasty.end(session.id.replace(/./g, '0'), 'logout'),
    ];
    const outcomes = await Promise.allSettled(claims);
    server.resume();
    for (const outcome of outcomes) {
      assert.ok(outcome.status === 'rejected' && outcome.reason instanceof StoreUnavailable);
    }
    await until(async () => (await sessions.get(session.id))?.state !== undefined);
    const first = await sessions.claim(sampleClaim(session.tokenHash, 'c1'));
    const second = await sessions.claim(sampleClaim(session.tokenHash, 'c1'));
    assert.ok(first.ok && second.ok);
    assert.deepEqual(second.lease, first.lease);
    const events = String(await redis.call('XRANGE', `${redis.prefix}events`, '-', '+'));
    assert.equal(
      events.split('"type":"claimed"').length - 1,
      1,
      'claimed once, whether the lost one was done or not',
    );
  });

  it('says done to a repeated change of one tunnel', async () => {
    const { redis, sessions } = await open();
    const session = await sessions.create(login());
    const run = redis.run.bind(redis);
    // Every answer gets lost once, after it was done.
    redis.run = async (script, args, options) => {
      await run(script, args, options);
      return run(script, args, options);
    };
    const claim = await sessions.claim(sampleClaim(session.tokenHash, 'c1'));
    assert.ok(claim.ok);
    const usage = { rxBytes: 5n, txBytes: 5n, activeAt: 0n };
    assert.equal(await sessions.checkpoint(session.id, claim.lease, usage), true);
    assert.equal(await sessions.park(session.id, claim.lease, 'connection-lost', usage), true);
    assert.equal(await sessions.end(session.id, 'logout'), true);
    assert.equal(await sessions.end(session.id, 'logout'), false);
    assert.equal((await sessions.get(session.id))?.n, 5);
    await sessions.create(login());
    assert.equal((await sessions.list()).length, 1);
  });

  it('never believes a replica: not even in what it does not know', async () => {
    const other = await RedisServer.start();
    const there = { url: other.settings.url, cluster: 'replica' };
    const { sessions } = await open({}, there);
    const { sessions: hasty } = await open({ deadlineMillis: 1500 }, there);
    const session = await sessions.create(login());
    await other.cli('REPLICAOF', '127.0.0.1', String(server.port));
    await assert.rejects(hasty.find('00'), { name: 'StoreUnavailable' });
    await assert.rejects(hasty.end(session.id, 'logout'), { name: 'StoreUnavailable' });
    await other.cli('REPLICAOF', 'NO', 'ONE');
    await until(async () => (await sessions.create(login())) !== undefined);
    await other.stop();
  });

  it('begins no attempt that has hardly any time left: without an answer it would break off all others', async (t) => {
    const other = await RedisServer.start('--replicaof', '127.0.0.1', String(server.port));
    t.after(() => other.stop());
    const begun: number[] = [];
    const seed = () => {
      begun.push(performance.now());
      return 1;
    };
    // A pause of 250 ms would end with 100 ms left.
    const deadlineMillis = 650;
    const { sessions } = await open({ deadlineMillis, seed }, { url: other.settings.url });
    begun.length = 0;
    await assert.rejects(sessions.find('00'), { name: 'StoreUnavailable' });
    const [first = 0] = begun;
    assert.ok(begun.length > 1, 'it was tried again');
    const allowed = first + deadlineMillis - ATTEMPT_MILLIS + SLACK_MILLIS;
    assert.ok((begun.at(-1) ?? Infinity) <= allowed, begun.map((at) => at - first).join());
  });

  it('refuses while Redis is away, says so once, and comes back by itself', async () => {
    const other = await RedisServer.start();
    const states: boolean[] = [];
    const { sessions } = await open(
      { deadlineMillis: 1500, onState: (up) => states.push(up) },
      { url: other.settings.url },
    );
    const session = await sessions.create(login());
    await other.kill();
    await assert.rejects(sessions.find(session.tokenHash), { name: 'StoreUnavailable' });
    await assert.rejects(sessions.claim(sampleClaim(session.tokenHash, 'c1')), { name: 'StoreUnavailable' });
    await other.launch();
    await until(async () => (await sessions.find(session.tokenHash))?.id === session.id);
    await until(async () => (await sessions.claim(sampleClaim(session.tokenHash, 'c1'))).ok);
    assert.deepEqual(states, [true, false, true]);
    await other.stop();
  });

  it('tells in one clear line that the password is wrong, missing or not asked for', async () => {
    const other = await RedisServer.start('--requirepass', 'swordfish');
    const [right, wrong] = [join(folder, 'right'), join(folder, 'wrong')];
    await writeFile(right, 'swordfish\n');
    await writeFile(wrong, 'swordfish2');
    await problem({ ...other.settings, passwordFile: wrong }, /^redis: 127.0.0.1:\d+ refuses the password$/);
    await problem(other.settings, /^redis: 127.0.0.1:\d+ asks for a password: set password-file$/);
    await problem({ ...other.settings, passwordFile: join(folder, 'none') }, /cannot be read/);
    await (await Redis.open({ ...other.settings, passwordFile: right })).close();
    await other.stop();
    await problem(
      { ...server.settings, url: 'redis://:swordfish@127.0.0.1' },
      /password belongs into password-file/,
    );
    await problem({ ...server.settings, cluster: 'a}b' }, /cannot name a cluster/);
    await problem({ ...server.settings, url: 'http://x' }, /must look like/);
  });

  it('tells in one clear line that the certificate is not trusted, and works with the right one', async () => {
    const [cert, key, port] = [join(folder, 'cert.pem'), join(folder, 'key.pem'), await freePort()];
    const subject = ['-subj', '/CN=redis', '-addext', 'subjectAltName=IP:127.0.0.1'];
    const request = [
      'req',
      '-x509',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-days',
      '1',
      '-keyout',
      key,
      '-out',
      cert,
    ];
    await promisify(execFile)('openssl', [...request, ...subject]);
    const tls = [
      '--tls-cert-file',
      cert,
      '--tls-key-file',
      key,
      '--tls-ca-cert-file',
      cert,
      '--tls-auth-clients',
      'no',
    ];
    const other = await RedisServer.start('--tls-port', String(port), ...tls);
    const settings = defaultRedisSettings({ url: `rediss://127.0.0.1:${port}` });
    await problem(settings, /^redis: 127.0.0.1:\d+ fails the TLS handshake: /);
    const trusted = { caFile: cert, certFile: '', keyFile: '', serverName: '' };
    await (await Redis.open({ ...settings, tls: trusted })).close();
    await problem(
      { ...settings, tls: { ...trusted, serverName: 'other.example' } },
      /fails the TLS handshake: /,
    );
    await other.stop();
  });

  it('looks at what the server promises, unless the operator vouches for it', async () => {
    const evicts = await RedisServer.start('--maxmemory', '256mb', '--maxmemory-policy', 'allkeys-lru');
    await problem(evicts.settings, /^redis: maxmemory-policy is allkeys-lru: set it to noeviction/);
    await (await Redis.open({ ...evicts.settings, promises: ['noeviction'] })).close();
    await evicts.cli('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
    const more = { ...evicts.settings, eventsMaxBytes: 64 * 1024 * 1024 + 1 };
    await problem(
      more,
      /^redis: events-max-bytes is 67108865 and maxmemory is 268435456: .* at most a quarter, 67108864,/,
    );
    await evicts.cli('CONFIG', 'SET', 'appendonly', 'no');
    await problem(evicts.settings, /^redis: appendonly is off: /);
    await (await Redis.open({ ...evicts.settings, promises: ['persistence'] })).close();
    await evicts.stop();
    await assert.rejects(Redis.open(evicts.settings, { openMillis: 200 }), {
      name: 'StoreUnavailable',
      message: /cannot be reached/,
    });
  });
});

/** Between the look at the clock and the attempt. */
const SLACK_MILLIS = 50;
