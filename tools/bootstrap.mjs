// Brings a checkout into a state in which the npm script that called it can run: Debian packages, npm packages, build.
// Built-in modules only, because it runs before anything is installed. A second run finds nothing to do.
//
//   node tools/bootstrap.mjs PROFILE...      profiles: run, demo, cluster, test, bench, dev (npm packages only)
//     --no-compile   leave the build to the caller: npm test counts type errors as failures
//     --say          say at the end that everything is built
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findTool, installMissingPackages } from './debian.mjs';
import { buildNative } from './native.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const STAMP = join(ROOT, 'node_modules', '.sallyport-installed');
const COMPILER = join(ROOT, 'node_modules', 'typescript7', 'bin', 'tsc');
const LOCK_WAIT_MS = 15 * 60_000;
const PROFILES = ['run', 'demo', 'cluster', 'test', 'bench', 'dev'];

async function main(args) {
  const profiles = args.filter((arg) => !arg.startsWith('--'));
  const unknown = profiles.find((profile) => !PROFILES.includes(profile));
  if (unknown !== undefined) throw new Error(`Unknown profile "${unknown}": use ${PROFILES.join(', ')}.`);
  checkNode();
  const release = await takeLock();
  try {
    installMissingPackages(profiles);
    installNpmPackages();
    if (!args.includes('--no-compile')) compile();
    const without = profiles.includes('run') ? buildNative() : undefined;
    if (args.includes('--say') && without) console.error(without);
    if (args.includes('--say')) console.error('Everything is installed and built; nothing was started.');
  } finally {
    release();
  }
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return;
  throw new Error(
    `This is Node ${process.versions.node}, and Sallyport needs 20.19 or newer: install a newer Node and start again.`,
  );
}

/** `npm ci`, when the lock file or Node has changed since the last one: native packages fit one Node only. */
function installNpmPackages() {
  const want = createHash('sha256')
    .update(readFileSync(join(ROOT, 'package-lock.json')))
    .update(process.version)
    .digest('hex');
  if (existsSync(STAMP) && readFileSync(STAMP, 'utf8').trim() === want) return;
  console.error('Installing npm packages (about a minute the first time)');
  rmSync(STAMP, { force: true });
  const npm = npmCommand();
  // dev packages hold the compiler, and NODE_ENV=production would leave them out.
  const args = [
    ...npm.slice(1),
    'ci',
    '--include=dev',
    '--include=optional',
    '--no-audit',
    '--no-fund',
    '--loglevel=error',
  ];
  const result = spawnSync(npm[0], args, {
    cwd: ROOT,
    stdio: ['ignore', 2, 2],
    env: { ...process.env, ...nodeHeaders(), npm_config_progress: 'false' },
  });
  if (result.status !== 0)
    throw new Error('"npm ci" failed (its words are above): mend that and start again.');
  if (!existsSync(join(ROOT, 'node_modules', 'tuntap2', 'package.json')))
    throw new Error(tunPackageMissing());
  writeFileSync(STAMP, want + '\n');
}

/** Inside an npm script the npm that runs it, else the one on the path. */
function npmCommand() {
  const script = process.env.npm_execpath;
  if (script && existsSync(script) && script.includes('npm')) return [process.execPath, script];
  const npm = findTool('npm');
  if (npm) return [npm];
  throw new Error('npm is not on the path: it comes with Node, install it and start again.');
}

/** node-gyp takes Node's headers from here instead of downloading them. */
function nodeHeaders() {
  const prefix = headerPrefix();
  return prefix ? { npm_config_nodedir: prefix } : {};
}

function headerPrefix() {
  const prefixes = [dirname(dirname(process.execPath)), '/usr', '/usr/local'];
  return prefixes.find((prefix) => existsSync(join(prefix, 'include', 'node', 'node_api.h')));
}

function tunPackageMissing() {
  const cause = headerPrefix()
    ? 'run "npm install tuntap2 --no-save --foreground-scripts" to see why'
    : `no headers of Node ${process.version} were found: install Node from a package that brings include/node, or let this machine reach nodejs.org`;
  return `The TUN package (tuntap2) could not be compiled, and without it there is no tunnel; ${cause}.`;
}

function compile() {
  const result = spawnSync(process.execPath, [COMPILER, '-b'], { cwd: ROOT, stdio: ['ignore', 2, 2] });
  if (result.status !== 0) throw new Error('The source does not compile (see above).');
}

/**
 * One bootstrap at a time in a checkout: two parallel starts must not run two `npm ci`. The lock is an abstract socket,
 * which the kernel takes away with the process that holds it.
 */
async function takeLock() {
  const name = `\0sallyport-bootstrap-${createHash('sha256').update(ROOT).digest('hex').slice(0, 32)}`;
  const deadline = Date.now() + LOCK_WAIT_MS;
  for (let told = false; ; told = true) {
    const server = await listenOn(name);
    if (server) return () => server.close();
    if (Date.now() > deadline)
      throw new Error('Another bootstrap of this checkout does not end: end it and start again.');
    if (!told) console.error('Waiting for another bootstrap of this checkout');
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

function listenOn(name) {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', (error) => (error.code === 'EADDRINUSE' ? resolve(undefined) : reject(error)));
    server.listen(name, () => resolve(server));
  });
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`sallyport: ${error.message}`);
  process.exitCode = 1;
});
