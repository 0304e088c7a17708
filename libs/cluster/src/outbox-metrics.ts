import type { Metrics } from '@sallyport/chassis';
import type { OutboxStatus } from './outbox.ts';
import type { StreamLevel } from './stream-cap.ts';

/** What alerts watch: a stream that grows is seen long before its cap. */
export function registerOutboxMetrics(metrics: Metrics, status: () => OutboxStatus): void {
  const gauge = (name: string, help: string, value: (status: OutboxStatus) => number) =>
    metrics.gauge(`sallyport_outbox_${name}`, help, [], (gauge) => gauge.set(value(status())));
  gauge('active', '1 = this process sends the events of the cluster', ({ active }) => Number(active));
  gauge('blocked', '1 = this process should send events and cannot', ({ trouble }) => Number(trouble !== ''));
  gauge(
    'stream_entries',
    'Events that wait in Redis, as the active process sees them',
    ({ entries }) => entries,
  );
  gauge('stream_bytes', 'Memory of the events that wait in Redis', ({ bytes }) => bytes);
  gauge('lag_seconds', 'Age of the oldest event that waits in Redis', ({ lagMillis }) => lagMillis / 1000);
  gauge(
    'full',
    '1 = interim statistics are left out; 2 = the oldest events are given up',
    ({ level }) => LEVELS[level],
  );
  gauge('sent_total', 'Events sent since the start of this process', ({ sent }) => sent);
  gauge('dead_letters_total', 'Events that could not be sent', ({ deadLetters }) => deadLetters);
  gauge('resyncs_total', 'Times that the whole table was written anew', ({ resyncs }) => resyncs);
}

const LEVELS: Record<StreamLevel, number> = { normal: 0, 'stats-held': 1, full: 2 };
