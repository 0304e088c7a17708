/** The section `kafka:` of the configuration, parsed. Absent = facts stay in the capped Redis stream. */
export interface KafkaSettings {
  /** `HOST:PORT`, at least one. */
  brokers: string[];
  /** First part of all topic names, of the transactional id and of consumer groups: one per cluster on a Kafka. */
  prefix: string;
  /** Undefined = plain TCP. */
  tls: KafkaTls | undefined;
  /** Undefined = no user name. */
  sasl: KafkaSasl | undefined;
  /** Allows brokers outside this host without a password or client certificate. */
  insecure: boolean;
  /** For topics that we create; -1 = the broker's default. */
  partitions: number;
  replicationFactor: number;
  /** How long facts are kept in Kafka. */
  retentionHours: number;
}

/** PEM files; '' = none. The server's certificate is always checked, against the system's CAs when `caFile` is ''. */
export interface KafkaTls {
  caFile: string;
  certFile: string;
  keyFile: string;
  /** Name in the certificate; '' = the host that is called. */
  serverName: string;
}

export interface KafkaSasl {
  mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512';
  username: string;
  /** Read at each connection, so that a new password needs no restart. */
  passwordFile: string;
}

export const KAFKA_DEFAULTS: Omit<KafkaSettings, 'brokers'> = {
  prefix: 'sallyport',
  tls: undefined,
  sasl: undefined,
  insecure: false,
  partitions: 6,
  replicationFactor: -1,
  retentionHours: 168,
};

/** What is wrong with the section: one sentence each, for `check-config` and the start. Without reading the files. */
export function kafkaProblems(kafka: KafkaSettings): string[] {
  const problems: string[] = [];
  if (kafka.brokers.length === 0) problems.push('kafka.brokers: name at least one broker as HOST:PORT.');
  for (const broker of kafka.brokers) {
    if (portOf(broker) === undefined) problems.push(`kafka.brokers: "${broker}" is not HOST:PORT.`);
  }
  if (!TOPIC_PREFIX.test(kafka.prefix))
    problems.push('kafka.prefix: use 1 to 100 letters, digits, dots, dashes or underscores.');
  if ((kafka.tls?.certFile ?? '') !== '' && kafka.tls?.keyFile === '')
    problems.push('kafka.tls: a client certificate needs its key (key).');
  const proven = kafka.sasl !== undefined || (kafka.tls?.certFile ?? '') !== '';
  if (!proven && !kafka.insecure && kafka.brokers.some((broker) => !isLoopback(broker))) {
    problems.push(
      'kafka: brokers outside this host need sasl or a client certificate, or anybody who reaches them can read and forge events; "insecure: true" says that this is wanted.',
    );
  }
  if (kafka.sasl?.mechanism === 'plain' && kafka.tls === undefined && !kafka.brokers.every(isLoopback))
    problems.push('kafka.sasl: mechanism plain sends the password in clear text, so it needs kafka.tls.');
  return problems;
}

function portOf(broker: string): number | undefined {
  const port = Number(/^(?:\[[0-9a-fA-F:]+\]|[^:\s]+):(\d{1,5})$/.exec(broker)?.[1] ?? NaN);
  return port > 0 && port < 65_536 ? port : undefined;
}

function isLoopback(broker: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|\[::1\]):\d+$/.test(broker);
}

const TOPIC_PREFIX = /^[A-Za-z0-9._-]{1,100}$/;
