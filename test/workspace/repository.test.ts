import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { ROOT, run, runTool, trackedFiles } from './checkout.ts';

test('Nx knows every project, offline', () => {
  const env = { NX_DAEMON: 'false', NX_NO_CLOUD: 'true', NX_TUI: 'false' };
  const { status, output } = runTool('nx', ['show', 'projects'], env);
  assert.equal(status, 0, output);
  const expected = [...folders('libs'), ...folders('apps'), 'test'].map((folder) => projectName(folder));
  assert.deepEqual(
    output
      .trim()
      .split('\n')
      .filter((line) => line.startsWith('@'))
      .sort(),
    expected.sort(),
  );
});

test('every project has a tag, a licence and a place in the build', () => {
  const references = readFileSync(`${ROOT}tsconfig.json`, 'utf8');
  for (const folder of [...folders('libs'), ...folders('apps'), 'test']) {
    const manifest = JSON.parse(readFileSync(`${ROOT}${folder}/package.json`, 'utf8')) as {
      nx?: { tags?: string[] };
      license?: string;
      exports?: unknown;
    };
    assert.equal(manifest.nx?.tags?.length, 1, `${folder}: the import rules go by its tag`);
    assert.equal(manifest.license, 'Apache-2.0', folder);
    // Without `exports` an import by package name is not resolved, and the import rules pass it in silence.
    if (folder !== 'test') assert.ok(manifest.exports, `${folder} has no exports`);
    assert.ok(references.includes(`"${folder}"`), `${folder} is not in tsconfig.json`);
  }
});

test('the pages point at files and npm scripts that exist', () => {
  const { scripts } = JSON.parse(readFileSync(`${ROOT}package.json`, 'utf8')) as {
    scripts: Record<string, string>;
  };
  const dead: string[] = [];
  for (const page of trackedFiles().filter((file) => file.endsWith('.md') && existsSync(ROOT + file))) {
    const text = readFileSync(ROOT + page, 'utf8');
    for (const [, target = ''] of text.matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)/g)) {
      if (!existsSync(join(ROOT, dirname(page), target))) dead.push(`${page} -> ${target}`);
    }
    for (const [, script = ''] of text.matchAll(/npm run (?:--[\w-]+ )*([\w:-]+)/g)) {
      if (!(script in scripts)) dead.push(`${page} -> npm run ${script}`);
    }
  }
  assert.deepEqual(dead, []);
});

test('nothing in the repository names a package registry or the place of this checkout', () => {
  const words = [registryHost(), ROOT.slice(0, -1)].filter((word) => word.length >= SHORTEST_TELLING);
  for (const file of trackedFiles()) {
    const path = ROOT + file;
    if (!existsSync(path) || !statSync(path).isFile()) continue;
    const text = readFileSync(path, 'latin1');
    for (const word of words) assert.ok(!text.includes(word), `${file} names ${word}`);
  }
});

/** Not written out: the test itself must not name one. */
const PUBLIC_REGISTRY = ['registry', 'npmjs', 'org'].join('.');

/** Host of the registry that npm is set to here; '' for the public one, which everybody has. */
function registryHost(): string {
  const url = run('npm', ['config', 'get', 'registry']).output.trim();
  const host = URL.canParse(url) ? new URL(url).hostname : '';
  return host === PUBLIC_REGISTRY ? '' : host;
}

function folders(kind: 'libs' | 'apps'): string[] {
  return readdirSync(ROOT + kind, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => `${kind}/${entry.name}`);
}

function projectName(folder: string): string {
  return (JSON.parse(readFileSync(`${ROOT}${folder}/package.json`, 'utf8')) as { name: string }).name;
}

/** A checkout in /app, or a registry called `npm`, would be found in ordinary text. */
const SHORTEST_TELLING = 8;
