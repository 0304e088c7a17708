import { randomUUID } from 'node:crypto';
import { systemClock } from './clock.ts';
import { RedisEventStream } from './event-stream.redis.ts';
import { KAFKA_DEFAULTS } from './kafka-settings.ts';
import { Kafka } from './kafka.ts';
import { recordingLog } from './outbox.fake.ts';
import { Outbox } from './outbox.ts';
import { defaultRedisSettings } from './redis-settings.ts';
import { Redis } from './redis.ts';
import { RedisSessions } from './sessions.redis.ts';

/** A process that does nothing but run an outbox, for tests that kill it. Arguments: port of Redis, broker, prefix. */
const [, , redisPort = '', broker = '', prefix = ''] = process.argv;
const redis = await Redis.open(defaultRedisSettings({ url: `redis://127.0.0.1:${redisPort}` }), {
  windowMicros: 0n,
});
const warnings: string[] = [];
const log = recordingLog(warnings);
const kafka = new Kafka(
  { ...KAFKA_DEFAULTS, brokers: [broker], prefix, partitions: 3, replicationFactor: 1 },
  log,
);
const outbox = new Outbox({
  stream: new RedisEventStream(redis),
  table: new RedisSessions({ redis }),
  sink: kafka.sink(),
  cluster: 'test',
  holder: randomUUID(),
  clock: systemClock(),
  log,
  leaseMs: 1000,
});
outbox.start();
setInterval(() => {
  for (const warning of warnings.splice(0)) process.stderr.write(`${warning}\n`);
}, 100);
