import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectionsAllowed, MAX_RESERVE, MIN_RESERVE } from './open-files.ts';

test('connections leave files for the process itself', () => {
  const allowed = (soft: string) =>
    connectionsAllowed(
      `Limit   Soft Limit  Hard Limit  Units\nMax open files            ${soft}  1048576  files\n`,
    );
  assert.equal(allowed('64'), 64 - MIN_RESERVE);
  assert.equal(allowed('1024'), 768);
  assert.equal(allowed('1048576'), 1_048_576 - MAX_RESERVE);
  assert.equal(allowed('16'), 1);
  assert.equal(allowed('unlimited'), Infinity);
  assert.ok(connectionsAllowed() > 0);
});
