import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { CommandFailed } from './commands.ts';
import {
  CHECK_MS,
  FRESH_METRIC,
  HOME_METRIC,
  RoutedPath,
  ROUTES_PER_BATCH,
  ROUTES_PER_CHECK,
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

  it('sets again what somebody took away, and says how many', async (t) => {
    const world = open(t);
    world.announce(1);
    world.path.settle(['10.91.0.0/16']);
    world.path.announce(2, { ipv4: '', ipv6: 'fd90::5', ipv6PrefixLength: 128 });
    await world.settled();
    const before = world.kernel();
    world.routes.delete('10.90.0.1/32 100');
    world.routes.delete('fd90::5/128 100');
    world.now += CHECK_MS - 1;
    world.path.handleTick();
    await world.settled();
    assert.equal(world.kernel().length, 1, 'not asked yet');
    world.now += 1;
    world.path.handleTick();
    await world.settled();
    assert.deepEqual(world.kernel(), before);
    world.routes.clear();
    world.now += CHECK_MS;
    world.path.handleTick();
    await world.settled();
    assert.deepEqual(world.kernel(), before);
    world.now += CHECK_MS;
    world.path.handleTick();
    await world.settled();
    assert.deepEqual(world.restored, [2, 3]);
    assert.deepEqual(world.forgotten, []);
  });

  it('asks less often for more routes', async (t) => {
    const world = open(t);
    const asked = async (seconds: number) => {
      const before = world.lists;
      for (let second = 0; second < seconds; second += 1) {
        world.now += 1000;
        world.path.handleTick();
        await world.settled();
      }
      return world.lists - before;
    };
    world.announce(1);
    assert.equal(await asked(12), 6);
    for (let id = 2; id <= 2 * ROUTES_PER_CHECK + 1; id += 1) world.announce(id);
    await world.settled();
    assert.equal(await asked(12), 2);
  });
});

describe('RoutedPath at home', () => {
  it('announces the aggregates, and a client there only for the time in which another node may have it', async (t) => {
    const world = open(t);
    world.path.settle(['10.90.0.0/25', 'fd90::/65']);
    await world.settled();
    assert.deepEqual(world.kernel(), [`10.90.0.0/25 ${HOME_METRIC}`, `fd90::/65 ${HOME_METRIC}`]);
    world.path.announce(1, { ipv4: '10.90.0.5', ipv6: 'fd90::5', ipv6PrefixLength: 128 });
    world.announce(2, '10.90.0.200');
    world.path.announce(3, { ipv4: '10.90.0.6', ipv6: '', ipv6PrefixLength: 128 }, true);
    world.path.announce(4, { ipv4: '10.90.0.201', ipv6: '', ipv6PrefixLength: 128 }, true);
    await world.settled();
    const home = ['10.90.0.0/25 300', 'fd90::/65 300'];
    assert.deepEqual(world.kernel(), [
      '10.90.0.0/25 300',
      '10.90.0.200/32 100',
      '10.90.0.201/32 100',
      '10.90.0.5/32 100',
      'fd90::/65 300',
      'fd90::5/128 100',
    ]);
    world.now += SETTLE_SECONDS * 1000;
    world.path.handleTick();
    await world.settled();
    assert.deepEqual(world.kernel(), [
      '10.90.0.0/25 300',
      '10.90.0.200/32 200',
      '10.90.0.201/32 200',
      'fd90::/65 300',
    ]);
    assert.deepEqual(world.forgotten, []);
    for (const id of [1, 2, 3, 4]) world.path.withdraw(id);
    await world.settled();
    assert.deepEqual(world.kernel(), home);
    assert.deepEqual(world.forgotten.sort(), [
      '10.90.0.200/32',
      '10.90.0.201/32',
      '10.90.0.5/32',
      '10.90.0.6/32',
      'fd90::5/128',
    ]);
  });

  it('takes the routes of clients back a minute after the aggregate came, and sets them before it goes', async (t) => {
    const world = open(t);
    world.announce(1, '10.90.0.5');
    await world.settled();
    world.now += SETTLE_SECONDS * 1000;
    world.path.handleTick();
    world.path.settle(['10.90.0.0/24']);
    await world.settled();
    assert.deepEqual(world.kernel(), ['10.90.0.0/24 300', '10.90.0.5/32 200']);
    world.now += SETTLE_SECONDS * 1000;
    world.path.handleTick();
    await world.settled();
    assert.deepEqual(world.kernel(), ['10.90.0.0/24 300']);
    world.path.announce(2, { ipv4: '10.90.0.6', ipv6: '', ipv6PrefixLength: 128 }, true);
    await world.settled();
    world.lines.length = 0;
    world.path.settle(['10.90.1.0/24']);
    await world.settled();
    assert.deepEqual(world.kernel(), ['10.90.0.5/32 200', '10.90.0.6/32 200', '10.90.1.0/24 300']);
    const gone = world.lines.findIndex((line) => line.startsWith('route delete 10.90.0.0/24'));
    assert.ok(
      gone > world.lines.findIndex((line) => line.startsWith('route replace 10.90.0.6/32')),
      world.lines.join(),
    );
  });

  it('does not count on an aggregate that the kernel refuses', async (t) => {
    const world = open(t);
    world.refused.add('10.90.0.0/24');
    world.path.settle(['10.90.0.0/24']);
    await world.settled();
    world.path.announce(1, { ipv4: '10.90.0.5', ipv6: '', ipv6PrefixLength: 128 }, true);
    await world.settled();
    assert.deepEqual(world.kernel(), ['10.90.0.5/32 100']);
  });

  it('keeps an aggregate apart from the prefix of a client that is the same', async (t) => {
    const world = open(t);
    world.path.settle(['fd90::/64']);
    world.path.announce(1, { ipv4: '', ipv6: 'fd90::1', ipv6PrefixLength: 64 });
    await world.settled();
    world.path.withdraw(1);
    await world.settled();
    assert.deepEqual(world.kernel(), ['fd90::/64 300']);
    world.path.settle([]);
    await world.settled();
    assert.deepEqual(world.kernel(), []);
    assert.deepEqual(world.path.stats().routes, { announced: 0, waiting: 0, failures: 0 });
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
  readonly restored: number[] = [];
  breaks = false;
  lists = 0;
  now = 0;
  mostAtOnce = 0;
  #atOnce = 0;
  readonly path = new RoutedPath({
    device: 'tun7',
    conntrack: { forget: (prefix) => void this.forgotten.push(prefix), close: () => Promise.resolve() },
    onProblem: (problem) => void this.problems.push(problem),
    onRestored: (count) => void this.restored.push(count),
    batch: (lines) => this.#batch(lines),
    list: () => {
      this.lists += 1;
      return Promise.resolve([...this.routes]);
    },
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
