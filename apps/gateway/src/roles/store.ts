import type { Logins } from '@sallyport/auth';
import { StartError } from '@sallyport/chassis';
import {
  Outbox,
  Redis,
  RedisEventLog,
  RedisEventStream,
  RedisNodes,
  RedisSessions,
  registerOutboxMetrics,
  systemClock,
  type Settings,
} from '@sallyport/cluster';
import type { OpenStore, StoreSurroundings } from './role.ts';

/** The store of a cluster in Redis. @throws RedisProblem, StoreUnavailable: each a sentence for the operator. */
export const openStore: OpenStore = async (settings, around) => {
  const { log, limits, role } = around;
  const { redis: where, file } = settings;
  if (!where) throw new StartError(`${file} has no redis, and a cluster needs it.`);
  let closing = false;
  const redis = await Redis.open(where, {
    onState(up, detail) {
      if (up) log.info({ detail }, 'the session store is there');
      else if (!closing) log.warn({ detail }, 'the session store is away: tunnels go on, logins are refused');
    },
  });
  try {
    const events = await RedisEventLog.open(redis, log);
    const sessions = new RedisSessions({ redis, limits });
    const outbox = role === 'auth' ? await openOutbox(redis, sessions, settings, around) : undefined;
    return {
      sessions,
      assertions: sessions,
      ...(role === 'auth' && { logins: await openLogins(redis) }),
      nodes: new RedisNodes(redis),
      events,
      lastLogins: (user) => events.lastLogins(user),
      async close() {
        closing = true;
        await outbox?.close();
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

/** One replica of auth sends the facts of the cluster; the others wait for its lease. undefined = there is no Kafka. */
async function openOutbox(
  redis: Redis,
  sessions: RedisSessions,
  { kafka, redis: where }: Settings,
  { log, metrics, node }: StoreSurroundings,
): Promise<Outbox | undefined> {
  if (!kafka) {
    log.warn({}, 'no kafka is configured: facts stay in Redis, the last ones');
    return undefined;
  }
  const { Kafka, kafkaAtStart } = await import('@sallyport/cluster/kafka');
  const events = new Kafka(kafka, log);
  const problem = await kafkaAtStart(events, kafka);
  if (problem !== undefined) throw new StartError(problem);
  const outbox = new Outbox({
    stream: new RedisEventStream(redis),
    table: sessions,
    sink: events.sink(),
    cluster: where?.cluster ?? '',
    holder: node.incarnation,
    clock: systemClock(),
    log,
  });
  registerOutboxMetrics(metrics, () => outbox.status);
  outbox.start();
  return outbox;
}
