import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Announced, Announcements } from './router.ts';

const NODE = { ipv4: '198.51.100.11', ipv6: '2001:db8:2::11' };
const OTHER = { ipv4: '198.51.100.12', ipv6: '2001:db8:2::12' };
const V4 = '10.77.0.5 dev sallyport0 proto 183 scope link metric';
const V6 = 'fd00:77::5 dev sallyport0 proto 183 metric 100 pref medium';

test('routes come and go, a change of preference is neither, and other routes are nobody to us', () => {
  const announced = new Announced(new Announcements(), NODE);
  const say = (line: string) => announced.handleLine(line);
  assert.deepEqual(say(`[ROUTE]${V4} 100 `), ['route replace 10.77.0.5 via 198.51.100.11']);
  assert.deepEqual(say(`[ROUTE]${V6}`), ['route replace fd00:77::5 via 2001:db8:2::11']);
  assert.deepEqual(say('[ROUTE]198.51.100.0/24 dev lan proto kernel scope link src 198.51.100.11 '), []);
  assert.deepEqual(say(`[ROUTE]${V4} 200 `), []);
  assert.deepEqual(say(`[ROUTE]Deleted ${V4} 100 `), []);
  assert.deepEqual(say(`[ROUTE]Deleted ${V4} 200 `), ['route del 10.77.0.5 via 198.51.100.11']);
});

test('all routes go with the device, of which the kernel says nothing else', () => {
  const announced = new Announced(new Announcements(), NODE);
  announced.handleLine(`[ROUTE]${V4} 100 `);
  assert.deepEqual(announced.handleLine('[LINK]Deleted 7: eth1: <BROADCAST>'), []);
  assert.deepEqual(announced.handleLine('[LINK]Deleted 9: sallyport0: <POINTOPOINT> mtu 1500'), [
    'route del 10.77.0.5 via 198.51.100.11',
  ]);
  assert.deepEqual(announced.handleLine(`[ROUTE]${V4} 100 `), ['route replace 10.77.0.5 via 198.51.100.11']);
});

test('of two nodes that announce one address the one that stays has it, whichever is heard first', () => {
  const all = new Announcements();
  const [stays, leaves] = [new Announced(all, NODE), new Announced(all, OTHER)];
  stays.handleLine(`[ROUTE]${V4} 100 `);
  assert.deepEqual(leaves.handleLine(`[ROUTE]${V4} 100 `), ['route replace 10.77.0.5 via 198.51.100.12']);
  assert.deepEqual(leaves.handleLine(`[ROUTE]Deleted ${V4} 100 `), [
    'route replace 10.77.0.5 via 198.51.100.11',
  ]);
  leaves.handleLine(`[ROUTE]${V4} 100 `);
  stays.handleLine(`[ROUTE]Deleted ${V4} 100 `);
  stays.handleLine(`[ROUTE]${V4} 100 `);
  assert.deepEqual(leaves.handleLine(`[ROUTE]Deleted ${V4} 100 `), [], 'it had lost it already');
});
