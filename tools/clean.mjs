// `npm run clean`: removes what the project made in its checkout and on this machine. `state/` (configuration, users,
// certificate, sessions) stays, unless --state is given. Debian packages stay: other programs may use them by now.
//
//   --state            removes state/, too
//   --state-dir DIR    undoes what a killed gateway with its state in DIR left on this machine; DIR stays
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { findTool } from './debian.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const STATE = join(ROOT, 'state');
const PROGRAM = join(ROOT, 'bin', 'sallyport');

async function main(args) {
  const { values } = parseArgs({
    args,
    options: { state: { type: 'boolean' }, 'state-dir': { type: 'string', multiple: true } },
  });
  const states = [STATE, ...(values['state-dir'] ?? []).map((path) => resolve(path))];
  const pids = gatewaysOfThisCheckout();
  if (pids.length > 0) {
    throw new Error(
      `A gateway runs from this checkout (process ${pids.join(', ')}): stop it first (bin/sallyport stop now, or systemctl disable --now sallyport).`,
    );
  }
  for (const state of states) {
    if (await isServing(join(state, 'sallyport.sock')))
      throw new Error(`A gateway runs on ${state}: stop it first (bin/sallyport stop now).`);
  }
  for (const state of states) await undoHostChanges(state);
  removeLaboratories();
  for (const path of built()) rmSync(join(ROOT, path), { recursive: true, force: true });
  if (values.state) rmSync(STATE, { recursive: true, force: true });
  else if (existsSync(STATE))
    console.error('state/ (configuration, users, certificate, sessions) is kept; --state removes it too.');
}

/** Wherever its state is: without its code it could not load what it needs later. It has our native packages mapped. */
function gatewaysOfThisCheckout() {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      const words = readProc(pid, 'cmdline').split('\0');
      if (words.some((word) => word === PROGRAM)) return true;
      return words[0].startsWith('sallyport') && readProc(pid, 'maps').includes(` ${ROOT}/`);
    });
}

/** '' when the process is gone or another user's. */
function readProc(pid, file) {
  try {
    return readFileSync(join('/proc', pid, file), 'latin1');
  } catch {
    return '';
  }
}

/** A gateway that was killed could not take back its nftables table and IP forwarding; the record of them is in its state. */
async function undoHostChanges(state) {
  if (!existsSync(join(state, 'host.json'))) return;
  const host = join(ROOT, 'libs', 'engine', 'dist', 'host.js');
  if (!existsSync(host))
    throw new Error(
      'A killed gateway left changes of this host: run "npm run build" first, so that they can be undone.',
    );
  const { recoverHost } = await import(pathToFileURL(host).href);
  await recoverHost(state);
}

/** Network namespaces of tests, demo and benches whose process is gone (sp-PID-*, spb-*). */
function removeLaboratories() {
  const ip = findTool('ip');
  if (!ip) return;
  const listed = spawnSync(ip, ['netns', 'list'], { encoding: 'utf8' });
  for (const name of (listed.stdout ?? '').split('\n').map((line) => line.split(' ')[0])) {
    const owner = /^sp-(\d+)-/.exec(name)?.[1];
    if (owner ? isNode(owner) : !name.startsWith('spb-')) continue;
    const pids = spawnSync(ip, ['netns', 'pids', name], { encoding: 'utf8' }).stdout ?? '';
    for (const pid of pids.split('\n').filter(Boolean)) killProcess(Number(pid));
    spawnSync(ip, ['netns', 'del', name], { stdio: 'inherit' });
  }
}

function built() {
  const projects = ['libs', 'apps'].flatMap((kind) =>
    readdirSync(join(ROOT, kind)).map((name) => join(kind, name)),
  );
  return [
    ...[...projects, 'test'].flatMap((project) => [
      join(project, 'dist'),
      join(project, 'tsconfig.tsbuildinfo'),
    ]),
    join('bench', 'build'),
    join('bench', 'out'),
    join('native', 'target'),
    'coverage',
    '.nx',
    'node_modules',
  ];
}

function isServing(path) {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

function isNode(pid) {
  return /^(node|sallyport)/.test(readProc(pid, 'comm'));
}

function killProcess(pid) {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // ended by itself
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`sallyport: ${error.message}`);
  process.exitCode = 1;
});
