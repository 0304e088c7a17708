import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Metrics, type Log } from '@sallyport/chassis';
import { exampleSettings, parseSettings, StoreUnavailable } from '@sallyport/cluster';
import { configuredPools, observeSweeps, sweeping } from './watching.ts';

test('every configured pool has its size before anybody has an address of it', () => {
  const more = 'ipv6-network: fd90:1::/126\nusers: { alice: { ipv4-network: 10.91.0.0/29 } }\n';
  const read = parseSettings(exampleSettings() + more, '/x/sallyport.yaml');
  assert.ok('settings' in read);
  assert.deepEqual(
    configuredPools(read.settings).map(({ pool, size, used }) => [pool, size, used]),
    [
      ['10.90.0.0/16', 65_533n, 0],
      ['fd90:1::/126', 2n, 0],
      ['10.91.0.0/29', 5n, 0],
    ],
  );
});

test('sweeps that end nobody are told once, and measured', async () => {
  const { log, lines } = recording();
  const metrics = new Metrics();
  const told = observeSweeps({ metrics, log });
  const value = async () => /^sallyport_sweep_halted (\d)$/m.exec(await metrics.text())?.[1];
  assert.equal(await value(), '0');
  told(true);
  assert.equal(await value(), '1');
  assert.match(lines.join(), /^warn no session ends by its time: the clocks/);
  told(false);
  assert.equal(await value(), '0');
  assert.equal(lines.length, 2);
});

test('an outage of the store is told by one failed sweep', async (t) => {
  const { log, lines } = recording();
  let rounds = 0;
  const ended = new Promise<void>((resolve) => {
    const sweep = async () => {
      rounds += 1;
      if (rounds === 7) resolve();
      if (rounds <= 4) throw new StoreUnavailable('away');
      return 0;
    };
    const timer = sweeping({ sessions: { sweep }, log }, 1).ref();
    t.after(() => clearInterval(timer));
  });
  await ended;
  assert.deepEqual(lines, [
    'warn the session table could not be swept',
    'info the session table is swept again',
  ]);
});

function recording(): { log: Log; lines: string[] } {
  const lines: string[] = [];
  const silent = () => undefined;
  const log: Log = {
    error: (_fields, message) => lines.push(`error ${message}`),
    warn: (_fields, message) => lines.push(`warn ${message}`),
    info: (_fields, message) => lines.push(`info ${message}`),
    debug: silent,
    trace: silent,
    child: () => log,
    level: 'info',
  };
  return { log, lines };
}
