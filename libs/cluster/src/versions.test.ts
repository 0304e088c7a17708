import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { RedisServer } from './redis-server.fake.ts';
import { Redis } from './redis.ts';
import { sampleClaim, sampleLogin } from './session.fake.ts';
import { RedisSessions } from './sessions.redis.ts';
import { hashToken, newToken } from './tokens.ts';

/*
 * A rolling upgrade (H16): processes of this release and of the next one on the same keys. The next one is this one, built
 * anew with a higher version of its keys and records.
 */

describe('this release and the next one on one Redis', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-next-'));
  let server: RedisServer;
  const opened: { close(): Promise<void> }[] = [];

  before(async () => {
    server = await RedisServer.start();
  });
  after(async () => {
    await Promise.all(opened.map((redis) => redis.close()));
    await server.stop();
    rmSync(folder, { recursive: true });
  });

  const release = async (parts: Pick<Release, 'Redis' | 'RedisSessions'>, cluster: string) => {
    const redis = await parts.Redis.open({ ...server.settings, cluster }, { windowMicros: 0n });
    opened.push(redis);
    return { redis, sessions: new parts.RedisSessions({ redis }) };
  };
  const ours = (cluster: string) => release({ Redis, RedisSessions }, cluster);

  it('the next one goes on with our sessions, and they can come back; its own are refused with a reason, the others served', async () => {
    // A cluster of this release: it began the reign.
    const old = await ours('rolling');
    const [moved, kept] = [await old.sessions.create(login()), await old.sessions.create(login())];
    const first = await old.sessions.claim(sampleClaim(moved.tokenHash, 'c1'));
    const next = await release(await built(folder), 'rolling');
    const there = await next.sessions.claim(sampleClaim(moved.tokenHash, 'c2'));
    assert.ok(first.ok && there.ok && there.lease.epoch > first.lease.epoch);
    assert.deepEqual(there.session.addresses, first.session.addresses);

    const back = await old.sessions.claim(sampleClaim(moved.tokenHash, 'c3'));
    assert.ok(back.ok && back.lease.epoch > there.lease.epoch);

    const added = await next.sessions.create(login());
    await assert.rejects(old.sessions.claim(sampleClaim(added.tokenHash, 'c1')), {
      name: 'NewerVersion',
      message: /has version 2, this program reads up to 1: use the newer program$/,
    });
    assert.ok((await old.sessions.claim(sampleClaim(kept.tokenHash, 'c1'))).ok);
    assert.ok((await next.sessions.claim(sampleClaim(kept.tokenHash, 'c2'))).ok);
    assert.equal((await next.sessions.find(moved.tokenHash))?.state, 'up');
  });

  it('keys that are the next one’s are refused with a reason, by each call, and nothing is written', async () => {
    const next = await release(await built(folder), 'newer');
    const session = await next.sessions.create(login());
    const old = await ours('newer');
    const newer = {
      name: 'NewerVersion',
      message: /^Redis: keys has version 2, this program reads up to 1: use the newer program$/,
    };
    await assert.rejects(old.sessions.find(session.tokenHash), newer);
    await assert.rejects(old.sessions.announce({ name: 'n1', incarnation: 'i' }), newer);
    await assert.rejects(old.sessions.claim(sampleClaim(session.tokenHash, 'c1')), newer);
    await assert.rejects(old.sessions.create(login()), newer);
    assert.deepEqual(
      (await next.sessions.list()).map(({ id, state }) => [id, state]),
      [[session.id, 'authed']],
    );
  });
});

interface Release {
  Redis: typeof Redis;
  RedisSessions: typeof RedisSessions;
}

/** This library with a higher version of keys and records. */
async function built(folder: string): Promise<Release> {
  const own = fileURLToPath(new URL('..', import.meta.url));
  for (const part of ['dist', 'lua', 'proto', 'package.json'])
    cpSync(join(own, part), join(folder, part), { recursive: true });
  if (!existsSync(join(folder, 'node_modules')))
    symlinkSync(join(own, '../../node_modules'), join(folder, 'node_modules'));
  edit(join(folder, 'lua', 'header.lua'), 'local VERSION = 1', 'local VERSION = 2');
  edit(join(folder, 'dist', 'session.js'), 'SESSION_VERSION = 1', 'SESSION_VERSION = 2');
  const load = (file: string): Promise<unknown> => import(pathToFileURL(join(folder, 'dist', file)).href);
  const [connection, table] = await Promise.all([load('redis.js'), load('sessions.redis.js')]);
  return { ...(connection as Pick<Release, 'Redis'>), ...(table as Pick<Release, 'RedisSessions'>) };
}

function login() {
  return sampleLogin(hashToken(newToken()));
}

function edit(file: string, from: string, to: string): void {
  const text = readFileSync(file, 'utf8');
  assert.ok(text.includes(from), file);
  writeFileSync(file, text.replace(from, to));
}
