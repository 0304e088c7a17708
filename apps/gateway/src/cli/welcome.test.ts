import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { exampleSettings, parseSettings, type Settings } from '@sallyport/cluster';
import { certificatePin, firstRun, stateFolder } from '../first-run.ts';
import { welcome } from './welcome.ts';

const folder = await mkdtemp(join(tmpdir(), 'sallyport-welcome-'));
after(() => rm(folder, { recursive: true }));
const settings = await settingsIn('one');

test('every certificate is pinned: a client may get any of them', async () => {
  const other = await settingsIn('two');
  const certFiles = [...settings.tls.certFiles, ...other.tls.certFiles];
  const pins = await Promise.all(certFiles.map(certificatePin));
  assert.notEqual(pins[0], pins[1]);
  const text = await welcome({ ...settings, tls: { ...settings.tls, certFiles } }, undefined);
  assert.ok(text.includes(`openconnect --servercert ${pins[0]} --servercert ${pins[1]} `), text);
  assert.ok(text.includes(`Certificate pins:  ${pins[0]}  ${pins[1]}\n`), text);
});

test('the command answers the question for a group when there are several', async () => {
  assert.match(await welcome(settings, undefined), / --authgroup Staff --user NAME /);
  const { staff, ...others } = settings.profiles;
  assert.ok(staff);
  const odd = { ...settings, profiles: { ...others, staff: { ...staff, label: "Alice's team" } } };
  assert.match(await welcome(odd, undefined), / --authgroup 'Alice'\\''s team' /);
  assert.doesNotMatch(await welcome({ ...settings, profiles: { staff } }, undefined), /authgroup/);
});

test('the password is shown when it was made; later the line says how to set another', async () => {
  const made = await welcome(settings, { name: 'demo', password: 'pa-ss' });
  assert.match(made, /Demo user: {2}demo {3}password \(shown once\): {2}pa-ss\n/);
  assert.match(made, / --user demo /);
  assert.match(await welcome(settings, undefined), /bin\/sallyport user --config .*yaml passwd demo\n/);
  const usual = { ...settings, file: '/var/lib/sallyport/sallyport.yaml' };
  assert.match(await welcome(usual, undefined), /bin\/sallyport user passwd demo\n/);
  const users = (await readFile(settings.usersFile, 'utf8')).replace('demo:', 'alice:');
  await writeFile(join(folder, 'others'), users);
  assert.doesNotMatch(await welcome({ ...settings, usersFile: join(folder, 'others') }, undefined), /demo:/);
});

async function settingsIn(name: string): Promise<Settings> {
  const state = stateFolder(join(folder, name));
  const plan = { config: true, certificate: true, users: true };
  await firstRun(state, plan, exampleSettings(), (file) => writeFile(file, 'demo:staff:!x\n'));
  const read = parseSettings(exampleSettings(), state.config);
  assert.ok('settings' in read);
  return read.settings;
}
