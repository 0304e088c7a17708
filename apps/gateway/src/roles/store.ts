import type { Logins } from '@sallyport/auth';
import { StartError } from '@sallyport/chassis';
import {
  LoginFailures,
  Outbox,
  kafkaAtStart,
  keepCapped,
  Redis,
  RedisAccountRecords,
  RedisCounters,
  RedisEventLog,
  RedisEventStream,
  RedisNodes,
  RedisRestore,
  RedisSessions,
  RedisWatch,
  registerOutboxMetrics,
  RESTORE_MICROS,
  systemClock,
  type Settings,
} from '@sallyport/cluster';
import { observeSweeps } from '../watching.ts';
import type { OpenStore, StoreSurroundings } from './role.ts';

/** The store of a cluster in Redis. @throws RedisProblem, StoreUnavailable: each a sentence for the operator. */
export const openStore: OpenStore = async (settings, around) => {
  const { log, limits, metrics, role } = around;
  const { redis: where, file } = settings;
  if (!where) throw new StartError(`${file} has no redis, and a cluster needs it.`);
  let closing = false;
  // Before, a fault is the one sentence with which the start ends.
  let opened = false;
  const redis = await Redis.open(where, {
    restoreMicros: settings.kafka ? RESTORE_MICROS : 0n,
    onState(up, detail) {
      if (up) log.info({ detail }, 'the session store is there');
      else if (!closing && opened)
        log.warn({ detail }, 'the session store is away: tunnels go on, logins are refused');
    },
  });
  opened = true;
  try {
    const events = await RedisEventLog.open(redis, log);
    const watch = new RedisWatch({
      call: (command, ...args) => redis.call(command, ...args),
      ...{ settings: where, log, metrics },
    });
    const onSweepHalted = role === 'auth' ? observeSweeps({ metrics, log }) : undefined;
    const sessions = new RedisSessions({ redis, limits, ...(onSweepHalted && { onSweepHalted }) });
    const closeOutbox = role === 'auth' ? await openOutbox(redis, sessions, settings, around) : undefined;
    return {
      sessions,
      assertions: sessions,
      ...(role === 'auth' && { logins: await openLogins(redis), records: new RedisAccountRecords(redis) }),
      failures: new LoginFailures(new RedisCounters(redis)),
      nodes: new RedisNodes(redis),
      events,
      lastLogins: (user) => events.lastLogins(user),
      async close() {
        closing = true;
        watch.close();
        await closeOutbox?.();
        events.close();
        await sessions.close();
        await redis.close();
      },
    };
  } catch (error) {
    closing = true;
    await redis.close();
    throw error;
  }
};

/** Loaded for auth only: a node that starts again has clients waiting, and auth brings NestJS along. */
async function openLogins(redis: Redis): Promise<Logins> {
  const { RedisLogins } = await import('@sallyport/auth');
  return new RedisLogins(redis);
}

/**
 * One replica of auth sends the facts of the cluster; the others wait for its lease. Without Kafka they only see to it that
 * the facts do not fill the store. @returns how to stop.
 */
async function openOutbox(
  redis: Redis,
  sessions: RedisSessions,
  { kafka, redis: where }: Settings,
  { log, metrics, node }: StoreSurroundings,
): Promise<() => void | Promise<void>> {
  const stream = new RedisEventStream(redis);
  const capBytes = where?.eventsMaxBytes;
  if (!kafka) {
    log.warn({}, 'no kafka is configured: facts stay in Redis, the last ones');
    return keepCapped(stream, log, capBytes);
  }
  const { Kafka } = await import('@sallyport/cluster/kafka');
  const events = new Kafka(kafka, log);
  const problem = await kafkaAtStart(events, kafka);
  if (problem !== undefined) throw new StartError(problem);
  const outbox = new Outbox({
    ...{ stream, capBytes, table: sessions, restore: new RedisRestore(redis) },
    sink: events.sink(),
    cluster: where?.cluster ?? '',
    holder: node.incarnation,
    clock: systemClock(),
    log,
  });
  registerOutboxMetrics(metrics, () => outbox.status);
  outbox.start();
  return () => outbox.close();
}
