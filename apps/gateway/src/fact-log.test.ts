import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Log } from '@sallyport/chassis';
import { MemoryEventLog, type Fact } from '@sallyport/cluster';
import { logFacts } from './fact-log.ts';

test('ends and refusals of sessions are logged with id and reason, without names and addresses', async () => {
  const lines: unknown[] = [];
  const nothing = () => undefined;
  const log: Log = {
    ...{ error: nothing, warn: nothing, debug: nothing, trace: nothing, level: 'info' },
    info: (fields, message) => lines.push({ ...fields, message }),
    child: () => log,
  };
  const events = new MemoryEventLog();
  logFacts(events, log);
  const common = { v: 1, at: 1n, sessionId: 'abcdef', epoch: 0n } as const;
  const facts: Fact[] = [
    {
      ...{ ...common, type: 'connect.refused', reason: 'max-same-clients' },
      ...{ user: 'alice', profile: 'staff', address: '192.0.2.7', node: 'n1' },
    },
    { ...common, type: 'ended', n: 3, reason: 'terminated', activeAt: 1n, rxBytes: 1n, txBytes: 1n },
  ];
  events.append(facts);
  await new Promise(setImmediate);
  assert.deepEqual(lines, [
    { session: 'abcdef', reason: 'max-same-clients', message: 'tunnel refused' },
    { session: 'abcdef', reason: 'terminated', message: 'session ended' },
  ]);
});
