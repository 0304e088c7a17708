import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

/**
 * Runs the tests of a file in a network namespace of its own, which ends with them: the file executes itself again
 * there. Without root or a TUN device the tests are skipped, and say so.
 */
export function inNamespace(fileUrl: string, tests: () => void): void {
  if (process.argv.includes(INSIDE)) {
    tests();
    return;
  }
  const file = fileURLToPath(fileUrl);
  const possible = process.geteuid?.() === 0 && existsSync('/dev/net/tun');
  const name = `${file.split('/').at(-1) ?? file} in a network namespace`;
  void test(name, { skip: !possible && 'needs root and /dev/net/tun' }, async () => {
    const environment = ['env', '--unset=NODE_TEST_CONTEXT', 'UV_THREADPOOL_SIZE=8'];
    const command = [process.execPath, '--test-reporter=spec', file, INSIDE];
    const child = spawn('unshare', ['--net', ...environment, ...command], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const limit = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS);
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    const code = await new Promise((resolve) => child.on('close', resolve));
    clearTimeout(limit);
    if (code !== 0) throw new Error(`failed inside the namespace:\n${output}`);
  });
}

const INSIDE = '--in-own-namespace';
/** A test that fails may leave its process waiting for the device. */
const LIMIT_MS = 60_000;
