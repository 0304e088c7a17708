// Builds the Rust workspace in native/, where there is a Rust toolchain; everything works without, only not as well.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findTool } from './debian.mjs';

const NATIVE = join(dirname(dirname(fileURLToPath(import.meta.url))), 'native');
const TARGET = join(NATIVE, 'target');
const STAMP = join(TARGET, '.sallyport-built');
const PROGRAM = join(TARGET, 'release', 'sallyport-supervisor');
/** Edition 2024. */
const OLDEST = [1, 85];
const LOSS = 'restarts cost clients 10 s';

/**
 * @returns {{ cargo: string, version: string } | { missing: string }} the toolchain, or why there is none
 */
export function rustToolchain() {
  const own = join(process.env.CARGO_HOME ?? join(homedir(), '.cargo'), 'bin', 'cargo');
  const cargo = findTool('cargo') ?? (isExecutable(own) ? own : undefined);
  if (!cargo) return { missing: 'there is no cargo' };
  const version = spawnSync(cargo, ['--version'], { encoding: 'utf8', cwd: NATIVE }).stdout?.trim() ?? '';
  const [, major, minor] = /^cargo (\d+)\.(\d+)/.exec(version)?.map(Number) ?? [];
  if (major === undefined) return { missing: 'cargo does not run' };
  if (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1]))
    return { missing: `cargo is ${major}.${minor}, older than ${OLDEST.join('.')}` };
  return { cargo, version };
}

/**
 * Builds what has changed.
 * @returns {string | undefined} one line that says what is lost, if it could not be built
 */
export function buildNative() {
  const rust = rustToolchain();
  if ('missing' in rust) return `No supervisor (${rust.missing}): ${LOSS}.`;
  const want = createHash('sha256').update(rust.version).update(sourceHash()).digest('hex');
  if (existsSync(PROGRAM) && existsSync(STAMP) && readFileSync(STAMP, 'utf8') === want) return undefined;
  console.error('Building the supervisor (a few seconds)');
  const args = ['build', '--release', '--locked', '--quiet', '--target-dir', TARGET];
  const result = spawnSync(rust.cargo, args, { cwd: NATIVE, stdio: ['ignore', 2, 2] });
  if (result.status !== 0) {
    // Said at once: its cause stands above.
    console.error(`The supervisor could not be built (see above): ${LOSS}.`);
    return undefined;
  }
  writeFileSync(STAMP, want);
  return undefined;
}

function sourceHash() {
  const hash = createHash('sha256');
  const files = readdirSync(NATIVE, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(rs|toml|lock)$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !path.startsWith(TARGET))
    .sort();
  for (const path of files) hash.update(relative(NATIVE, path)).update('\0').update(readFileSync(path));
  return hash.digest();
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
