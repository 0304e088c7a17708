import assert from 'node:assert/strict';
import { test } from 'node:test';
import { starting, together } from './wiring.ts';

test('what one part opens while the other fails is closed', async () => {
  const done: string[] = [];
  const start = starting((closers) =>
    together(
      Promise.reject(new Error('the store is away')),
      new Promise<void>((resolve) => setImmediate(resolve)).then(() => {
        done.push('opened');
        closers.push(() => void done.push('closed'));
      }),
    ),
  );
  await assert.rejects(start, /the store is away/);
  assert.deepEqual(done, ['opened', 'closed']);
});
