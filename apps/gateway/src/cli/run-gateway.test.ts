import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';

/** A role whose start takes a while, in a process of its own, that gets `signals` meanwhile. @param more of what it runs. */
async function startAndTell(
  signals: readonly NodeJS.Signals[],
  more = '',
): Promise<{ said: string; errors: string; code: number | null }> {
  const code = `
    const { keepRunning } = await import(${JSON.stringify(new URL('./run-gateway.js', import.meta.url).href)});
    const { createLog, Supervision } = await import('@sallyport/chassis');
    const say = (text) => console.log(text);
    const go = new Promise((done) => process.once('SIGWINCH', done));
    const running = {
      log: createLog({ name: 't', level: 'silent' }),
      settings: () => ({}),
      ready: go.then(() => new Promise((done) => setTimeout(done, 200))).then(() => say('ready')),
      lifecycle: { reload: async () => say('reload') },
      close: async () => say('closed'),
      ${more}
    };
    setInterval(() => {}, 1000);
    const start = async () => {
      say('starting');
      await go;
      say('opened');
      return running;
    };
    await keepRunning(start, Supervision.take({}, 1), 't');`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: new URL('../..', import.meta.url),
  });
  let [said, errors] = ['', ''];
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (errors += chunk));
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
  while (!said.includes('starting')) await once(child.stdout, 'data');
  // The kernel gives the one of the lowest number first.
  for (const signal of [...signals, 'SIGWINCH'] as const) child.kill(signal);
  if (signals.includes('SIGHUP')) {
    while (!said.includes('reload')) await once(child.stdout, 'data');
    child.kill('SIGTERM');
  }
  if (child.exitCode === null) await once(child, 'close');
  return { said: said.trim().split('\n').join(' '), errors, code: child.exitCode };
}

test('told to stop during its start, a role closes what it has opened', { timeout: 120_000 }, async () => {
  const { said, code } = await startAndTell(['SIGTERM']);
  assert.match(said, /^starting opened closed/);
  assert.equal(code, 0);
});

test('told to reload during its start, a role does so when it is loaded', { timeout: 120_000 }, async () => {
  const { said, code } = await startAndTell(['SIGHUP', 'SIGHUP']);
  assert.deepEqual([said, code], ['starting opened ready reload closed', 0]);
});

test(
  'lost while it runs, a role says why, closes what it has opened and fails',
  { timeout: 120_000 },
  async () => {
    const lost =
      "lost: new Promise((done) => setTimeout(() => done(new Error('There is another one.')), 800)),";
    const { said, errors, code } = await startAndTell([], lost);
    assert.deepEqual([said, code], ['starting opened ready closed', 1]);
    assert.match(errors, /^There is another one\.$/m);
  },
);
