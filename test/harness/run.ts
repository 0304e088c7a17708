import { execFile, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Root of the checkout, with a slash at the end. */
export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

export interface Finished {
  code: number;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  input?: string;
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  timeoutMs?: number;
  /** Accept any exit code; else a code other than 0 throws. */
  anyCode?: boolean;
}

/** Runs a program to its end. */
export function run(argv: readonly string[], options: RunOptions = {}): Promise<Finished> {
  const [program = '', ...args] = argv;
  return new Promise((resolve, reject) => {
    const child = execFile(
      program,
      args,
      {
        env: options.env ?? process.env,
        cwd: options.cwd,
        timeout: options.timeoutMs ?? PATIENCE_MS,
        killSignal: 'SIGKILL',
        maxBuffer: 64 * 1024 * 1024,
      },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === 'number' ? error.code : 1;
        if (code !== 0 && options.anyCode !== true) {
          reject(new Error(`${argv.join(' ')}: exit code ${code}\n${stdout}${stderr}`));
        } else {
          resolve({ code, stdout, stderr });
        }
      },
    );
    child.stdin?.on('error', () => {});
    child.stdin?.end(options.input ?? '');
  });
}

/** For clean-up in exit handlers, where nothing asynchronous runs any more. Never throws. */
export function runSync(argv: readonly string[], input = ''): string {
  const [program = '', ...args] = argv;
  return spawnSync(program, args, { encoding: 'utf8', timeout: PATIENCE_MS, input }).stdout ?? '';
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** How long a test waits for what must happen: far longer than on any machine, so that only what never happens fails. */
export const PATIENCE_MS = 120_000;

/** Works through a list, a few at once. */
export async function each<T>(items: Iterable<T>, work: (item: T) => Promise<unknown>): Promise<void> {
  const rest = items[Symbol.iterator]();
  const worker = async () => {
    for (let next = rest.next(); next.done !== true; next = rest.next()) await work(next.value);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

/** Asks `probe` until it gives something other than undefined or false. @throws with `what` after `timeoutMs`. */
export async function eventually<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = PATIENCE_MS,
  everyMs = 25,
): Promise<T> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const found = await probe();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > end) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await sleep(everyMs);
  }
}

/** @throws with `what` if the promise takes longer. */
export async function within<T>(timeoutMs: number, what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${timeoutMs} ms: ${what}`)), timeoutMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const AT_ONCE = 8;
