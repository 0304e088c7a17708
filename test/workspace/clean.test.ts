import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ROOT } from './checkout.ts';

// A small checkout of its own, because the real one must stay. The `ip` on its path knows no network namespaces.

const folder = mkdtempSync(join(tmpdir(), 'sallyport-clean-'));
after(() => rmSync(folder, { recursive: true }));

test('clean refuses while a gateway runs from this checkout, wherever its state is', async () => {
  const root = checkout('busy');
  for (const start of [byItsPath, byWhatItHasMapped]) {
    const gateway = await start(root);
    try {
      const { status, stderr } = clean(root);
      assert.equal(status, 1);
      assert.match(stderr, new RegExp(`A gateway runs from this checkout \\(process ${gateway.pid}\\)`));
      assert.ok(existsSync(join(root, 'node_modules')));
    } finally {
      await ended(gateway);
    }
  }
  assert.equal(clean(root).status, 0);
  assert.equal(existsSync(join(root, 'node_modules')), false);
});

test('clean undoes what a killed gateway with its state elsewhere left on the machine, and keeps that state', () => {
  const root = checkout('elsewhere');
  const state = join(folder, 'state-elsewhere');
  mkdirSync(state);
  writeFileSync(join(state, 'host.json'), '{}');
  writeFileSync(join(state, 'users'), '');
  const { status, stderr } = clean(root, '--state-dir', state);
  assert.equal(status, 0, stderr);
  assert.equal(existsSync(join(state, 'host.json')), false);
  assert.ok(existsSync(join(state, 'users')));
});

function checkout(name: string): string {
  const root = join(folder, name);
  for (const path of ['bin', 'path', 'apps', 'bench', 'node_modules', 'libs/engine/dist'])
    mkdirSync(join(root, path), { recursive: true });
  cpSync(join(ROOT, 'tools'), join(root, 'tools'), { recursive: true });
  writeFileSync(join(root, 'path', 'ip'), '#!/bin/sh\n', { mode: 0o755 });
  writeFileSync(join(root, 'bin', 'sallyport'), 'console.log(1); setInterval(() => undefined, 1000);\n');
  const host = `import { rmSync } from 'node:fs';
    export const recoverHost = async (state) => rmSync(state + '/host.json');\n`;
  writeFileSync(join(root, 'libs/engine/dist/host.js'), host);
  writeFileSync(join(root, 'libs/engine/dist/package.json'), '{"type":"module"}');
  return root;
}

function clean(root: string, ...args: string[]) {
  return spawnSync(process.execPath, [join(root, 'tools', 'clean.mjs'), ...args], {
    encoding: 'utf8',
    env: { PATH: `${join(root, 'path')}:/usr/bin:/bin` },
  });
}

function byItsPath(root: string): Promise<ChildProcess> {
  return started([join(root, 'bin', 'sallyport')]);
}

/** As one that has given itself a title: its command line names nothing any more. */
function byWhatItHasMapped(root: string): Promise<ChildProcess> {
  const addon = join(root, 'node_modules', 'addon.node');
  cpSync(nativeAddon(), addon);
  const code = `require(${JSON.stringify(addon)}); process.title = 'sallyport gateway'; console.log(1);`;
  return started(['-e', `${code} setInterval(() => undefined, 1000)`]);
}

async function started(args: string[]): Promise<ChildProcess> {
  const child = spawn(process.execPath, args, { cwd: '/', stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => child.stdout?.once('data', resolve));
  return child;
}

async function ended(child: ChildProcess): Promise<void> {
  const exit = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await exit;
}

/** Any that Node loads. */
function nativeAddon(): string {
  const require = createRequire(join(ROOT, 'package.json'));
  require('@node-rs/argon2');
  const loaded = Object.keys(require.cache).find((file) => file.endsWith('.node'));
  assert.ok(loaded);
  return loaded;
}
