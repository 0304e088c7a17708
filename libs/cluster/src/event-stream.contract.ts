import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { EventStream, StreamEntry } from './event-stream.ts';
import { compareEntryIds } from './event-stream.ts';

/** What the contract needs beside the interface. */
export interface StreamUnderTest {
  stream: EventStream;
  append(entry: Omit<StreamEntry, 'id'>): string | Promise<string>;
  /** Lets the lease run out. */
  pass(millis: number): void | Promise<void>;
  close(): void | Promise<void>;
}

/** The behaviour that every form of EventStream shares. */
export function eventStreamContract(
  name: string,
  open: () => StreamUnderTest | Promise<StreamUnderTest>,
): void {
  describe(name, () => {
    const on = (what: string, body: (under: StreamUnderTest) => Promise<void>) =>
      void it(what, async () => {
        const under = await open();
        try {
          await body(under);
        } finally {
          await under.close();
        }
      });

    on(
      'gives the entries in order, from the first, and no more than asked for',
      async ({ stream, append }) => {
        for (const n of [1, 2, 3]) await append(fact(n));
        const { entries, gap, reign } = await stream.read(2);
        assert.deepEqual(
          entries.map(({ sessionId, type, data }) => ({ sessionId, type, data })),
          [fact(1), fact(2)],
        );
        assert.ok(compareEntryIds(entries[0]?.id ?? '', entries[1]?.id ?? '') < 0);
        assert.equal(gap, undefined);
        assert.notEqual(reign, '');
      },
    );

    on('has one reader at a time, until the lease is dropped or runs out', async ({ stream, pass }) => {
      assert.equal(await stream.takeLease('a', 60_000), true);
      assert.equal(await stream.takeLease('b', 60_000), false);
      assert.equal(await stream.takeLease('a', 60_000), true, 'renewed');
      await stream.dropLease('b');
      assert.equal(await stream.takeLease('b', 60_000), false, 'b had nothing to drop');
      await stream.dropLease('a');
      assert.equal(await stream.takeLease('b', 300), true);
      await pass(400);
      assert.equal(await stream.takeLease('a', 60_000), true);
    });

    on(
      'trims up to an entry, for the holder of the lease and in its reign only',
      async ({ stream, append }) => {
        for (const n of [1, 2, 3]) await append(fact(n));
        await stream.takeLease('a', 10_000);
        const { reign, entries } = await stream.read(10);
        const second = entries[1]?.id ?? '';
        assert.equal(await stream.trim('b', reign, second), false);
        assert.equal(await stream.trim('a', 'another reign', second), false);
        assert.equal((await stream.read(10)).entries.length, 3);
        assert.equal(await stream.trim('a', reign, second), true);
        assert.deepEqual(
          (await stream.read(10)).entries.map((entry) => entry.data),
          ['{"n":3}'],
        );
        assert.equal(await stream.trim('a', reign, second), true, 'again is harmless');
      },
    );

    on('replaces the oldest entries by one gap that grows', async ({ stream, append }) => {
      await stream.takeLease('a', 10_000);
      for (let n = 1; n <= 5; n++) await append(fact(n));
      const ids = (await stream.read(10)).entries.map((entry) => entry.id);
      assert.equal(await stream.dropOldest(2), 2);
      assert.equal(await stream.dropOldest(1), 1);
      const { gap, entries } = await stream.read(10);
      assert.deepEqual(
        entries.map((entry) => entry.id),
        ids.slice(3),
      );
      assert.equal(gap?.count, 3);
      assert.equal(gap.from, ids[0]);
      assert.equal(gap.to, ids[2]);
      assert.ok(gap.at > 0n);
    });

    on('forgets a gap only as it was seen', async ({ stream, append }) => {
      await stream.takeLease('a', 10_000);
      for (let n = 1; n <= 3; n++) await append(fact(n));
      await stream.dropOldest(1);
      const { gap } = await stream.read(1);
      assert.ok(gap);
      await stream.dropOldest(1);
      assert.equal(await stream.clearGap('a', gap), false, 'it has grown');
      const { gap: grown } = await stream.read(1);
      assert.ok(grown);
      assert.equal(await stream.clearGap('b', grown), false, 'not the reader');
      assert.equal(await stream.clearGap('a', grown), true);
      assert.equal((await stream.read(1)).gap, undefined);
    });

    on('says how long the oldest entry has waited', async ({ stream, append, pass }) => {
      assert.equal((await stream.size()).lagMillis, 0);
      await append(fact(1));
      await pass(50);
      await append(fact(2));
      const { lagMillis } = await stream.size();
      assert.ok(lagMillis >= 40, `${lagMillis}`);
    });

    on('counts entries and bytes', async ({ stream, append }) => {
      assert.equal((await stream.size()).entries, 0);
      for (let n = 1; n <= 200; n++)
        await append({ sessionId: 's', type: 'stats', data: `{"n":${n},"x":"${'x'.repeat(1000)}"}` });
      const { entries, bytes } = await stream.size();
      assert.equal(entries, 200);
      assert.ok(bytes > 200_000 && bytes < 600_000, `${bytes}`);
    });

    on('gives up nothing when there is nothing', async ({ stream }) => {
      assert.equal(await stream.dropOldest(5), 0);
      assert.deepEqual(await stream.read(5).then(({ entries, gap }) => ({ entries, gap })), {
        entries: [],
        gap: undefined,
      });
    });
  });
}

function fact(n: number): Omit<StreamEntry, 'id'> {
  return { sessionId: `s${n % 2}`, type: 'stats', data: `{"n":${n}}` };
}
