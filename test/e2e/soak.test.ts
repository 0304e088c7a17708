import assert from 'node:assert/strict';
import { test } from 'node:test';
import { soak, verdict } from './soak.ts';

test('half a minute of tunnel traffic with reconnects: nothing is lost, resident memory is flat', async (context) => {
  const report = await soak(0.5);
  assert.deepEqual(verdict(report), []);
  context.diagnostic(`${report.reconnects} reconnects`);
  assert.ok(report.reconnects > 0);
});
