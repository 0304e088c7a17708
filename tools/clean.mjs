// `npm run clean`: removes what the project made in its checkout and on this machine. `state/` (configuration, users,
// certificate, sessions) stays, unless --state is given. Debian packages stay: other programs may use them by now.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { findTool } from './debian.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const STATE = join(ROOT, 'state');

async function main(args) {
  const unknown = args.find((arg) => arg !== '--state');
  if (unknown !== undefined) throw new Error(`Unknown option "${unknown}"; the only one is --state.`);
  if (await isServing(join(STATE, 'sallyport.sock'))) {
    throw new Error('A gateway runs on ./state: stop it first (bin/sallyport stop now).');
  }
  await undoHostChanges();
  removeLaboratories();
  for (const path of built()) rmSync(join(ROOT, path), { recursive: true, force: true });
  if (args.includes('--state')) rmSync(STATE, { recursive: true, force: true });
  else if (existsSync(STATE))
    console.error('state/ (configuration, users, certificate, sessions) is kept; --state removes it too.');
}

/** A gateway that was killed could not take back its nftables table and IP forwarding; the record of them is in its state. */
async function undoHostChanges() {
  if (!existsSync(join(STATE, 'host.json'))) return;
  const host = join(ROOT, 'libs', 'engine', 'dist', 'host.js');
  if (!existsSync(host))
    throw new Error(
      'A killed gateway left changes of this host: run "npm run build" first, so that they can be undone.',
    );
  const { recoverHost } = await import(pathToFileURL(host).href);
  await recoverHost(STATE);
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
  try {
    return /^(node|sallyport)/.test(readFileSync(`/proc/${pid}/comm`, 'utf8'));
  } catch {
    return false;
  }
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
