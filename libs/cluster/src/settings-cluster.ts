/**
 * What only a cluster needs: where its services, its store and its event log are, and its certificates. With a section
 * `redis` a configuration is one of a cluster; one file may serve all its roles.
 */
import { resolve } from 'node:path';
import { choice, flag, integer, listOf, parsed, text } from '@sallyport/chassis';
import type { Section, Values } from '@sallyport/chassis';
import { KAFKA_DEFAULTS, kafkaProblems, type KafkaSettings } from './kafka-settings.ts';
import type { PeerFiles, PeerRole } from './peers.ts';
import {
  CLUSTER_NAME,
  DEFAULT_EVENTS_MAX_BYTES,
  defaultRedisSettings,
  REDIS_PROMISES,
  type RedisPromise,
  type RedisSettings,
} from './redis-settings.ts';
import { hostAndPort, key, path } from './settings-values.ts';

export interface ServiceAddresses {
  auth: string[];
  portal: string[];
  downloader: string[];
  /** gRPC of the downloaders. */
  catalog: string[];
}

/** Where the roles of this file listen. */
export interface ListenAddresses {
  auth: string;
  portal: string;
  downloader: string;
  catalog: string;
  node: string;
}

/** The part of Settings that only a cluster has. */
export interface ClusterSettings {
  /** undefined = no cluster: one process on its own journal. */
  redis?: RedisSettings;
  kafka?: KafkaSettings;
  pki?: PeerFiles;
  services: ServiceAddresses;
  listen: ListenAddresses;
  /** How long a node that alone cannot reach the store keeps its tunnels (CLUSTER.md C3). */
  isolationLimitSeconds: number;
}

const host = text(255);
const url = parsed<string>('redis://HOST:PORT/DB or rediss://HOST:PORT/DB', (value) => {
  if (value === '') return { value };
  let found: URL;
  try {
    found = new URL(value);
  } catch {
    return { problem: 'is no URL; write for example redis://10.0.0.5:6379/0' };
  }
  if (found.protocol !== 'redis:' && found.protocol !== 'rediss:')
    return { problem: 'must begin with redis:// or rediss:// (TLS)' };
  return found.hostname === '' ? { problem: 'names no host' } : { value };
});
const clusterName = parsed<string>('a name of letters, digits, . _ and -', (value) =>
  CLUSTER_NAME.test(value) ? { value } : { problem: 'must hold only letters, digits, . _ and -, at most 64' },
);

function tlsKeys(who: string) {
  return {
    ca: key(path, '', {
      reloads: false,
      defaultText: 'those of the system',
      about: `PEM file of the CAs for the certificate of ${who}.`,
      example: 'tls/ca.pem',
    }),
    cert: key(path, '', { reloads: false, about: `Our certificate towards ${who}.`, example: 'tls/me.pem' }),
    key: key(path, '', { reloads: false, about: 'Its private key.', example: 'tls/me.key' }),
    'server-name': key(host, '', {
      reloads: false,
      defaultText: 'the host that is asked',
      about: `Name in the certificate of ${who}.`,
      example: 'store.example.org',
    }),
  };
}

const REDIS_TLS_KEYS = tlsKeys('Redis');
const KAFKA_TLS_KEYS = tlsKeys('Kafka');

const REDIS_KEYS = {
  cluster: key(clusterName, defaultRedisSettings().cluster, {
    reloads: false,
    about: 'Name of this cluster in all keys: two clusters with different names never meet on one Redis.',
    example: 'vpn-eu',
  }),
  url: key(url, '', {
    reloads: false,
    about: 'One Redis. Instead of it: sentinels, or cluster-nodes.',
    example: 'redis://10.0.0.5:6379/0',
  }),
  sentinels: key(listOf(hostAndPort), [], {
    reloads: false,
    about: 'Sentinels, which say where the primary is.',
    example: '[10.0.0.5:26379, 10.0.0.6:26379]',
  }),
  'sentinel-name': key(host, defaultRedisSettings().sentinelName, {
    reloads: false,
    about: 'What the sentinels call the primary.',
    example: 'mymaster',
  }),
  'cluster-nodes': key(listOf(hostAndPort), [], {
    reloads: false,
    about: 'Some nodes of a Redis Cluster.',
    example: '[10.0.0.5:6379]',
  }),
  username: key(host, '', {
    reloads: false,
    defaultText: "Redis' default user",
    about: 'User of Redis.',
    example: 'sallyport',
  }),
  'password-file': key(path, '', {
    reloads: false,
    about: 'File that holds the password of Redis.',
    example: 'secrets/redis',
  }),
  'sentinel-password-file': key(path, '', {
    reloads: false,
    about: 'File that holds the password of the sentinels.',
    example: 'secrets/sentinel',
  }),
  promises: key(listOf(choice<RedisPromise>(...REDIS_PROMISES)), [], {
    reloads: false,
    about: 'What you vouch for where Redis does not let us look (CONFIG is forbidden).',
    example: '[noeviction, persistence]',
  }),
  'events-max-bytes': key(integer(1_048_576, 1_099_511_627_776), DEFAULT_EVENTS_MAX_BYTES, {
    unit: 'bytes',
    reloads: false,
    about:
      'Memory in Redis for facts that Kafka has not taken yet. From three quarters on interim statistics are left out; at the limit the oldest facts are given up, and an event says so. At most a quarter of maxmemory.',
    example: '268435456',
  }),
  tls: { kind: 'section', about: 'TLS towards Redis.', keys: REDIS_TLS_KEYS } satisfies Section<
    typeof REDIS_TLS_KEYS
  >,
};

const SASL_KEYS = {
  mechanism: key(choice('plain', 'scram-sha-256', 'scram-sha-512'), 'scram-sha-512', {
    reloads: false,
    about: 'How the password is proven to Kafka.',
    example: 'scram-sha-512',
  }),
  username: key(host, '', { reloads: false, about: 'User of Kafka.', example: 'sallyport' }),
  'password-file': key(path, '', {
    reloads: false,
    about: 'File that holds the password of Kafka.',
    example: 'secrets/kafka',
  }),
};

const KAFKA_KEYS = {
  brokers: key(listOf(hostAndPort), [], {
    reloads: false,
    about: 'Some brokers of Kafka.',
    example: '[10.0.0.7:9092]',
  }),
  prefix: key(clusterName, KAFKA_DEFAULTS.prefix, {
    reloads: false,
    about: 'First part of the names of topics: one per cluster on a Kafka.',
    example: 'vpn-eu',
  }),
  insecure: key(flag, KAFKA_DEFAULTS.insecure, {
    reloads: false,
    about: 'Allows brokers on other hosts without a password or client certificate.',
    example: 'true',
  }),
  partitions: key(integer(-1, 10_000), KAFKA_DEFAULTS.partitions, {
    reloads: false,
    about: "Of topics that we create; -1 = the broker's default.",
    example: '6',
  }),
  'replication-factor': key(integer(-1, 100), KAFKA_DEFAULTS.replicationFactor, {
    reloads: false,
    defaultText: "the broker's",
    about: "Of topics that we create; -1 = the broker's default.",
    example: '3',
  }),
  'retention-hours': key(integer(1, 1_000_000), KAFKA_DEFAULTS.retentionHours, {
    unit: 'hours',
    reloads: false,
    about: 'How long Kafka keeps facts.',
    example: '168',
  }),
  tls: { kind: 'section', about: 'TLS towards Kafka.', keys: KAFKA_TLS_KEYS } satisfies Section<
    typeof KAFKA_TLS_KEYS
  >,
  sasl: { kind: 'section', about: 'User of Kafka.', keys: SASL_KEYS } satisfies Section<typeof SASL_KEYS>,
};

const PKI_KEYS = {
  ca: key(path, '', {
    reloads: false,
    about: 'PEM file of the CA of the cluster (`sallyport pki init`); several during a change of CA.',
    example: 'pki/ca.pem',
  }),
  cert: key(path, '', {
    reloads: false,
    about: 'Certificate of this process (`sallyport pki issue`); read again when the file changes.',
    example: 'pki/n1.pem',
  }),
  key: key(path, '', { reloads: false, about: 'Its private key.', example: 'pki/n1.key' }),
};

function addressesKey(about: string, example: string) {
  return key(listOf(hostAndPort), [], { reloads: false, about, example });
}

const SERVICES_KEYS = {
  auth: addressesKey('gRPC addresses of auth, all replicas.', '[10.0.0.11:9491, 10.0.0.12:9491]'),
  portal: addressesKey('HTTP addresses of the portals.', '[10.0.0.11:9492, 10.0.0.12:9492]'),
  downloader: addressesKey('HTTP addresses of the downloaders.', '[10.0.0.11:9493]'),
  catalog: addressesKey('gRPC addresses of the downloaders.', '[10.0.0.11:9494]'),
};

/** Where services listen by default. */
export const LISTEN = {
  auth: '127.0.0.1:9491',
  portal: '127.0.0.1:9492',
  downloader: '127.0.0.1:9493',
  catalog: '127.0.0.1:9494',
  node: '127.0.0.1:9495',
} as const;

function listenKey(role: keyof typeof LISTEN, what: string) {
  return key(hostAndPort, LISTEN[role], {
    reloads: false,
    about: `Where ${what}; others reach it with a certificate of the cluster only.`,
    example: `10.0.0.11:${LISTEN[role].split(':')[1] ?? ''}`,
  });
}

const LISTEN_KEYS = {
  auth: listenKey('auth', 'auth takes gRPC'),
  portal: listenKey('portal', 'the portal takes requests of the edges'),
  downloader: listenKey('downloader', 'the downloader takes requests of the edges'),
  catalog: listenKey('catalog', 'the downloader takes gRPC of the portals'),
  node: listenKey('node', 'a tunnel node takes gRPC of the other nodes'),
};

/** Key `address` of the section `node`. */
export const NODE_ADDRESS_KEY = key(hostOrNone(), '', {
  reloads: false,
  defaultText: 'listen.node',
  about: 'Where other nodes of the cluster reach the gRPC of this one.',
  example: '10.0.0.21:9495',
});

function hostOrNone() {
  return parsed<string>(hostAndPort.says, (value) => {
    const found = value === '' ? { success: true } : hostAndPort.schema.safeParse(value);
    return found.success ? { value } : { problem: 'is not HOST:PORT, for example 10.0.0.21:9495' };
  });
}

/** Balancers must have seen the 404 by then, else the clients come back to the same node. */
export const LEAST_ISOLATION_SECONDS = 3;
/** Sixty less than an address rests before another user gets it (CLUSTER.md C13). */
export const MOST_ISOLATION_SECONDS = 10;

export const CLUSTER_KEYS = {
  redis: {
    kind: 'section',
    about: 'Where the sessions of the cluster are. With it this is a configuration of a cluster.',
    keys: REDIS_KEYS,
  } satisfies Section<typeof REDIS_KEYS>,
  kafka: {
    kind: 'section',
    about: 'Where the facts of the cluster go; without it they stay in Redis, the last ones.',
    keys: KAFKA_KEYS,
  } satisfies Section<typeof KAFKA_KEYS>,
  pki: {
    kind: 'section',
    about: 'Certificates of the services among each other.',
    keys: PKI_KEYS,
  } satisfies Section<typeof PKI_KEYS>,
  services: {
    kind: 'section',
    about: 'Where the services of the cluster are.',
    keys: SERVICES_KEYS,
  } satisfies Section<typeof SERVICES_KEYS>,
  listen: {
    kind: 'section',
    about: 'Where the services of this file listen.',
    keys: LISTEN_KEYS,
  } satisfies Section<typeof LISTEN_KEYS>,
  'isolation-limit': key(integer(LEAST_ISOLATION_SECONDS, MOST_ISOLATION_SECONDS), MOST_ISOLATION_SECONDS, {
    unit: 'seconds',
    about:
      'How long a tunnel node that alone cannot reach Redis keeps its tunnels. Then it closes them, and their clients come back on other nodes.',
    example: '5',
  }),
};

type ClusterValues = Values<typeof CLUSTER_KEYS>;

export function clusterSettingsOf(values: ClusterValues, base: string): ClusterSettings {
  const file = (name: string | undefined) => (name ? resolve(base, name) : '');
  const { redis, kafka, pki, services, listen } = values;
  return {
    ...(redis && { redis: redisOf(redis, file) }),
    ...(kafka && { kafka: kafkaOf(kafka, file) }),
    ...(pki && { pki: { ca: file(pki.ca), cert: file(pki.cert), key: file(pki.key) } }),
    services: {
      auth: services?.auth ?? [],
      portal: services?.portal ?? [],
      downloader: services?.downloader ?? [],
      catalog: services?.catalog ?? [],
    },
    listen: { ...LISTEN, ...listen },
    isolationLimitSeconds: values['isolation-limit'] ?? CLUSTER_KEYS['isolation-limit'].default,
  };
}

type File = (name: string | undefined) => string;

function redisOf(values: NonNullable<ClusterValues['redis']>, file: File): RedisSettings {
  const { tls } = values;
  return defaultRedisSettings({
    cluster: values.cluster ?? REDIS_KEYS.cluster.default,
    url: values.url ?? '',
    sentinels: values.sentinels ?? [],
    sentinelName: values['sentinel-name'] ?? REDIS_KEYS['sentinel-name'].default,
    clusterNodes: values['cluster-nodes'] ?? [],
    username: values.username ?? '',
    passwordFile: file(values['password-file']),
    sentinelPasswordFile: file(values['sentinel-password-file']),
    promises: values.promises ?? [],
    eventsMaxBytes: values['events-max-bytes'] ?? DEFAULT_EVENTS_MAX_BYTES,
    ...(tls && {
      tls: {
        caFile: file(tls.ca),
        certFile: file(tls.cert),
        keyFile: file(tls.key),
        serverName: tls['server-name'] ?? '',
      },
    }),
  });
}

function kafkaOf(values: NonNullable<ClusterValues['kafka']>, file: File): KafkaSettings {
  const { tls, sasl } = values;
  return {
    brokers: values.brokers ?? [],
    prefix: values.prefix ?? KAFKA_DEFAULTS.prefix,
    insecure: values.insecure ?? KAFKA_DEFAULTS.insecure,
    partitions: values.partitions ?? KAFKA_DEFAULTS.partitions,
    replicationFactor: values['replication-factor'] ?? KAFKA_DEFAULTS.replicationFactor,
    retentionHours: values['retention-hours'] ?? KAFKA_DEFAULTS.retentionHours,
    tls: tls && {
      caFile: file(tls.ca),
      certFile: file(tls.cert),
      keyFile: file(tls.key),
      serverName: tls['server-name'] ?? '',
    },
    sasl: sasl && {
      mechanism: sasl.mechanism ?? SASL_KEYS.mechanism.default,
      username: sasl.username ?? '',
      passwordFile: file(sasl['password-file']),
    },
  };
}

/** What no key of these can know alone. @param report a sentence and where it belongs. */
export function checkCluster(
  values: ClusterValues & { 'return-path'?: string },
  refused: (key: string) => boolean,
  report: (message: string, ...path: string[]) => void,
  role?: PeerRole,
): void {
  const { redis, kafka, pki } = values;
  if (redis) {
    const ways = [redis.url, redis.sentinels?.length, redis['cluster-nodes']?.length].filter(Boolean);
    if (ways.length !== 1 && !['url', 'sentinels', 'cluster-nodes'].some((name) => refused(name)))
      report('redis needs one of url, sentinels and cluster-nodes', 'redis');
    // Not where the value is parsed: a message there shows the value.
    if (redis.url && new URL(redis.url).password !== '')
      report('redis: url must not hold a password; write password-file', 'redis', 'url');
    if (!pki) report('a cluster needs pki: its services know each other by certificates', 'redis');
    const announces = role === undefined || role === 'tunnel-node';
    if (announces && values['return-path'] === undefined && !refused('return-path'))
      report(`return-path is missing, and in a cluster it has no default: ${RETURN_PATHS_SAID}`, 'redis');
  }
  for (const name of ['services', 'listen', 'kafka'] as const)
    if (values[name] && !redis) report(`${name} belongs to a cluster, and a cluster needs redis`, name);
  if (values['isolation-limit'] !== undefined && !redis)
    report('isolation-limit belongs to a cluster, and a cluster needs redis', 'isolation-limit');
  if (pki)
    for (const name of ['ca', 'cert', 'key'] as const)
      if (!pki[name] && !refused(name)) report(`pki needs ${name}`, 'pki');
  // Others only have to know that it is there.
  const speaks = role === undefined || role === 'auth';
  if (kafka && speaks && !refused('brokers'))
    for (const problem of kafkaProblems(kafkaOf(kafka, (name) => name ?? ''))) report(problem, 'kafka');
}

/** What a client loses when it comes back on another node (CLUSTER.md C6). */
export const RETURN_PATHS = {
  routed:
    'a client that moves to another node keeps its address and its inner connections; the network must carry routes to each node',
  nat: 'a client that moves to another node keeps its address and its login, and its inner connections are reset: the other node masquerades with another address',
  none: 'a client that moves to another node keeps its address and its login; answers find it only if your own routes follow it to that node',
} as const;

const RETURN_PATHS_SAID = Object.entries(RETURN_PATHS)
  .map(([name, says]) => `${name}: ${says}`)
  .join('. ');
