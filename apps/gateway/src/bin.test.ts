import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

// The program as operators call it.

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'sallyport-bin-'));
const asRoot = { skip: process.getuid?.() !== 0 && 'needs root' };
after(() => rmSync(folder, { recursive: true }));

test('a misspelt key is refused with file, line, nearest key and exit code 1', () => {
  const file = join(folder, 'x.yaml');
  writeFileSync(file, 'tcp-prot: 443\n');
  const { status, stdout, stderr } = sallyport(['check-config', file]);
  assert.equal(status, 1);
  assert.equal(stdout, '');
  assert.ok(stderr.startsWith(`${file}:1: unknown key "tcp-prot"; did you mean "tcp-port"?\n`), stderr);
});

test('the version is that of the package, also through a link', () => {
  const packageFile: unknown = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  const link = join(folder, 'linked');
  symlinkSync(join(ROOT, 'bin', 'sallyport'), link);
  assert.deepEqual(
    { version: sallyport(['--version'], {}, link).stdout.trim() },
    {
      version:
        typeof packageFile === 'object' && packageFile && 'version' in packageFile ? packageFile.version : '',
    },
  );
});

test('the thread pool is large enough before anything runs, whatever the environment says', () => {
  const { status, stderr } = sallyport(['gateway', '--state-dir', folder], { UV_THREADPOOL_SIZE: '4' });
  assert.equal(status, 1);
  // The complaint is about the configuration, which comes after the one about threads.
  assert.match(stderr, /^There is no .*sallyport\.yaml: name a configuration with --config/);
});

test('results go to standard output, a mistake to standard error with a suggestion', () => {
  assert.match(sallyport(['--help']).stdout, /Examples:\n {2}sallyport gateway/);
  const { status, stdout, stderr } = sallyport(['shwo']);
  assert.deepEqual([status, stdout], [1, '']);
  assert.match(stderr, /unknown command 'shwo'\n\(Did you mean show\?\)/);
});

test('the socket comes from the environment when -s is absent', () => {
  const named = { SALLYPORT_SOCKET: join(folder, 'named.sock') };
  assert.match(sallyport(['show', 'status'], named).stderr, /nobody answers on .*named\.sock/);
  assert.match(sallyport(['show', 'status', '-s', join(folder, 'own.sock')], named).stderr, /own\.sock/);
});

test('a socket that may not be opened is no gateway that is not running', asRoot, () => {
  chmodSync(folder, 0o755);
  mkdirSync(join(folder, 'state'), { mode: 0o700 });
  const { stderr } = sallyport(['show', 'users'], {}, undefined, { uid: 65_534, gid: 65_534 });
  assert.equal(stderr, 'You may not open ./state/sallyport.sock: run this as the user of the gateway.\n');
});

test('a restarted gateway loads no NestJS before its port is open: clients wait in its backlog', () => {
  const main = JSON.stringify(new URL('./main.js', import.meta.url).href);
  const cli = JSON.stringify(new URL('./cli.js', import.meta.url).href);
  const code = `await import(${cli});
    await import(${main});
    const { createRequire } = await import('node:module');
    const loaded = Object.keys(createRequire(${main}).cache).map((file) => file.split('node_modules/').at(-1));
    console.log(JSON.stringify(loaded.filter((file) => /^(@nestjs|@grpc|rxjs|reflect-metadata)/.test(file))), loaded.length);`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    encoding: 'utf8',
  });
  assert.match(stdout, /^\[\] [1-9]\d+\n$/, stdout + stderr);
});

function sallyport(
  args: string[],
  env: Record<string, string> = {},
  program = join(ROOT, 'bin', 'sallyport'),
  more: { uid?: number; gid?: number } = {},
) {
  return spawnSync(process.execPath, [program, ...args], {
    encoding: 'utf8',
    cwd: folder,
    env: { PATH: '/usr/bin', ...env },
    ...more,
  });
}
