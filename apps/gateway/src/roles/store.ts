import { RedisLogins } from '@sallyport/auth';
import { StartError } from '@sallyport/chassis';
import { Redis, RedisEventLog, RedisNodes, RedisSessions } from '@sallyport/cluster';
import type { ClusterStore, OpenStore } from './role.ts';

/** The store of a cluster in Redis. @throws RedisProblem, StoreUnavailable: each a sentence for the operator. */
export const openStore: OpenStore = async ({ redis: where, file }, { log, limits }) => {
  if (!where) throw new StartError(`${file} has no redis, and a cluster needs it.`);
  let closing = false;
  const redis = await Redis.open(where, {
    onState(up, detail) {
      if (up) log.info({ detail }, 'the session store is there');
      else if (!closing) log.warn({ detail }, 'the session store is away: tunnels go on, logins are refused');
    },
  });
  const events = await RedisEventLog.open(redis, log);
  const sessions = new RedisSessions({ redis, limits });
  const store: ClusterStore = {
    sessions,
    logins: new RedisLogins(redis),
    nodes: new RedisNodes(redis),
    events,
    lastLogins: (user) => events.lastLogins(user),
    async close() {
      closing = true;
      events.close();
      await sessions.close();
      await redis.close();
    },
  };
  return store;
};
