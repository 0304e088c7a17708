import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { FEED_MS, Supervision } from './supervised.ts';

test('takes sockets that are meant for this process, and leaves no variable behind', () => {
  const env = {
    LISTEN_PID: '7',
    LISTEN_FDS: '3',
    LISTEN_FDNAMES: 'health:tcp',
    SALLYPORT_STARTS: '4',
    PATH: 'x',
  };
  const taken = Supervision.take(env, 7);
  assert.deepEqual(taken.sockets, [
    { fd: 3, name: 'health' },
    { fd: 4, name: 'tcp' },
    { fd: 5, name: '' },
  ]);
  assert.deepEqual([taken.health?.fd, taken.tcp?.fd], [3, 4]);
  assert.equal(taken.starts, 4);
  assert.deepEqual(env, { PATH: 'x' });
});

test('takes nothing that is meant for another process or is no number', () => {
  for (const env of [
    { LISTEN_PID: '8', LISTEN_FDS: '1' },
    { LISTEN_FDS: '1' },
    { LISTEN_PID: '7', LISTEN_FDS: 'x' },
    { LISTEN_PID: '7' },
    {},
  ]) {
    const { sockets, starts } = Supervision.take(env, 7);
    assert.deepEqual([sockets, starts], [[], 1]);
  }
  assert.equal(Supervision.take({ LISTEN_PID: '0', LISTEN_FDS: '1' }, 7).tcp?.fd, 3, 'through a launcher');
});

test('tells that it lives, is ready and stops; busy work counts as life, a blocked loop does not', async () => {
  const turns = await said(`supervision.ready(); setTimeout(() => supervision.stopping(), ${3 * FEED_MS});`);
  assert.match(turns, /^\.R\.+S\.*$/);
  const busy = `for (const end = Date.now() + ${2 * FEED_MS}; Date.now() < end;)`;
  assert.match(
    await said(`supervision.ready(); ${busy} supervision.alive(); supervision.stopping();`),
    /^\.R\.+S/,
  );
  assert.match(await said(`supervision.ready(); ${busy}; supervision.stopping();`), /^\.RS/);
});

test('a supervisor that does not read, or is gone, blocks nothing', async () => {
  assert.equal(await said(`for (let n = 0; n < 100_000; n++) supervision.ready();`, false), 'ended');
});

/** What a process with this code writes to its watchdog; a real pipe, nobody reads it if not told. */
async function said(code: string, isRead = true): Promise<string> {
  const module = JSON.stringify(new URL('./supervised.js', import.meta.url).href);
  const script = `const { Supervision } = await import(${module});
    const supervision = Supervision.take({ SALLYPORT_WATCHDOG_FD: '3' }, process.pid);
    ${code}`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
  });
  let words = '';
  const pipe = child.stdio[3];
  assert.ok(pipe && 'setEncoding' in pipe);
  if (isRead) pipe.setEncoding('utf8').on('data', (chunk: string) => (words += chunk));
  else pipe.destroy();
  const exitCode = await new Promise((resolve) => child.once('exit', resolve));
  if (isRead && !pipe.readableEnded) await new Promise((resolve) => pipe.once('end', resolve));
  assert.equal(exitCode, 0);
  return isRead ? words : 'ended';
}
