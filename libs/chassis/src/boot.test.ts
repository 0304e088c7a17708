import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { checkThreadPool, MIN_THREADS } from './boot.ts';
import { faultText, StartError } from './faults.ts';

/** A service that says what it was told, in a process of its own. */
function service(stop: string, deadlineMs = 300, reload = `async () => console.log('reload')`, more = '') {
  const code = `
    const { runService, createLog, endOnUncaughtFaults } = await import(${JSON.stringify(new URL('./index.js', import.meta.url).href)});
    const log = createLog({ name: 't', level: 'silent' });
    endOnUncaughtFaults(log, () => console.log('cleaned'));
    runService({ stop: ${stop}, reload: ${reload} }, { log, title: 't', deadlineMs: ${deadlineMs} });
    process.on('SIGUSR2', () => { throw new Error('nobody catches this'); });
    ${more}
    setInterval(() => {}, 1000);
    console.log('up');`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
  return {
    child,
    said: () => said.trim().split('\n').join(' '),
    async until(word: string, times = 1) {
      while (said.split(word).length <= times) await once(child.stdout, 'data');
    },
    async exit(): Promise<number | null> {
      if (child.exitCode === null) await once(child, 'exit');
      return child.exitCode;
    },
  };
}

const GOOD_STOP = `async () => { console.log('stop'); }`;
const HANGING_STOP = `() => { console.log('stop'); return new Promise(() => {}); }`;

test('SIGHUP reloads, SIGTERM stops with exit code 0', async () => {
  const run = service(GOOD_STOP);
  await run.until('up');
  run.child.kill('SIGHUP');
  await run.until('reload');
  run.child.kill('SIGTERM');
  assert.equal(await run.exit(), 0);
  assert.equal(run.said(), 'up reload stop');
});

test('reloads that are asked for during a reload are done once', async () => {
  const slow = `async () => {
    console.log('reload');
    await new Promise((done) => process.once('SIGWINCH', done));
    console.log('done');
  }`;
  const run = service(GOOD_STOP, 300, slow);
  await run.until('up');
  run.child.kill('SIGHUP');
  await run.until('reload');
  for (let n = 0; n < 20; n += 1) {
    run.child.kill('SIGHUP');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  run.child.kill('SIGWINCH');
  await run.until('reload', 2);
  run.child.kill('SIGWINCH');
  await run.until('done', 2);
  run.child.kill('SIGTERM');
  assert.equal(await run.exit(), 0);
  assert.equal(run.said(), 'up reload done reload done stop');
});

test('a second signal ends the process at once, and a stop that hangs ends at its deadline', async () => {
  const both = `process.on('SIGWINCH', () => ['SIGINT', 'SIGTERM'].forEach((name) => process.emit(name, name)));`;
  const twice = service(HANGING_STOP, 60_000, undefined, both);
  await twice.until('up');
  // At the same moment, as no two signals from outside come for sure.
  twice.child.kill('SIGWINCH');
  await twice.until('stop');
  await new Promise((resolve) => setTimeout(resolve, 400));
  assert.equal(twice.child.exitCode, null, 'an echo of the first signal is not a second one');
  twice.child.kill('SIGTERM');
  assert.equal(await twice.exit(), 1);

  const late = service(HANGING_STOP);
  await late.until('up');
  late.child.kill('SIGTERM');
  assert.equal(await late.exit(), 1);
});

test('a fault that nobody caught cleans up and ends with 1', async () => {
  const run = service(GOOD_STOP);
  await run.until('up');
  run.child.kill('SIGUSR2');
  assert.equal(await run.exit(), 1);
  assert.equal(run.said(), 'up cleaned');
});

test('too few threads are refused with what to do', () => {
  checkThreadPool(String(MIN_THREADS));
  assert.throws(() => checkThreadPool(String(MIN_THREADS - 1)), /start it with bin\/sallyport/);
  assert.throws(() => checkThreadPool(undefined), StartError);
});

test('a start error is shown as its sentence, any other fault with its stack', () => {
  assert.equal(
    faultText(new StartError('Port 443 is taken: stop the other one.')),
    'Port 443 is taken: stop the other one.',
  );
  assert.match(faultText(new TypeError('x')), /TypeError: x\n +at /);
  assert.equal(faultText('text'), 'text');
});
