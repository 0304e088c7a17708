// `npm test`: compiles, then Node's test runner over everything, types, lint and format included, so that one summary
// counts all. `npm test -- WORD...` runs only the files whose path holds one of the words.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { run } from 'node:test';
import { spec, tap } from 'node:test/reporters';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const COMPILER = join(ROOT, 'node_modules', 'typescript7', 'bin', 'tsc');
const TYPES_TEST = join('tools', 'types.test.mjs');
/** Those that take a minute: begun last, one of them would run alone at the end. */
const FIRST = [
  join('test', 'workspace', 'lint.test.ts'),
  join('test', 'e2e', 'refused-stores.test.ts'),
  join('libs', 'cluster', 'src', 'restore.test.ts'),
];
/** Per file; the slowest are laboratories with the real client. */
const FILE_TIMEOUT_MS = 15 * 60_000;
/** Tests drive real clients: more at once would only make them wait for each other. */
const CONCURRENCY = 2;
/** Whole clusters, also of Kafka, and what looks at a process for long: one after the other, when all the rest is done. */
const ALONE = /^test\/e2e\/(cluster|soak|supervised)|^libs\/cluster\/src\/kafka-brokers/;

async function main(words) {
  if (process.getuid?.() !== 0 && words.length === 0) {
    console.error(
      'sallyport: the end-to-end tests make network namespaces, so run "npm test" as root, or name unit tests: npm test -- libs/',
    );
    return 1;
  }
  const compiled =
    spawnSync(process.execPath, [COMPILER, '-b'], { cwd: ROOT, stdio: ['ignore', 2, 2] }).status === 0;
  const all = sources();
  const chosen =
    words.length === 0 ? all : all.filter((file) => words.some((word) => file.source.includes(word)));
  chosen.sort((a, b) => Number(FIRST.includes(b.source)) - Number(FIRST.includes(a.source)));
  const there = chosen.filter((file) => existsSync(join(ROOT, file.compiled)));
  const pathsOf = (files) => files.map((file) => join(ROOT, file.compiled));
  const together = pathsOf(there.filter((file) => !ALONE.test(file.source)));
  const alone = pathsOf(there.filter((file) => ALONE.test(file.source)));
  if (words.length === 0 || !compiled) together.unshift(join(ROOT, TYPES_TEST)); // fails when something does not compile
  if (together.length + alone.length === 0) {
    console.error(`sallyport: no test file's path holds ${words.join(' or ')}.`);
    return 1;
  }
  return runInOrder([
    { files: together, concurrency: CONCURRENCY },
    { files: alone, concurrency: 1 },
  ]);
}

/** Like `node --test`, which would sort the files by name and knows one concurrency. @returns exit code */
function runInOrder(groups) {
  process.env['UV_THREADPOOL_SIZE'] = '16';
  let code = 0;
  const events = Readable.from(oneRun(groups.filter(({ files }) => files.length > 0)));
  events.on('data', ({ type, data }) => {
    if (type === 'test:fail' && (data.todo === undefined || data.todo === false)) code = 1;
  });
  const report = events.compose(process.stdout.isTTY ? new spec() : tap);
  report.pipe(process.stdout);
  return new Promise((resolve) => report.once('end', () => resolve(code)));
}

/** The events of one run after the other as those of one: with numbers that go on, and one summary of all. */
async function* oneRun(groups) {
  const sums = new Map();
  let count = 0;
  let plan;
  for (const { files, concurrency } of groups) {
    const before = count;
    for await (const event of run({ files, concurrency, timeout: FILE_TIMEOUT_MS })) {
      const { type, data } = event;
      const isOuter = data?.nesting === 0;
      const [, name, value] = (isOuter && type === 'test:diagnostic' && SUMMARY.exec(data.message)) || [];
      if (name !== undefined) sums.set(name, (sums.get(name) ?? 0) + Number(value));
      else if (isOuter && type === 'test:plan')
        plan = { type, data: { ...data, count: (count = before + data.count) } };
      else if (isOuter && RESULTS.includes(type))
        yield { type, data: { ...data, testNumber: before + data.testNumber } };
      else if (type !== 'test:summary') yield event;
    }
  }
  if (plan !== undefined) yield plan;
  for (const [name, sum] of sums)
    yield { type: 'test:diagnostic', data: { nesting: 0, message: `${name} ${sum}`, level: 'info' } };
}

const SUMMARY = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) ([\d.]+)$/;
const RESULTS = ['test:pass', 'test:fail', 'test:complete'];

/**
 * Test files, made from the sources and not from `dist`: the compiled test of a deleted source never runs. By name and
 * not by glob, which the runner of Node 20 does not know.
 * @returns {{ source: string, compiled: string }[]} paths relative to the root
 */
function sources() {
  const projects = ['libs', 'apps'].flatMap((kind) =>
    readdirSync(join(ROOT, kind)).map((name) => join(kind, name)),
  );
  const inProjects = projects.flatMap((project) => testsUnder(project, 'src', ''));
  const folders = readdirSync(join(ROOT, 'test'), { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !['dist', 'node_modules'].includes(entry.name))
    .map((entry) => entry.name);
  return [...inProjects, ...folders.flatMap((folder) => testsUnder('test', folder, folder))];
}

function testsUnder(project, folder, folderInDist) {
  const base = join(ROOT, project, folder);
  if (!existsSync(base)) return [];
  return readdirSync(base, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.test.ts'))
    .map((entry) => relative(base, join(entry.parentPath, entry.name)))
    .sort()
    .map((path) => ({
      source: join(project, folder, path),
      compiled: join(project, 'dist', folderInDist, path.replace(/\.ts$/, '.js')),
    }));
}

process.exitCode = await main(process.argv.slice(2));
