/** `routed` on a real TUN device: what somebody takes away comes back, and all goes with the device. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Conntrack } from './conntrack.ts';
import { createEngine } from './create.ts';
import { inNamespace } from './namespace.ts';
import { CHECK_MS, RoutedPath } from './return-path.routed.ts';

inNamespace(import.meta.url, () => {
  test('routes and addresses come back when the device was set down, or somebody removed them', async (t) => {
    const engine = await createEngine({
      ...{ engine: 'auto', device: 'sproute0', poolRoutes: false },
      pools: ['10.90.0.0/16', 'fd90::/64'],
    });
    const restored: number[] = [];
    const path = new RoutedPath({
      ...{ device: 'sproute0', conntrack: new Conntrack(), onProblem: () => undefined },
      onRestored: (count) => void restored.push(count),
    });
    t.after(async () => {
      await path.close();
      await engine.close();
    });
    path.settle(['10.90.0.0/18', 'fd90::/66']);
    path.announce(1, { ipv4: '10.90.77.5', ipv6: 'fd90::8000:0:0:5', ipv6PrefixLength: 128 });
    path.announce(2, { ipv4: '', ipv6: 'fd90:0:0:7::1', ipv6PrefixLength: 64 });
    const all = [
      '10.90.0.0/18 metric 300',
      '10.90.77.5 metric 100',
      'fd90:0:0:7::/64 metric 100',
      'fd90::/66 metric 300',
      'fd90::8000:0:0:5 metric 100',
    ];
    await until(() => routes().join() === all.join());

    ip('route', 'delete', '10.90.77.5', 'dev', 'sproute0');
    ip('-6', 'route', 'delete', 'fd90::/66', 'dev', 'sproute0');
    await until(() => routes().join() === all.join());
    assert.deepEqual(restored, [2]);

    ip('link', 'set', 'sproute0', 'down');
    assert.deepEqual(routes(), []);
    ip('link', 'set', 'sproute0', 'up');
    await until(() => routes().join() === all.join());
    await until(() => ip('-6', 'address', 'show', 'dev', 'sproute0').includes('fd90::1/128'));

    // Nobody sets it up again but the gateway itself.
    ip('link', 'set', 'sproute0', 'down');
    await until(() => routes().join() === all.join());

    const { length } = restored;
    await delay(2 * CHECK_MS);
    assert.equal(restored.length, length, 'nothing is restored without a loss');
    assert.deepEqual(path.stats().routes?.waiting, 0);
    path.withdraw(1);
    path.withdraw(2);
    path.settle([]);
    await until(() => routes().length === 0);
  });
});

function routes(): string[] {
  const lists = ['-4', '-6'].map((family) => ip(family, 'route', 'show', 'dev', 'sproute0', 'proto', '183'));
  const lines = lists.flatMap((list) => [...list.matchAll(/^(\S+) .*?(metric \d+)/gm)]);
  return lines.map(([, prefix, metric]) => `${prefix} ${metric}`).sort();
}

function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8' });
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!condition()) {
    if (performance.now() > deadline) assert.fail(`still ${routes().join(', ')}`);
    await delay(50);
  }
}

const PATIENCE_MS = 30_000;
