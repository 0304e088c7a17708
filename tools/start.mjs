// `npm start`: the gateway in one process, with a state folder made on first start. Arguments go on to it
// (`npm start -- --state-dir DIR`). A process of its own, because the size of the thread pool must be set before Node runs.
import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
/** The TUN package keeps one thread of the pool in read(), so the default of 4 would starve files, DNS and password hashes. */
const THREADS = '16';

const args = process.argv.slice(2);
const given = args.some((arg) => arg === '--state-dir' || arg.startsWith('--state-dir='));
const stateDir = given ? [] : ['--state-dir', join(ROOT, 'state')];
const child = spawn(
  process.execPath,
  [join(ROOT, 'bin', 'sallyport'), 'gateway', '--first-run', ...stateDir, ...args],
  {
    stdio: 'inherit',
    env: { UV_THREADPOOL_SIZE: THREADS, ...process.env },
  },
);
// The child decides how it ends; a terminal sends Ctrl-C to both of us, so there it only has to be survived.
for (const signal of ['SIGTERM', 'SIGHUP', 'SIGQUIT']) process.on(signal, () => child.kill(signal));
process.on('SIGINT', () => {
  if (!process.stdin.isTTY) child.kill('SIGINT');
});
child.on('error', (error) => {
  console.error(`sallyport: ${error.message}`);
  process.exit(1);
});
child.on('exit', (code, signal) => {
  if (signal) {
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  } else process.exit(code ?? 1);
});
