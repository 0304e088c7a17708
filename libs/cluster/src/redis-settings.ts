/** Where Redis is and what it promises. Exactly one of `url`, `sentinels` and `clusterNodes` is set. */
export interface RedisSettings {
  /** Names this cluster in all keys, `{NAME}:…`: two clusters on one Redis never meet. */
  cluster: string;
  /** `redis://HOST:PORT/DB` or `rediss://…` (TLS), without a password. '' = see the other two. */
  url: string;
  /** `HOST:PORT` each. */
  sentinels: string[];
  /** What the sentinels call the primary. */
  sentinelName: string;
  /** `HOST:PORT` of some nodes of a Redis Cluster. */
  clusterNodes: string[];
  /** '' = Redis' default user. */
  username: string;
  /** File that holds the password, last line end cut off. '' = none. */
  passwordFile: string;
  /** The same for the sentinels. */
  sentinelPasswordFile: string;
  /** undefined = no TLS, unless `url` begins with `rediss:`. */
  tls?: RedisTlsSettings;
  /** What the operator vouches for, because this Redis does not let us look (`CONFIG` is forbidden). */
  promises: RedisPromise[];
  /** Memory that facts may take until Kafka has them, or before the oldest go. */
  eventsMaxBytes: number;
}

export interface RedisTlsSettings {
  /** PEM; '' = those that Node.js trusts. */
  caFile: string;
  /** Our own certificate; '' = none. */
  certFile: string;
  keyFile: string;
  /** Name in the server's certificate; '' = the host that is asked. */
  serverName: string;
}

/**
 * `noeviction`: keys never go before their time. `replication`: where there are replicas, a primary that reaches none
 * refuses writes. `persistence`: it comes back with its data, or nothing starts it again by itself (CLUSTER.md C1).
 */
export type RedisPromise = 'noeviction' | 'replication' | 'persistence';

export const REDIS_PROMISES: readonly RedisPromise[] = ['noeviction', 'replication', 'persistence'];
/** About 100,000 facts. */
export const DEFAULT_EVENTS_MAX_BYTES = 64 * 1024 * 1024;
export const DEFAULT_CLUSTER_NAME = 'sallyport';
/** Names that fit into a key without quoting. */
export const CLUSTER_NAME = /^[A-Za-z0-9._-]{1,64}$/;

export function defaultRedisSettings(changes: Partial<RedisSettings> = {}): RedisSettings {
  return {
    cluster: DEFAULT_CLUSTER_NAME,
    url: '',
    sentinels: [],
    sentinelName: 'mymaster',
    clusterNodes: [],
    username: '',
    passwordFile: '',
    sentinelPasswordFile: '',
    promises: [],
    eventsMaxBytes: DEFAULT_EVENTS_MAX_BYTES,
    ...changes,
  };
}
