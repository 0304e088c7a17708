import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { CommandFailed } from './commands.ts';
import {
  FRESH_METRIC,
  RoutedPath,
  ROUTES_PER_BATCH,
  SETTLE_SECONDS,
  SETTLED_METRIC,
} from './return-path.routed.ts';

describe('RoutedPath', () => {
  it('sets a route for each address of a tunnel, and takes it back', async (t) => {
    const world = open(t);
    world.path.announce(1, { ipv4: '10.90.0.5', ipv6: 'fd90::5', ipv6PrefixLength: 128 });
    world.path.announce(2, { ipv4: '', ipv6: 'fd90:0:0:7::', ipv6PrefixLength: 64 });
    await world.settled();
    assert.deepEqual(world.kernel(), ['10.90.0.5/32 100', 'fd90:0:0:7::/64 100', 'fd90::5/128 100']);
    assert.deepEqual(world.path.stats().routes, { announced: 3, waiting: 0, failures: 0 });
    world.path.withdraw(1);
    world.path.withdraw(1);
    await world.settled();
    assert.deepEqual(world.kernel(), ['fd90:0:0:7::/64 100']);
    assert.deepEqual(world.forgotten, ['10.90.0.5/32', 'fd90::5/128']);
  });

  it('lowers the preference after its time, without a moment without a route', async (t) => {
    const world = open(t);
    world.announce(1);
    await world.settled();
    world.now += SETTLE_SECONDS * 1000 - 1;
    world.path.handleTick();
    await world.settled();
    assert.deepEqual(world.kernel(), [`10.90.0.1/32 ${FRESH_METRIC}`]);
    world.now += 1;
    world.path.handleTick();
    await world.settled();
    assert.deepEqual(world.kernel(), [`10.90.0.1/32 ${SETTLED_METRIC}`]);
    assert.deepEqual(world.lines.slice(-2), [
      'route replace 10.90.0.1/32 dev tun7 proto 183 metric 200',
      'route delete 10.90.0.1/32 dev tun7 proto 183 metric 100',
    ]);
    assert.deepEqual(world.forgotten, []);
    world.path.withdraw(1);
    await world.settled();
    assert.deepEqual(world.kernel(), []);
  });

  it('keeps the route of an address that goes from one tunnel to the next, and announces it afresh', async (t) => {
    const world = open(t);
    world.announce(1);
    await world.settled();
    world.now += SETTLE_SECONDS * 1000;
    world.path.handleTick();
    await world.settled();
    world.lines.length = 0;
    world.path.withdraw(1);
    world.announce(2, '10.90.0.1');
    world.path.withdraw(1);
    await world.settled();
    assert.deepEqual(world.lines, [
      'route replace 10.90.0.1/32 dev tun7 proto 183 metric 100',
      'route delete 10.90.0.1/32 dev tun7 proto 183 metric 200',
    ]);
    assert.deepEqual(world.forgotten, []);

    // Also when the older tunnel goes after the newer one came.
    world.announce(3, '10.90.0.1');
    world.path.withdraw(2);
    await world.settled();
    assert.deepEqual(world.kernel(), ['10.90.0.1/32 100']);
  });

  it('goes on when the kernel refuses one, says so once, and tries again', async (t) => {
    const world = open(t);
    world.refused.add('10.90.0.2/32');
    for (let id = 1; id <= 3; id += 1) world.announce(id);
    await world.settled();
    assert.deepEqual(world.kernel(), ['10.90.0.1/32 100', '10.90.0.3/32 100']);
    world.path.handleTick();
    await world.settled();
    assert.deepEqual(world.path.stats().routes, { announced: 3, waiting: 0, failures: 2 });
    assert.deepEqual(world.problems, ['RTNETLINK answers: Operation not permitted']);
    world.refused.clear();
    world.path.handleTick();
    await world.settled();
    assert.equal(world.kernel().length, 3);
    world.path.handleTick();
    await world.settled();
    assert.equal(world.path.stats().routes?.failures, 2);
  });

  it('does a batch again when it is unknown what of it was done', async (t) => {
    const world = open(t);
    world.announce(1);
    await world.settled();
    world.breaks = true;
    world.path.withdraw(1);
    world.announce(2);
    await world.settled();
    world.breaks = false;
    assert.deepEqual(world.forgotten, []);
    world.path.handleTick();
    await world.settled();
    assert.deepEqual(world.kernel(), ['10.90.0.2/32 100']);
    assert.deepEqual(world.forgotten, ['10.90.0.1/32']);
  });

  it('takes a route that is gone already for deleted', async (t) => {
    const world = open(t);
    world.announce(1);
    await world.settled();
    world.routes.clear();
    world.path.withdraw(1);
    await world.settled();
    assert.deepEqual(world.path.stats().routes, { announced: 0, waiting: 0, failures: 0 });
  });

  it('goes to the kernel in batches of a bounded size, one at a time, and never with what was overtaken', async (t) => {
    const world = open(t);
    const count = 2 * ROUTES_PER_BATCH + 10;
    for (let id = 1; id <= count; id += 1) world.announce(id);
    for (let id = 1; id <= count; id += 2) world.path.withdraw(id);
    await world.settled();
    assert.equal(world.kernel().length, count / 2);
    assert.equal(world.lines.length, count / 2);
    assert.ok(world.batches.length >= 2 && Math.max(...world.batches) <= ROUTES_PER_BATCH);
    assert.equal(world.mostAtOnce, 1);
    assert.deepEqual(world.path.stats().routes, { announced: count / 2, waiting: 0, failures: 0 });
  });
});

function open(t: TestContext): World {
  const world = new World();
  t.after(() => world.path.close());
  return world;
}

/** A kernel that understands two sentences. */
class World {
  readonly routes = new Set<string>();
  readonly refused = new Set<string>();
  readonly lines: string[] = [];
  readonly batches: number[] = [];
  readonly forgotten: string[] = [];
  readonly problems: string[] = [];
  breaks = false;
  now = 0;
  mostAtOnce = 0;
  #atOnce = 0;
  readonly path = new RoutedPath({
    device: 'tun7',
    conntrack: { forget: (prefix) => void this.forgotten.push(prefix), close: () => Promise.resolve() },
    onProblem: (problem) => void this.problems.push(problem),
    batch: (lines) => this.#batch(lines),
    now: () => this.now,
  });

  announce(id: number, ipv4 = `10.90.${id >> 8}.${id & 255}`): void {
    this.path.announce(id, { ipv4, ipv6: '', ipv6PrefixLength: 128 });
  }

  kernel(): string[] {
    return [...this.routes].sort();
  }

  /** Batches follow each other from one turn of the event loop to the next. */
  async settled(): Promise<void> {
    for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
  }

  async #batch(lines: readonly string[]): Promise<Map<number, string>> {
    this.#atOnce += 1;
    this.mostAtOnce = Math.max(this.mostAtOnce, this.#atOnce);
    await new Promise(setImmediate);
    this.#atOnce -= 1;
    if (this.breaks) throw new CommandFailed('ip -batch failed: killed');
    this.lines.push(...lines);
    this.batches.push(lines.length);
    const failed = new Map<number, string>();
    for (const [at, line] of lines.entries()) {
      const [, verb, prefix = '', metric] =
        /^route (replace|delete) (\S+) dev tun7 proto 183 metric (\d+)$/.exec(line) ?? assert.fail(line);
      const route = `${prefix} ${metric}`;
      if (this.refused.has(prefix)) failed.set(at, 'RTNETLINK answers: Operation not permitted');
      else if (verb === 'replace') this.routes.add(route);
      else if (!this.routes.delete(route)) failed.set(at, 'RTNETLINK answers: No such process');
    }
    return failed;
  }
}
