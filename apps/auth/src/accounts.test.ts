import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { after, before, describe, it, type TestContext } from 'node:test';
import { createLog, Metrics } from '@sallyport/chassis';
import { MemoryEventLog, Redis, RedisAccountRecords, StoreUnavailable } from '@sallyport/cluster';
import { RedisServer } from '@sallyport/cluster/testing';
import { accountsContract } from './accounts.contract.ts';
import { openAuth } from './auth.module.ts';
import { line, PASSWORD } from './auth.fake.ts';
import { fileReplicas, logIn, redisReplicas, until, type Replicas } from './replicas.fake.ts';

let server: RedisServer;
let clusters = 0;

before(async () => {
  server = await RedisServer.start();
});
after(() => server.stop());

accountsContract('in the file', fileReplicas);
accountsContract('in Redis over the file', (users) => redisReplicas(users, place()));

describe('users in Redis', () => {
  it('a login that was proven before a lock elsewhere is refused, without waiting to hear of it', async (t) => {
    const replicas = await started(t);
    const [one, other] = [await replicas.open(), await replicas.open()];
    const create = other.sessions.create.bind(other.sessions);
    other.sessions.create = async (input) => {
      await one.accounts.apply({ verb: 'lock', name: 'alice' });
      return create(input);
    };
    await assert.rejects(logIn(other, 'alice'), /login-failed/);
    assert.deepEqual(await one.sessions.list(), []);
  });

  it('who logs in with a new password keeps his session when other replicas hear of the change', async (t) => {
    const replicas = await started(t);
    const [one, other] = [await replicas.open(), await replicas.open()];
    const old = await logIn(one, 'alice');
    let goOn: () => void = () => undefined;
    let ended = 0;
    const endOfUser = other.sessions.endOfUser.bind(other.sessions);
    other.sessions.endOfUser = async (...args) => {
      await new Promise<void>((go) => (goOn = go));
      const count = await endOfUser(...args);
      ended++;
      return count;
    };
    await one.accounts.apply({ verb: 'passwd', name: 'alice', password: 'another' });
    const { sessionId } = await logIn(one, 'alice', 'another');
    await until('the other has heard, and ends what is older', () => {
      goOn();
      return ended > 0;
    });
    assert.equal((await one.sessions.get(old.sessionId))?.endReason, 'password-changed');
    assert.equal((await one.sessions.get(sessionId))?.state, 'authed');
  });

  it('a record wins over the file; what no record speaks of, the file says', async (t) => {
    const replicas = await started(t);
    const one = await replicas.open();
    await one.accounts.apply({ verb: 'lock', name: 'alice' });
    await one.accounts.apply({ verb: 'delete', name: 'bob' });
    const edited = [line('alice', 'ops', { password: 'by hand' }), line('bob', '*'), line('carol', '*')];
    await writeFile(replicas.usersFile, (await Promise.all(edited)).join(''));
    await one.directory.reload();
    const alice = one.directory.find('alice');
    assert.deepEqual([alice?.locked, alice?.groups], [true, ['ops']]);
    assert.equal(one.directory.find('bob'), undefined);
    await logIn(one, 'carol');
    await one.accounts.apply({ verb: 'unlock', name: 'alice' });
    await logIn(one, 'alice', 'by hand');
  });

  it('sessions of before a change end though every auth was gone when it was made', async (t) => {
    const replicas = await started(t);
    const one = await replicas.open();
    const [old, gone] = [await logIn(one, 'alice'), await logIn(one, 'bob')];
    await one.close();
    const redis = await Redis.open(replicas.where);
    t.after(() => redis.close());
    const records = new RedisAccountRecords(redis);
    await records.change({ verb: 'passwd', name: 'alice', hash: '$5$x$y' }, true);
    await records.change({ verb: 'lock', name: 'bob' }, true);
    const again = await replicas.open();
    assert.equal((await again.sessions.get(old.sessionId))?.endReason, 'password-changed');
    assert.equal((await again.sessions.get(gone.sessionId))?.endReason, 'user-locked');
  });

  it('works without a users-file, too', async (t) => {
    const replicas = await started(t, { usersFile: '' });
    const [one, other] = [await replicas.open(), await replicas.open()];
    await one.accounts.apply({ verb: 'add', name: 'carol', groups: [], password: PASSWORD });
    await until('the other knows', () => other.directory.find('carol') !== undefined);
    await logIn(other, 'carol');
  });

  it('tells in the stream who was changed, and nothing of passwords', async (t) => {
    const replicas = await started(t);
    const one = await replicas.open();
    await one.accounts.apply({ verb: 'add', name: 'carol', groups: [], password: 'canary-password' });
    await one.accounts.apply({ verb: 'passwd', name: 'alice', password: 'canary-password' });
    const stream = await server.cli('XRANGE', `{${replicas.where.cluster}}:events`, '-', '+');
    assert.match(stream, /"verb":"user-add","subject":"carol"/);
    assert.match(stream, /"verb":"user-passwd","subject":"alice"/);
    assert.ok(!/canary|argon2|\$5\$/.test(stream), stream);
  });

  it('with Redis away nobody is let in or changed, and no auth starts; then all is as before', async (t) => {
    const own = await RedisServer.start();
    t.after(() => own.stop());
    const replicas = await started(t, {}, own);
    const [one, other] = [await replicas.open(), await replicas.open()];
    await one.accounts.apply({ verb: 'lock', name: 'bob' });
    await other.directory.refresh();
    await own.kill();
    await assert.rejects(logIn(one, 'alice'), StoreUnavailable);
    await assert.rejects(
      Promise.resolve(one.accounts.apply({ verb: 'lock', name: 'alice' })),
      StoreUnavailable,
    );
    const away = () => Promise.reject(new StoreUnavailable('away'));
    await assert.rejects(
      openAuth({
        ...{ settings: () => replicas.settings, sessions: one.sessions, events: new MemoryEventLog() },
        ...{ records: { follow: () => () => undefined, refresh: away, change: away } },
        ...{ metrics: new Metrics(), log: createLog({ name: 'auth', level: 'silent' }) },
      }),
      StoreUnavailable,
    );
    assert.equal(one.directory.find('alice')?.locked, false);
    await own.launch();
    await until('a login', () =>
      logIn(other, 'alice').then(
        () => true,
        () => false,
      ),
    );
    await assert.rejects(logIn(one, 'bob'), /login-failed|Login failed/);
  });

  it('a Redis that comes back empty does not let a locked user in', async (t) => {
    const own = await RedisServer.start();
    t.after(() => own.stop());
    const replicas = await started(t, {}, own);
    const one = await replicas.open();
    await one.accounts.apply({ verb: 'lock', name: 'bob' });
    await own.cli('FLUSHALL');
    await one.directory.refresh();
    const late = await replicas.open();
    assert.equal(late.directory.find('bob')?.locked, true);
    await assert.rejects(logIn(late, 'bob'), /Login failed/);
  });
});

async function started(t: TestContext, change: object = {}, redis: RedisServer = server) {
  const where = place(redis);
  const users = (await line('alice', 'staff')) + (await line('bob', '*'));
  const replicas: Replicas = await redisReplicas(users, where, change);
  t.after(() => replicas.close());
  return { ...replicas, where };
}

function place(redis: RedisServer = server) {
  return { ...redis.settings, cluster: `users-${clusters++}` };
}
