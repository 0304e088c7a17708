import assert from 'node:assert/strict';
import { test } from 'node:test';
import { commandCalls, metricSum, workOf } from './statistics.ts';

const info = (evalsha: number, hget: number, infos: number) =>
  commandCalls(
    `# Commandstats\r\ncmdstat_evalsha:calls=${evalsha},usec=9,usec_per_call=1.0\r\n` +
      `cmdstat_hget:calls=${hget},usec=1\r\ncmdstat_info:calls=${infos},usec=1\r\n`,
  );

test('the work of an event is what came beyond the quiet rate, and no look counts', () => {
  const looks = [info(100, 200, 1), info(110, 220, 2), info(160, 400, 3)] as const;
  // Quiet: 2 scripts and 6 commands a second.
  assert.deepEqual(workOf([...looks], 5, 10), { scripts: 30, commands: 230 - 60 });
  assert.deepEqual(workOf([info(0, 0, 0), info(50, 0, 0), info(51, 0, 0)], 1, 1), {
    scripts: 0,
    commands: 0,
  });
});

test('a metric is summed over its series, and no other of a longer name is', () => {
  const text = 'a_total{result="x"} 2\na_total{result="y"} 3\na_total_more 7\n# a_total 9\nb 1e+2\n';
  assert.equal(metricSum(text, 'a_total'), 5);
  assert.equal(metricSum(text, 'b'), 100);
  assert.equal(metricSum(text, 'c'), 0);
});
