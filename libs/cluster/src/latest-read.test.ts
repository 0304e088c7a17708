import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LatestRead } from './latest-read.ts';

test('calls during a read share the next one, which begins after it, also where it fails', async () => {
  const ends: (() => void)[] = [];
  let begun = 0;
  const read = new LatestRead(async () => {
    const number = (begun += 1);
    await new Promise<void>((resolve) => ends.push(resolve));
    if (number === 1) throw new Error('no answer');
    return number;
  });
  const first = assert.rejects(read.run(), /no answer/);
  while (begun < 1) await Promise.resolve();
  const later = [read.run(), read.run()];
  assert.equal(begun, 1, 'one at a time');
  ends.shift()?.();
  await first;
  while (begun < 2) await Promise.resolve();
  const last = read.run();
  ends.shift()?.();
  assert.deepEqual(await Promise.all(later), [2, 2]);
  while (begun < 3) await Promise.resolve();
  ends.shift()?.();
  assert.equal(await last, 3);
});
