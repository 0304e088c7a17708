import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { StartError, Supervision } from '@sallyport/chassis';
import { exampleSettings, parseSettings, type Settings } from '@sallyport/cluster';
import { runGateway } from './cli/run-gateway.ts';
import { planFirstRun, stateFolder, type StateFolder } from './first-run.ts';

const folder = await mkdtemp(join(tmpdir(), 'sallyport-first-'));
const asRoot = { skip: process.getuid?.() !== 0 && 'needs root' };
after(() => rm(folder, { recursive: true }));

test('a key pair of which one half is there is the operator’s: nothing is made, one sentence', async () => {
  for (const [name, missing] of [
    ['cert.pem', 'key.pem'],
    ['key.pem', 'cert.pem'],
  ]) {
    const state = await stateWith({ [`tls/${name}`]: 'mine' });
    await assert.rejects(planFirstRun(state, state.config, settings('', state)), (error) => {
      assert.ok(error instanceof StartError);
      assert.match(error.message, new RegExp(`${name} is there and .*${missing} is missing`));
      return true;
    });
    assert.equal(await readFile(join(state.path, 'tls', name ?? ''), 'utf8'), 'mine');
  }
});

test('nothing is made that a configuration does not name', async () => {
  const state = await stateWith({});
  assert.deepEqual(await planFirstRun(state, state.config, settings('', state)), {
    ...{ config: true, certificate: true, users: true },
  });
  const own = 'server-cert: own.pem\nserver-key: own.key\nusers-file: people\nipv4-network: 10.90.0.0/16\n';
  await writeFile(state.config, own);
  assert.deepEqual(await planFirstRun(state, state.config, settings(own, state)), {
    ...{ config: false, certificate: false, users: false },
  });
  const elsewhere = await planFirstRun(state, join(folder, 'other.yaml'), settings(own, state));
  assert.equal(elsewhere.config, false);
});

test('where the gateway cannot run nothing is made', asRoot, async () => {
  const holder = createServer().listen(0);
  await new Promise((resolve) => holder.once('listening', resolve));
  const address = holder.address();
  assert.ok(address !== null && typeof address === 'object');
  const state = stateFolder(join(folder, 'busy'));
  const file = join(folder, 'busy.yaml');
  await writeFile(file, configuration(address.port, 'spfirst0', state));
  await assert.rejects(run(state, file).ended, /TCP port \d+ is taken by another program/);
  await writeFile(file, configuration(address.port, 'lo', state));
  await assert.rejects(run(state, file).ended, /interface lo exists already/);
  holder.close();
  assert.equal(existsSync(state.path), false);
});

test('without root it is one sentence, and nothing is made', asRoot, () => {
  const state = join(folder, 'nobody');
  const bin = fileURLToPath(new URL('../../../bin/sallyport', import.meta.url));
  const { status, stderr } = spawnSync(
    process.execPath,
    [bin, 'gateway', '--first-run', '--state-dir', state],
    { encoding: 'utf8', uid: 65_534, gid: 65_534 },
  );
  assert.equal(status, 1);
  assert.match(stderr, /^The gateway must change the network of this machine: [^\n]*\n$/);
  assert.equal(existsSync(state), false);
});

test(
  'a start that fails after the demo user was made shows the password, and only that one',
  asRoot,
  async () => {
    const state = stateFolder(join(folder, 'failed'));
    const file = join(folder, 'failed.yaml');
    await writeFile(file, configuration(await freePort(), 'spfirst0', state));
    const first = run(state, file);
    await assert.rejects(first.ended, /it failed/);
    assert.match(first.printed(), /^Demo user: {2}demo {3}password \(shown once\): {2}\S{19}\n$/);
    assert.ok(existsSync(state.users) && existsSync(state.cert) && existsSync(state.key));
    const second = run(state, file);
    await assert.rejects(second.ended, /it failed/);
    assert.equal(second.printed(), '');
  },
);

function run(state: StateFolder, config: string): { ended: Promise<void>; printed: () => string } {
  let printed = '';
  const ended = runGateway(
    { config, stateDir: state.path, firstRun: true },
    {
      start: () => Promise.reject(new StartError('it failed')),
      threads: '16',
      supervision: Supervision.take({}, process.pid),
      print: (text) => (printed += text),
    },
  );
  return { ended, printed: () => printed };
}

function configuration(port: number, device: string, state: StateFolder): string {
  return [
    `tcp-port: ${port}`,
    `device: ${device}`,
    'ipv4-network: 198.18.77.0/24',
    `server-cert: ${state.cert}`,
    `server-key: ${state.key}`,
    `users-file: ${state.users}`,
    '',
  ].join('\n');
}

async function stateWith(files: Record<string, string>): Promise<StateFolder> {
  const state = stateFolder(await mkdtemp(join(folder, 'state-')));
  await mkdir(join(state.path, 'tls'));
  for (const [name, text] of Object.entries(files)) await writeFile(join(state.path, name), text);
  return state;
}

/** @param text '' = the example. */
function settings(text: string, state: StateFolder): Settings {
  const read = parseSettings(text || exampleSettings(), state.config);
  assert.ok('settings' in read);
  return read.settings;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0);
  await new Promise((resolve) => server.once('listening', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  assert.ok(address !== null && typeof address === 'object');
  return address.port;
}
