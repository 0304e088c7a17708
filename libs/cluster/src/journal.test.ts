import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import {
  copyFile,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { setImmediate } from 'node:timers/promises';
import { ALIVE_EVERY_MICROS, BATCH_LIMIT, WAITING_LIMIT } from './commits.ts';
import { MemoryEventLog } from './events.memory.ts';
import type { Fact } from './events.ts';
import type { JournalFile, JournalOptions } from './journal.ts';
import { createJournalFile, Journal, JOURNAL_FILE, JOURNAL_GROWTH, LINE_LIMIT_BYTES } from './journal.ts';
import { encodeAlive } from './journal-lines.ts';
import { LOCK_TOUCH_MS } from './journal-lock.ts';
import { seeded } from './sessions.contract.ts';
import { sampleClaim, sampleLogin, TestClock } from './session.fake.ts';
import { seconds } from './session-decisions.ts';
import type { Session } from './session.ts';
import type { Claimed } from './sessions.ts';
import { MemorySessions } from './sessions.memory.ts';
import { hashToken, newToken } from './tokens.ts';

const folders: string[] = [];
after(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true, force: true }))));

describe('replay', () => {
  it('gives the same table as before, over a random history and rewrites in between', async () => {
    const { clock, sessions, folder } = await store({ rewriteAboveBytes: 30_000 });
    const tokens = await live(sessions, clock, 500);
    const before = await everything(sessions, tokens);
    assert.deepEqual(
      new Set(before.map((session) => session?.state)),
      new Set(['authed', 'up', 'parked', 'closed', undefined]),
    );
    const crashed = await storeOn(await copyOf(folder), clock);
    assert.deepEqual(await everything(crashed.sessions, tokens), before);
    assert.deepEqual(await poolsOf(crashed.sessions), await poolsOf(sessions));
    const shortest = await storeOn(await copyOf(crashed.folder), clock);
    assert.deepEqual(await everything(shortest.sessions, tokens), before);
    await Promise.all([sessions.close(), crashed.sessions.close(), shortest.sessions.close()]);
  });

  it('shares equal grants between sessions, before and after', async () => {
    const { clock, sessions, folder } = await store();
    await Promise.all(['a', 'b'].map((user) => sessions.create(sampleLogin(hashToken(user), user))));
    const [a, b] = await sessions.list();
    assert.ok(a !== undefined && a.grant === b?.grant && a.origins === b.origins);
    const again = await storeOn(await copyOf(folder), clock);
    const [c, d] = await again.sessions.list();
    assert.ok(c !== undefined && c.grant === d?.grant && c.origins === d.origins);
    await Promise.all([sessions.close(), again.sessions.close()]);
  });

  it('remembers whose address rests', async () => {
    const first = await store();
    const claim = await up(first.sessions, await login(first.sessions, 'bob'));
    await first.sessions.end(claim.session.id, 'logout');
    first.clock.pass(100_000);
    await first.sessions.sweep();
    assert.equal(await first.sessions.get(claim.session.id), undefined);
    await first.sessions.close();
    const second = await storeOn(first.folder, first.clock);
    assert.deepEqual(
      (await up(second.sessions, await login(second.sessions, 'bob'))).addresses,
      claim.addresses,
    );
    await second.sessions.close();
  });

  it('parks what was up, and lets no lifetime run while the store was away', async () => {
    const { clock, sessions, folder } = await store();
    const parked = await up(sessions, await login(sessions, 'parked'));
    const wasUp = await up(sessions, await login(sessions, 'up'));
    clock.pass(100);
    await sessions.park(parked.session.id, parked.lease, 'connection-lost', none);
    clock.pass(1700);
    await sessions.sweep();
    const copy = await copyOf(folder);
    clock.pass(4000);
    const log = new MemoryEventLog();
    const again = await storeOn(copy, clock, log);
    assert.equal(await again.sessions.sweep(), 0);
    assert.equal(await again.sessions.announce({ name: 'n1', incarnation: 'i2' }), 1);
    const returned = await again.sessions.get(wasUp.session.id);
    assert.deepEqual([returned?.state, returned?.parkedAt], ['parked', clock.now]);
    assert.equal(
      clock.now - (returned?.activeAt ?? 0n),
      1_800_000_000n,
      'neither idle while the store was away',
    );
    assert.deepEqual(
      log.recent(9).map((fact: Fact) => fact.type),
      ['parked', 'parked'],
    );
    clock.pass(99);
    assert.equal(await again.sessions.sweep(), 0);
    clock.pass(1);
    assert.equal(await again.sessions.sweep(), 1);
    assert.equal((await again.sessions.get(parked.session.id))?.endReason, 'disconnected-timeout');
    await Promise.all([sessions.close(), again.sessions.close()]);
  });

  it('starts again however the clock was set, and the lifetime of a parked session does not jump', async () => {
    const [boot, today, hour] = [60, 1_800_000_000, 3600];
    for (const starts of [
      [boot, today],
      [today, boot, today + hour],
      [today, today - hour, today],
      [today, today + hour, today],
    ]) {
      const [first = 0, ...later] = starts;
      const folder = await newFolder();
      let clock = new TestClock(seconds(first));
      let { sessions } = await storeOn(folder, clock);
      const grant = { sessionTimeoutSeconds: 0 };
      const session = await sessions.create(sampleLogin(hashToken(newToken()), 'bob', grant));
      const { lease } = await up(sessions, session);
      await sessions.park(session.id, lease, 'connection-lost', { ...none, activeAt: clock.now });
      clock.pass(300);
      await sessions.sweep();
      for (const start of later) {
        await sessions.close();
        clock = new TestClock(seconds(start));
        ({ sessions } = await storeOn(folder, clock));
        const found = await sessions.get(session.id);
        assert.ok(found !== undefined && found.parkedAt <= clock.now && found.activeAt <= clock.now);
      }
      clock.pass(1499);
      assert.equal(await sessions.sweep(), 0, starts.join());
      clock.pass(301);
      assert.equal(await sessions.sweep(), 1, starts.join());
      await sessions.close();
    }
  });

  it('marks the time in a quiet journal, no more often than it says', async () => {
    const { clock, sessions, journal } = await store();
    await sessions.sweep();
    const size = journal.bytes;
    for (let i = 0; i < 9; i++) {
      clock.pass(1);
      await sessions.sweep();
    }
    assert.equal(journal.bytes, size);
    clock.pass(1);
    await sessions.sweep();
    assert.equal(journal.bytes, size + encodeAlive(clock.now).length + 1);
    assert.equal(ALIVE_EVERY_MICROS, 10_000_000n);
    await sessions.close();
  });
});

describe('a damaged journal', () => {
  it('is read at every point where it can be cut off, with all complete lines', async () => {
    const { text } = await sample();
    const { journal, path } = await bare();
    const bytes = Buffer.from(text);
    await writeFile(path, bytes);
    for (let length = bytes.length; length >= 0; length--) {
      await truncate(path, length);
      let entries = 0;
      await journal.replay(() => entries++);
      const complete = bytes.subarray(0, length).toString().split('\n').length - 1;
      const lost = length > 0 && bytes[length - 1] !== 0x0a ? 1 : 0;
      const whole = bytes[length] === 0x0a ? 1 : 0; // only the line end is missing
      assert.deepEqual(
        [entries, journal.dropped],
        [complete + whole * lost, lost - whole * lost],
        `cut at ${length}`,
      );
    }
    await journal.close();
  });

  it('goes on after a torn end as if the line had never been begun', async () => {
    const { text, clock } = await sample();
    const folder = await newFolder();
    await writeFile(join(folder, JOURNAL_FILE), `${text}{"v":1,"type":"ended","sess`);
    const { sessions, journal } = await storeOn(folder, clock);
    assert.equal(journal.dropped, 1);
    assert.equal((await sessions.list()).length, 1);
    await login(sessions, 'later');
    await sessions.close();
    const again = await storeOn(folder, clock);
    assert.equal(again.journal.dropped, 0);
    assert.equal((await again.sessions.list()).length, 2);
    await again.sessions.close();
  });

  it('refuses the start as FILE:LINE for a broken line in the middle, and leaves the file as it is', async () => {
    const lines = (await sample()).text.trimEnd().split('\n');
    const broken = (change: (line: string) => string, at = 1) =>
      lines.map((line, i) => (i === at ? change(line) : line)).join('\n') + '\n';
    const last = lines.length - 1;
    const cases: [text: string, message: RegExp][] = [
      [broken((line) => line.slice(1)), /sessions\.jsonl:2: not JSON$/],
      [broken(() => '\0\0\0'), /:2: not JSON$/],
      [broken(() => '{'.repeat(9), last - 1), new RegExp(`:${last}: not JSON$`)],
      [broken((line) => line.replace('"n":', '"m":')), /:2: n: must be a whole number$/],
      [broken((line) => line.replace('"v":1', '"v":9')), /:2: .*version 9.* use the newer program$/],
      [
        broken((line) => line.replace('"type":"', '"type":"un'), last),
        new RegExp(`:${last + 1}: type: unknown$`),
      ],
      [broken(() => lines[last] ?? ''), /:2: session \w+ in state nothing cannot take event ended/],
      [`${'x'.repeat(LINE_LIMIT_BYTES + 1)}\n`, /:1: longer than a line can be$/],
    ];
    for (const [text, message] of cases) {
      const folder = await newFolder();
      const path = join(folder, JOURNAL_FILE);
      await writeFile(path, text);
      const journal = await Journal.open(folder);
      await assert.rejects(MemorySessions.open({ journal }), { name: 'JournalError', message });
      await journal.close();
      assert.equal(await readFile(path, 'utf8'), text);
      assert.deepEqual(await readdir(folder), [JOURNAL_FILE]);
    }
  });
});

describe('writing', () => {
  it('acknowledges create, claim and ends when they are synced, in batches', async () => {
    const disk = new FakeDisk();
    const { sessions } = await store({ openFile: disk.open });
    const syncs = disk.syncs;
    disk.hold();
    let done = 0;
    const first = login(sessions, 'a').finally(() => done++);
    await until(() => disk.held);
    const others = Array.from({ length: 50 }, (_, i) => login(sessions, `u${i}`).finally(() => done++));
    await pause(20);
    assert.equal(done, 0);
    disk.release();
    await Promise.all([first, ...others]);
    assert.equal(disk.syncs - syncs, 2, 'one sync for the first, one for all that came meanwhile');
    await sessions.close();
  });

  it('takes no more than a bounded number of changes into one batch', async () => {
    const disk = new FakeDisk();
    const { sessions } = await store({ openFile: disk.open });
    const before = disk.syncs;
    await Promise.all(Array.from({ length: BATCH_LIMIT + 1 }, (_, i) => login(sessions, `u${i}`)));
    assert.equal(disk.syncs - before, 2);
    await sessions.close();
  });

  it('does not sync for counters, nor write for refusals', async () => {
    const disk = new FakeDisk();
    const { sessions, journal } = await store({ openFile: disk.open });
    const { session, lease } = await up(sessions, await login(sessions, 'a'));
    const syncs = disk.syncs;
    assert.equal(await sessions.checkpoint(session.id, lease, { ...none, rxBytes: 1n }), true);
    assert.equal(disk.syncs, syncs);
    const { bytes } = journal;
    assert.equal((await sessions.claim(sampleClaim(hashToken('nobody'), 'c'))).ok, false);
    assert.equal(journal.bytes, bytes);
    await sessions.close();
  });

  it('makes nothing new when the disk is full, says so, and goes on when there is room', async () => {
    const disk = new FakeDisk();
    const log = new MemoryEventLog();
    const { sessions, folder, clock } = await store({ openFile: disk.open }, log);
    const waiting = await login(sessions, 'waiting');
    const before = [await sessions.list(), await sessions.pools()];
    const facts = log.recent(99);
    const request = sampleClaim(waiting.tokenHash, 'one-connection');

    disk.room = 100;
    const calls = [login(sessions, 'new'), sessions.claim(request)];
    for (const result of await Promise.allSettled(calls)) {
      assert.equal(result.status, 'rejected');
      assert.equal(result.reason instanceof Error && result.reason.name, 'StoreUnavailable');
    }
    assert.deepEqual([await sessions.list(), await sessions.pools()], before);
    assert.deepEqual(log.recent(99), facts, 'no event without its change');

    disk.room = Infinity;
    const claimed = await sessions.claim(request);
    assert.ok(claimed.ok, 'the same connection may try again');
    const after = await sessions.list();
    await sessions.close();
    const again = await storeOn(folder, clock);
    assert.equal(again.journal.dropped, 0);
    assert.deepEqual(await sortedList(again.sessions), after.sort(byId));
    await again.sessions.close();
  });

  it('cuts tunnels off and lets sessions reconnect when the disk is full; the records follow when there is room', async () => {
    const disk = new FakeDisk();
    const problems: string[] = [];
    const options = { openFile: disk.open, onProblem: (problem: string) => problems.push(problem) };
    const { sessions, folder, clock } = await store(options);
    const heard: string[] = [];
    sessions.notices({ name: 'n1', incarnation: 'i1' }, (notices) =>
      heard.push(...notices.map((notice) => notice.reason)),
    );
    const terminated = await up(sessions, await login(sessions, 'terminated'));
    const locked = await up(sessions, await login(sessions, 'locked'));
    const moving = await up(sessions, await login(sessions, 'moving'));
    const tired = await up(
      sessions,
      await sessions.create(
        sampleLogin(hashToken(newToken()), 'tired', { sessionTimeoutSeconds: 60, cookieTimeoutSeconds: 30 }),
      ),
    );
    const crash = await copyOf(folder);

    disk.room = 0;
    const ends = await Promise.allSettled([
      login(sessions, 'new'),
      sessions.end(terminated.session.id, 'terminated'),
      sessions.endOfUser('locked', 'user-locked'),
    ]);
    assert.ok(
      ends.every((result) => result.status === 'rejected'),
      'a restart may take them back',
    );
    await until(() => heard.length === 2);
    assert.deepEqual(heard, ['terminated', 'user-locked']);
    assert.equal((await sessions.get(locked.session.id))?.state, 'closed');
    await assert.rejects(sessions.endOfUser('locked', 'user-locked'), { name: 'StoreUnavailable' });
    assert.deepEqual(await sessions.claim(sampleClaim(terminated.session.tokenHash, 'c')), {
      ok: false,
      reason: 'token-unknown',
    });

    assert.equal(await sessions.park(moving.session.id, moving.lease, 'connection-lost', none), true);
    const again = await up(sessions, moving.session);
    assert.deepEqual(again.addresses, moving.addresses);
    assert.equal(await sessions.checkpoint(moving.session.id, again.lease, { ...none, rxBytes: 5n }), true);
    clock.pass(60);
    assert.equal(await sessions.sweep(), 1, 'lifetimes go on');
    clock.pass(1000);
    await sessions.sweep();
    assert.equal((await sessions.get(tired.session.id))?.state, 'closed', 'kept until the journal knows');
    assert.equal(new Set(problems).size, problems.length, 'said once');
    assert.match(problems.join(), /sessions\.jsonl cannot be written: /);

    disk.room = Infinity;
    await login(sessions, 'later');
    assert.equal(await sessions.endOfUser('locked', 'user-locked'), 0, 'now it is on the disk');
    const expected = await sortedList(sessions);
    const after = await storeOn(await copyOf(folder), clock);
    assert.deepEqual(await sortedList(after.sessions), expected);
    assert.equal((await after.sessions.get(moving.session.id))?.rxBytes, 5n);
    await sessions.sweep();
    assert.equal(await sessions.get(tired.session.id), undefined);
    await Promise.all([sessions.close(), after.sessions.close()]);
    const lost = await storeOn(crash, clock);
    assert.equal((await lost.sessions.list()).length, 4);
    await lost.sessions.close();
  });

  it('starts on the journal as it is when that cannot be rewritten, also after a torn or unended line', async () => {
    const { text, clock } = await sample();
    for (const end of ['\n', '', '\n{"v":1,"type":"ended","sess']) {
      const disk = new FakeDisk();
      const folder = await newFolder();
      await writeFile(join(folder, JOURNAL_FILE), text.trimEnd() + end);
      disk.failOpens = 1;
      const { sessions } = await storeOn(folder, clock, undefined, { openFile: disk.open });
      assert.equal((await sessions.list()).length, 1);
      const session = await login(sessions, 'later');
      await sessions.close();
      const again = await storeOn(folder, clock);
      assert.equal((await again.sessions.list()).length, 2);
      assert.equal((await again.sessions.get(session.id))?.user, 'later');
      await again.sessions.close();
    }
    const disk = new FakeDisk();
    disk.failOpens = 1;
    await assert.rejects(storeOn(await newFolder(), clock, undefined, { openFile: disk.open }), {
      name: 'JournalError',
    });
  });

  it('relies on nothing in a file whose sync failed: it is rewritten before anything else is promised', async () => {
    const disk = new FakeDisk();
    const { sessions, folder, clock } = await store({ openFile: disk.open });
    await login(sessions, 'a');
    disk.failSyncs = 1;
    await assert.rejects(login(sessions, 'b'), { name: 'StoreUnavailable' });
    const files = disk.opened;
    disk.failSyncs = 1;
    await assert.rejects(login(sessions, 'c'), { name: 'StoreUnavailable' }, 'the rewrite failed too');
    await login(sessions, 'd');
    assert.equal(disk.opened, files + 2);
    await sessions.close();
    const again = await storeOn(folder, clock);
    assert.deepEqual((await again.sessions.list()).map((session) => session.user).sort(), ['a', 'd']);
    await again.sessions.close();
  });

  it('refuses further changes when too many wait for the disk', async () => {
    const disk = new FakeDisk();
    const { sessions } = await store({ openFile: disk.open });
    disk.hold();
    const first = login(sessions, 'a');
    await until(() => disk.held);
    const waiting = Array.from({ length: WAITING_LIMIT }, () => sessions.end('nobody', 'logout'));
    await assert.rejects(sessions.end('nobody', 'logout'), {
      name: 'StoreUnavailable',
      message: /too many changes/,
    });
    disk.release();
    await Promise.all([first, ...waiting]);
    await sessions.close();
  });

  it('keeps the file below its bound while it runs, and loses nothing by it', async () => {
    const { sessions, journal, folder, clock } = await store({ rewriteAboveBytes: 20_000 });
    const { session, lease } = await up(sessions, await login(sessions, 'a'));
    let largest = 0;
    for (let i = 1; i <= 800; i++) {
      await sessions.checkpoint(session.id, lease, { ...none, rxBytes: BigInt(i) });
      largest = Math.max(largest, journal.bytes);
      // The rewrite goes on in the background, and how much is appended meanwhile is up to the disk.
      while (journal.bytes > 20_000) await setImmediate();
    }
    assert.ok(largest > 20_000 && largest < 25_000, `${largest} bytes`);
    assert.ok(JOURNAL_GROWTH >= 2);
    await sessions.close();
    const again = await storeOn(folder, clock);
    assert.equal((await again.sessions.get(session.id))?.rxBytes, 800n);
    await again.sessions.close();
  });

  it('goes on in the old file when a rewrite in the background fails', async () => {
    const disk = new FakeDisk();
    const problems: string[] = [];
    const onProblem = (message: string) => problems.push(message);
    const { sessions, folder, clock } = await store({
      openFile: disk.open,
      rewriteAboveBytes: 10_000,
      onProblem,
    });
    disk.failOpens = Infinity;
    const users = Array.from({ length: 20 }, (_, i) => `u${i}`);
    for (const user of users) await login(sessions, user);
    assert.match(problems[0] ?? '', /sessions\.jsonl cannot be rewritten: no file/);
    assert.ok(problems.length < 5, 'tried again only when the file has grown much');
    disk.failOpens = 0;
    await sessions.close();
    const again = await storeOn(folder, clock);
    assert.equal((await again.sessions.list()).length, users.length);
    await again.sessions.close();
  });

  it('is for its owner only, and holds no token', async () => {
    const folder = join(await newFolder(), 'journal');
    const journal = await Journal.open(folder);
    const sessions = await MemorySessions.open({ journal });
    const token = newToken();
    await sessions.create(sampleLogin(hashToken(token)));
    for (const name of await readdir(folder)) {
      assert.equal((await stat(join(folder, name))).mode & 0o777, 0o600, name);
      assert.ok(!(await readFile(join(folder, name), 'utf8')).includes(token));
    }
    assert.equal((await stat(folder)).mode & 0o777, 0o700);
    await sessions.close();
    assert.deepEqual(await readdir(folder), [JOURNAL_FILE]);
  });
});

describe('one writer', () => {
  it('refuses a second one in one sentence, and lets it in after close', async () => {
    const folder = await newFolder();
    const first = await Journal.open(folder);
    const message = `${folder} is in use by another gateway (process ${process.pid}): stop it first`;
    await assert.rejects(Journal.open(folder), { name: 'JournalError', message });
    await first.close();
    await first.close();
    await (await Journal.open(folder)).close();
  });

  it('lets exactly one of several in that find a stale lock', async () => {
    const folder = await newFolder();
    await writeFile(join(folder, 'lock.1'), JSON.stringify({ ...(await lockOf(folder)), start: '1' }));
    const tries = await Promise.allSettled(Array.from({ length: 8 }, () => Journal.open(folder)));
    const winners = tries.filter((result) => result.status === 'fulfilled');
    assert.equal(winners.length, 1);
    for (const winner of winners) await winner.value.close();
    assert.deepEqual(await readdir(folder), []);
  });

  it('takes over the lock of a process that is gone, of a former boot, or torn', async () => {
    const mine = await lockOf(await newFolder());
    const locks = [
      { ...mine, pid: 2 ** 22 + 1 },
      { ...mine, start: '12' },
      { ...mine, boot: 'former' },
    ].map((lock) => JSON.stringify(lock));
    for (const lock of [...locks, '', '{"pid":']) {
      const folder = await newFolder();
      await writeFile(join(folder, 'lock.1'), lock);
      await (await Journal.open(folder)).close();
    }
  });

  it('watches the lock of a process that it cannot see: touched is in use, untouched is left over', async () => {
    const foreign = {
      ...(await lockOf(await newFolder())),
      namespace: 'pid:[1]',
      host: `other-${hostname()}`,
    };
    const [living, dead] = [await newFolder(), await newFolder()];
    for (const folder of [living, dead]) await writeFile(join(folder, 'lock.1'), JSON.stringify(foreign));
    const touching = setInterval(
      () => void utimes(join(living, 'lock.1'), new Date(), new Date()),
      LOCK_TOUCH_MS,
    );
    const [refused, taken] = await Promise.allSettled([Journal.open(living), Journal.open(dead)]);
    clearInterval(touching);
    assert.equal(refused.status, 'rejected');
    assert.ok(taken.status === 'fulfilled');
    await taken.value.close();
  });

  it('touches its lock with the sweep', async () => {
    const { sessions, folder } = await store();
    const path = join(folder, 'lock.1');
    await utimes(path, 1, 1);
    await sessions.sweep();
    let touched = 0;
    await until(() => {
      void stat(path).then(({ mtimeMs }) => (touched = mtimeMs));
      return touched > 1_000_000;
    });
    await sessions.close();
  });
});

describe('kill -9', () => {
  it('loses nothing that was acknowledged, and its lock stops nobody', async () => {
    const folder = await newFolder();
    const child = spawn(
      process.execPath,
      [fileURLToPath(new URL('journal-child.fake.js', import.meta.url)), folder],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    const exited = once(child, 'exit');
    const told: string[][] = [];
    for await (const line of createInterface({ input: child.stdout })) {
      told.push(line.split(' '));
      if (told.length === 400) child.kill('SIGKILL');
    }
    await exited;
    assert.equal(child.signalCode, 'SIGKILL');
    assert.ok(told.length >= 400);

    const { sessions } = await storeOn(folder, new TestClock(BigInt(Date.now()) * 1000n));
    for (const [state, id = '', ipv4, epoch] of told) {
      const session = await sessions.get(id);
      assert.ok(session, `${state} ${id} is lost`);
      if (state === 'closed') assert.equal(session.state, 'closed');
      if (state !== 'up') continue;
      assert.notEqual(session.state, 'authed');
      assert.deepEqual([session.addresses.ipv4, String(session.lease?.epoch)], [ipv4, epoch]);
    }
    await sessions.close();
  });
});

const none = { rxBytes: 0n, txBytes: 0n, activeAt: 0n };

interface Store {
  folder: string;
  clock: TestClock;
  journal: Journal;
  sessions: MemorySessions;
}

async function store(options: JournalOptions = {}, events?: MemoryEventLog): Promise<Store> {
  return storeOn(await newFolder(), new TestClock(), events, options);
}

async function storeOn(
  folder: string,
  clock: TestClock,
  events?: MemoryEventLog,
  options: JournalOptions = {},
): Promise<Store> {
  const journal = await Journal.open(folder, options);
  return {
    folder,
    clock,
    journal,
    sessions: await MemorySessions.open({ journal, clock: clock.read, events }),
  };
}

async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-journal-'));
  folders.push(folder);
  return folder;
}

/** What a crash at this moment would leave. */
async function copyOf(folder: string): Promise<string> {
  const copy = await newFolder();
  await copyFile(join(folder, JOURNAL_FILE), join(copy, JOURNAL_FILE));
  return copy;
}

async function bare(): Promise<{ journal: Journal; path: string }> {
  const folder = await newFolder();
  return { journal: await Journal.open(folder), path: join(folder, JOURNAL_FILE) };
}

/** A small journal of each kind of line. */
async function sample(): Promise<{ text: string; clock: TestClock }> {
  const { sessions, folder, clock } = await store();
  const first = await up(sessions, await login(sessions, 'a'));
  await sessions.checkpoint(first.session.id, first.lease, none);
  await sessions.park(first.session.id, first.lease, 'connection-lost', none);
  await login(sessions, 'b');
  await sessions.end(first.session.id, 'logout');
  const text = await readFile(join(folder, JOURNAL_FILE), 'utf8');
  await sessions.close();
  return { text, clock };
}

/** Waits for something that happens soon; a test that waits in vain fails. */
async function until(reached: () => boolean): Promise<void> {
  for (let turn = 0; turn < 1000; turn++) {
    if (reached()) return;
    await pause(5);
  }
  assert.fail('it does not happen');
}

function login(sessions: MemorySessions, user: string): Promise<Session> {
  return sessions.create(sampleLogin(hashToken(newToken()), user));
}

async function up(sessions: MemorySessions, session: Session): Promise<Claimed> {
  const claim = await sessions.claim(sampleClaim(session.tokenHash, randomUUID()));
  assert.ok(claim.ok);
  return claim;
}

/** @returns the hashes of all tokens that there were. */
async function live(sessions: MemorySessions, clock: TestClock, steps: number): Promise<string[]> {
  const random = seeded(7);
  const known: Session[] = [];
  for (let i = 0; i < steps; i++) {
    const pick = known[random(known.length)];
    const action = random(8);
    if (action < 3 || pick === undefined) known.push(await login(sessions, `user${random(5)}`));
    else if (action < 6)
      await sessions.claim(sampleClaim(pick.tokenHash, randomUUID(), { wantIpv6: random(2) === 0 }));
    else if (action === 6) {
      const lease = (await sessions.get(pick.id))?.lease;
      const usage = { rxBytes: BigInt(i), txBytes: 2n, activeAt: clock.now };
      if (lease !== undefined) await sessions.park(pick.id, lease, 'connection-lost', usage);
    } else await sessions.end(pick.id, 'terminated');
    clock.pass(random(9));
    if (i % 20 === 0) await sessions.sweep();
  }
  await sessions.sweep();
  known.push(await login(sessions, 'last'));
  return known.map((session) => session.tokenHash);
}

function everything(sessions: MemorySessions, tokens: string[]): Promise<(Session | undefined)[]> {
  return Promise.all(tokens.map((token) => sessions.find(token)));
}

async function poolsOf(sessions: MemorySessions) {
  return (await sessions.pools()).sort((a, b) => (a.pool < b.pool ? -1 : 1));
}

async function sortedList(sessions: MemorySessions): Promise<Session[]> {
  return (await sessions.list()).sort(byId);
}

function byId(a: Session, b: Session): number {
  return a.id < b.id ? -1 : 1;
}

async function lockOf(folder: string): Promise<Record<string, unknown>> {
  const journal = await Journal.open(folder);
  const lock: unknown = JSON.parse(await readFile(join(folder, 'lock.1'), 'utf8'));
  await journal.close();
  assert.ok(typeof lock === 'object' && lock !== null);
  return { ...lock };
}

/** Files that are real, on a disk that can be slow, full and broken. */
class FakeDisk {
  room = Infinity;
  failSyncs = 0;
  failOpens = 0;
  syncs = 0;
  opened = 0;
  /** Is a sync waiting? */
  held = false;
  #gate: Promise<void> = Promise.resolve();
  #release: () => void = () => undefined;

  hold(): void {
    this.#gate = new Promise((release) => (this.#release = release));
  }

  release(): void {
    this.#release();
  }

  readonly open = async (path: string): Promise<JournalFile> => {
    if (this.failOpens > 0) {
      this.failOpens--;
      throw new Error('no file');
    }
    this.opened++;
    const file = await createJournalFile(path);
    return {
      ...file,
      write: async (data, position) => {
        await file.write(data.subarray(0, Math.min(data.length, this.room)), position);
        if (this.room < data.length) throw new Error('no space left on device');
      },
      sync: async () => {
        this.held = true;
        await this.#gate;
        this.held = false;
        if (this.failSyncs > 0) {
          this.failSyncs--;
          throw new Error('input/output error');
        }
        this.syncs++;
      },
    };
  };
}
