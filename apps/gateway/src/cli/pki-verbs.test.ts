import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { StartError } from '@sallyport/chassis';
import { sallyportProgram } from './program.ts';

test('pki makes, shows and renews certificates in a folder', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-pki-'));
  const dir = join(folder, 'pki');
  try {
    assert.match(await run('pki', 'init', '--dir', dir), /^made/);
    await assert.rejects(run('pki', 'init', '--dir', dir), /There is a CA/);
    await run('pki', 'issue', 'n1', '--role', 'tunnel-node', '--dir', dir);
    await assert.rejects(run('pki', 'issue', 'n2', '--role', 'king', '--dir', dir), /king is no role/);
    const shown: unknown = JSON.parse(await run('-j', 'pki', 'show', '--dir', dir));
    assert.ok(Array.isArray(shown));
    assert.deepEqual(
      shown.map(({ Name, Roles }) => [Name, Roles]),
      [
        ['CA', []],
        ['n1', ['tunnel-node']],
      ],
    );
    assert.match(await run('pki', 'renew', '--dir', dir), /nothing ends soon/);
    assert.match(await run('pki', 'renew', 'n1', '--dir', dir), /^renewed\n/);
  } finally {
    await rm(folder, { recursive: true });
  }
});

async function run(...args: string[]): Promise<string> {
  let out = '';
  const never = async () => {
    throw new StartError('not here');
  };
  const program = sallyportProgram({
    ...{ version: '1', socketVariable: undefined, input: process.stdin, prompts: process.stderr },
    ...{ out: (text: string) => (out += text), now: Date.now },
    ...{ runGateway: never, runRole: never, supervise: never, interrupted: never },
  });
  await program.parseAsync(args, { from: 'user' });
  return out;
}
