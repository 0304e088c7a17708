import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Clock } from './clock.ts';
import type { NodeReport, Nodes } from './nodes.ts';
import { TestClock } from './session.fake.ts';

/** The rules that every form of the table of nodes keeps. */
export function nodesContract(name: string, open: (clock: Clock) => Promise<Nodes>): void {
  describe(`nodes: ${name}`, () => {
    const report = (node: string, changes: Partial<NodeReport> = {}): NodeReport => ({
      name: node,
      incarnation: 'i1',
      number: 1,
      address: '10.0.0.1:7443',
      version: '1.0.0',
      tunnels: 3,
      unready: false,
      ...changes,
    });

    it('lists what the nodes last told, by name, and knows who lives', async () => {
      const clock = new TestClock();
      const nodes = await open(clock.read);
      await nodes.heartbeat(report('n2', { unready: true }), clock.now);
      clock.pass(2);
      const told = await nodes.heartbeat(report('n1', { tunnels: 5, home: 'has a' }), clock.now + 700n);
      assert.deepEqual([told.clockOffset, told.home], [700n, 'has a']);
      assert.deepEqual((await nodes.list())[0], { ...told, alive: true });
      clock.pass(1);
      assert.deepEqual(
        (await nodes.list()).map((node) => [node.name, node.unready, node.alive]),
        [
          ['n1', false, true],
          ['n2', true, false],
        ],
      );
    });

    it('takes a node for alive by the time of its heartbeat here, wherever its own clock stands', async () => {
      const clock = new TestClock();
      const nodes = await open(clock.read);
      await nodes.heartbeat(report('n1'), clock.now - 3_600_000_000n);
      await nodes.heartbeat(report('n2'), clock.now + 3_600_000_000n);
      assert.deepEqual(
        (await nodes.list()).map((node) => node.alive),
        [true, true],
      );
    });

    it('keeps a drain flag over heartbeats and incarnations until it is taken back', async () => {
      const clock = new TestClock();
      const nodes = await open(clock.read);
      assert.equal(await nodes.drain('n1', true), false, 'no such node');
      await nodes.heartbeat(report('n1'), clock.now);
      assert.equal(await nodes.drain('n1', true), true);
      assert.equal((await nodes.heartbeat(report('n1', { incarnation: 'i2' }), clock.now)).drain, true);
      await nodes.drain('n1', false);
      assert.equal((await nodes.heartbeat(report('n1', { incarnation: 'i2' }), clock.now)).drain, false);
    });

    it('forgets a node that leaves, but not for an older incarnation of it, and one that is silent for a day', async () => {
      const clock = new TestClock();
      const nodes = await open(clock.read);
      for (const node of ['n1', 'n2', 'n3'])
        await nodes.heartbeat(report(node, { incarnation: 'i2' }), clock.now);
      await nodes.leave({ name: 'n1', incarnation: 'i1' });
      await nodes.leave({ name: 'n2', incarnation: 'i2' });
      clock.pass(86_000);
      await nodes.heartbeat(report('n3', { incarnation: 'i2' }), clock.now);
      assert.deepEqual(
        (await nodes.list()).map((node) => node.name),
        ['n1', 'n3'],
      );
      clock.pass(401);
      assert.deepEqual(
        (await nodes.list()).map((node) => node.name),
        ['n3'],
      );
    });
  });
}
