import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createLog } from '@sallyport/chassis';
import { exampleSettings, MemoryEventLog, readSettings } from '@sallyport/cluster';
import { firstRun, stateFolder } from './first-run.ts';
import { GatewayLifecycle } from './lifecycle.ts';

const folder = await mkdtemp(join(tmpdir(), 'sallyport-lifecycle-'));
after(() => rm(folder, { recursive: true }));
const state = stateFolder(join(folder, 'state'));
await firstRun(state, { config: true, certificate: true, users: true }, exampleSettings(), (file) =>
  writeFile(file, ''),
);

test('a reload names the files that have changed', async () => {
  const lifecycle = await opened();
  assert.deepEqual((await lifecycle.reload()).files, []);
  await writeFile(state.cert, `${await readFile(state.cert, 'utf8')}\n`);
  const { applied, files, warnings } = await lifecycle.reload();
  assert.deepEqual({ applied, files, warnings }, { applied: true, files: [state.cert], warnings: [] });
  assert.deepEqual((await lifecycle.reload()).files, []);
});

test('a new pool is refused with the line where it stands', async () => {
  const lifecycle = await opened();
  const before = await readFile(state.config, 'utf8');
  await writeFile(state.config, `${before}users:\n  alice:\n    ipv6-network: fd90:7::/48\n`);
  const { applied, errors } = await lifecycle.reload();
  const line = before.split('\n').length + 2;
  assert.equal(applied, false);
  assert.equal(errors.length, 1);
  assert.ok(errors[0]?.startsWith(`${state.config}:${line}: the address pool fd90:7::/48 is new`), errors[0]);
});

async function opened(): Promise<GatewayLifecycle> {
  const read = await readSettings(state.config);
  assert.ok('settings' in read);
  return new GatewayLifecycle({
    current: { settings: read.settings },
    ...{ node: 'n1', version: '1', log: createLog({ name: 'test', level: 'silent' }) },
    ...{ events: new MemoryEventLog(), now: () => 1n },
  });
}
