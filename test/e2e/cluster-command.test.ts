/** `npm run cluster` as scripts use it: one line of JSON, and nothing left when it ends, whenever that is. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { after, test } from 'node:test';
import { eventually, ROOT, run } from '../harness/index.ts';

const noTun = existsSync('/dev/net/tun') ? false : 'there is no /dev/net/tun';
const started: Started[] = [];
after(async () => {
  for (const cluster of started) if (!cluster.ended) await cluster.interrupt();
});

test(
  'it says what scripts need in one line; SIGINT takes it down; one that ends early leaves nothing and disturbs no other',
  { skip: noTun },
  async (context) => {
    const first = new Started(['--nodes', '1', '--clients', '2']);
    await eventually('the line of JSON', () => first.ended || first.out.includes('\n'), START_MS, 250);
    assert.equal(first.ended, false, first.err);
    const said = parsed(first.out);
    for (const [key, keys, least] of PROMISED) {
      const all = least === undefined ? [said[key]] : items(said[key]);
      assert.ok(all.length >= (least ?? 1), key);
      for (const one of all) assert.deepEqual(wanted(one, keys), keys, key);
    }
    assert.equal(typeof said['admin'], 'string');
    for (const pid of pidsOf(said)) assert.ok(existsSync(`/proc/${pid}`), `process ${pid}`);

    const second = new Started(['--nodes', '1', '--clients', '1']);
    await eventually(
      'the second starts its services',
      () => second.err.includes('starting Redis, Kafka'),
      START_MS,
      100,
    );
    await second.interrupt();
    assert.equal(second.out, '');
    assert.deepEqual(second.leftovers(), []);
    const sessions = ['show', 'sessions', '-j', '-s', String(said['admin'])];
    const shown = await run([process.execPath, `${ROOT}bin/sallyport`, ...sessions]);
    assert.deepEqual(JSON.parse(shown.stdout), [], 'the first goes on, and its own login is logged out');
    assert.notDeepEqual(first.leftovers(), []);

    const since = performance.now();
    await first.interrupt();
    context.diagnostic(`taken down in ${((performance.now() - since) / 1000).toFixed(1)} s`);
    assert.equal(first.out.trim().split('\n').length, 1, 'nothing else on stdout');
    assert.deepEqual(first.leftovers(), []);
    for (const pid of pidsOf(said)) assert.ok(!existsSync(`/proc/${pid}`), `process ${pid}`);
  },
);

/** A cluster in a process group of its own, as a shell starts it. */
class Started {
  out = '';
  err = '';
  readonly #child: ChildProcess;
  /** All that were seen in its group: one of them gives its laboratory the name. */
  readonly #pids = new Set<number>();

  constructor(options: readonly string[]) {
    const argv = ['run', '--silent', 'cluster', '--', ...options];
    this.#child = spawn('npm', argv, { cwd: ROOT, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => (this.out += text));
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.err += text));
    started.push(this);
  }

  get ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** Namespaces and folders that it made, and processes of its group. */
  leftovers(): string[] {
    const group = this.#group();
    const made = [...namespaceNames(), ...readdirSync(tmpdir())].filter((name) =>
      this.#pids.has(Number(/^sp-(\d+)-/.exec(name)?.[1] ?? -1)),
    );
    return [...made, ...group.map((pid) => `process ${pid}`)];
  }

  /** SIGINT to the group, as Ctrl-C, and the end of all of it. npm's exit code is its own business. */
  async interrupt(): Promise<void> {
    this.#group();
    const ended = this.ended ? undefined : once(this.#child, 'close');
    process.kill(-(this.#child.pid ?? 0), 'SIGINT');
    await ended;
    await eventually('its processes have ended', () => this.#group().length === 0, START_MS);
  }

  #group(): number[] {
    const pids = processes().filter((pid) => groupOf(pid) === this.#child.pid);
    for (const pid of pids) this.#pids.add(pid);
    return pids;
  }
}

function processes(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Process group; NaN = the process is gone or has ended. */
function groupOf(pid: number): number {
  try {
    const [state, , group] = (readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').at(-1) ?? '').split(
      ' ',
    );
    return state === 'Z' ? NaN : Number(group);
  } catch {
    return NaN;
  }
}

function namespaceNames(): string[] {
  return existsSync('/run/netns') ? readdirSync('/run/netns') : [];
}

function parsed(line: string): Record<string, unknown> {
  const value: unknown = JSON.parse(line);
  assert.ok(isRecord(value));
  return value;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What of these keys a thing of the description has. */
function wanted(value: unknown, keys: readonly string[]): string[] {
  return isRecord(value) ? keys.filter((key) => value[key] !== undefined) : [];
}

function items(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function pidsOf(said: Record<string, unknown>): number[] {
  const all = [said['redis'], said['kafka'], ...items(said['nodes'])].filter(isRecord);
  return all.flatMap((one) => [one['pid'], one['supervisor']]).filter((pid) => typeof pid === 'number');
}

/** What scripts rely on; more may stand beside. */
const PROMISED: [key: string, keys: string[], least: number | undefined][] = [
  ['gateway', ['host', 'host6', 'port', 'pin'], undefined],
  ['clients', ['namespace', 'address', 'address6'], 2],
  ['lan', ['host', 'host6'], undefined],
  ['nodes', ['name', 'pid', 'supervisor', 'namespace', 'address', 'port'], 1],
  ['users', ['name', 'password'], 100],
  ['redis', ['pid', 'port'], undefined],
  ['kafka', ['pid', 'port'], undefined],
];
const START_MS = 180_000;
