import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Root of the checkout, with a slash at its end. */
export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

export interface Ran {
  status: number | null;
  output: string;
}

/** Runs a program of `node_modules/.bin` by path, in the root. */
export function runTool(name: string, args: string[], env: Record<string, string> = {}): Ran {
  return run(`${ROOT}node_modules/.bin/${name}`, args, env);
}

export function run(command: string, args: string[], env: Record<string, string> = {}): Ran {
  const result = spawnSync(command, args, {
    cwd: ROOT,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NO_COLOR: '1', ...env },
    maxBuffer: 64 * 1024 * 1024,
  });
  return { status: result.status, output: `${result.stdout}${result.stderr}` };
}

/** Paths of the files that git would commit, relative to the root; empty when this is not a git checkout. */
export function trackedFiles(): string[] {
  const listed = run('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard']);
  return listed.status === 0 ? listed.output.split('\0').filter(Boolean) : [];
}
