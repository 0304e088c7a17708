import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Metrics } from './metrics.ts';

test('metrics of the process have the names that dashboards know', async () => {
  const text = await new Metrics().text();
  assert.match(text, /^process_cpu_seconds_total /m);
  assert.match(text, /^nodejs_eventloop_lag_seconds /m);
  assert.doesNotMatch(text, /sallyport_process_/);
});

test('a counter that is counted elsewhere is read at each scrape, and is a counter', async () => {
  const metrics = new Metrics();
  let count = 3;
  metrics.counterOf('sallyport_things_total', 'Things.', ['kind'], (add) => add(count, { kind: 'big' }));
  metrics.counterOf('sallyport_others_total', 'Others.', [], (add) => add(count));
  assert.match(await metrics.text(), /^# TYPE sallyport_things_total counter$/m);
  count = 5;
  const text = await metrics.text();
  assert.match(text, /^sallyport_things_total\{kind="big"\} 5$/m);
  assert.match(text, /^sallyport_others_total 5$/m);
});
