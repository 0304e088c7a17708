import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { ROOT } from '../harness/index.ts';

const FORBIDDEN = 101;

test('packages are installed without their services, and what forbids them is gone afterwards, also on failure', (t) => {
  const policy = place(t);
  const run = (work: string) =>
    spawnSync(
      process.execPath,
      [
        ...['--input-type=module', '-e'],
        `import { withoutServices } from ${JSON.stringify(`${ROOT}tools/debian.mjs`)};
         import { spawnSync } from 'node:child_process';
         import { readFileSync } from 'node:fs';
         const policy = ${JSON.stringify(policy)};
         ${work}`,
      ],
      { encoding: 'utf8' },
    );
  const asked = run(
    `withoutServices(() => console.log(spawnSync(policy, ['redis-server', 'start']).status), policy);`,
  );
  assert.deepEqual([asked.stdout.trim(), existsSync(policy)], [String(FORBIDDEN), false], asked.stderr);

  const failed = run(`withoutServices(() => { throw new Error('apt failed'); }, policy);`);
  assert.match(failed.stderr, /apt failed/);
  assert.equal(existsSync(policy), false);

  // Killed in the middle: what stays behind forbids nothing, and the next install takes it away.
  run(`withoutServices(() => process.kill(process.pid, 'SIGKILL'), policy);`);
  assert.equal(spawnSync(policy, ['redis-server', 'start']).status, 0);
  run(`withoutServices(() => undefined, policy);`);
  assert.equal(existsSync(policy), false);
});

test('a policy of somebody else stays', (t) => {
  const policy = place(t);
  writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  const work = `import { withoutServices } from ${JSON.stringify(`${ROOT}tools/debian.mjs`)};
    withoutServices(() => undefined, ${JSON.stringify(policy)});`;
  assert.equal(spawnSync(process.execPath, ['--input-type=module', '-e', work]).status, 0);
  assert.equal(readFileSync(policy, 'utf8'), '#!/bin/sh\nexit 101\n');
});

function place(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-debian-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return join(folder, 'policy-rc.d');
}
