/*
 * What a Redis must promise before sessions are put into it (CLUSTER.md C1): looked at when a process starts.
 */
import { askPort } from './port-probe.ts';
import type { RedisPromise, RedisSettings } from './redis-settings.ts';

/**
 * @param call a command of Redis.
 * @param promises what the operator vouches for.
 * @param eventsMaxBytes what facts may take.
 * @returns one sentence each; empty = all is well.
 */
export async function checkServer(
  call: (command: string, ...args: string[]) => Promise<unknown>,
  promises: readonly RedisPromise[],
  eventsMaxBytes: number,
): Promise<string[]> {
  const info = parseInfo(String(await call('INFO')));
  const problems: string[] = [];
  const version = info.get('redis_version') ?? '';
  if (!(Number.parseInt(version, 10) >= LOWEST_MAJOR)) {
    problems.push(`version ${version} is too old: ${LOWEST_MAJOR}.0 or newer is needed`);
  }
  const replicas = Number(info.get('connected_slaves') ?? 0);
  if (!promises.includes('noeviction')) {
    const policy = await configOf(call, 'maxmemory-policy');
    if (policy === undefined) problems.push(unreadable('maxmemory-policy', 'noeviction'));
    else if (policy !== 'noeviction')
      problems.push(`maxmemory-policy is ${policy}: set it to noeviction, or sessions get lost`);
  }
  if (replicas > 0 && !promises.includes('replication')) {
    const least = await configOf(call, 'min-replicas-to-write');
    if (least === undefined) problems.push(unreadable('min-replicas-to-write', 'replication'));
    else if (Number(least) < 1) {
      problems.push(
        'min-replicas-to-write is 0 though there are replicas: set it to 1, or a cut-off primary goes on writing',
      );
    }
  }
  if (info.get('aof_enabled') !== '1' && !promises.includes('persistence')) {
    problems.push(
      'appendonly is off: set it to yes, or see to it that nothing restarts Redis by itself and add persistence to promises',
    );
  }
  const memory = Number(info.get('maxmemory') ?? 0);
  if (memory > 0 && eventsMaxBytes > memory * EVENTS_SHARE) {
    problems.push(
      `events-max-bytes is ${eventsMaxBytes} and maxmemory is ${memory}: facts may take at most a quarter, ${Math.floor(memory * EVENTS_SHARE)}, or there is no room for sessions while Kafka is away`,
    );
  }
  return problems;
}

/**
 * What the ports speak against what the settings say, asked when no connection comes about.
 * @returns what is wrong, without the name of the server; undefined = nothing that is certain.
 */
export async function portMisfit(
  { url, clusterNodes }: RedisSettings,
  tls: boolean,
): Promise<string | undefined> {
  for (const address of url === '' ? clusterNodes : [hostOf(url)]) {
    const plain = await askPort(address, 'tcp', PING, (answer) => /^[+-]/.test(answer.toString('latin1')));
    if (plain !== undefined && tls)
      return 'does not speak TLS on this port: remove tls and write redis:, or use its TLS port';
    if (plain === undefined && !tls && (await askPort(address, 'tls')) !== undefined)
      return 'speaks TLS on this port: set tls, or write rediss:';
  }
  return undefined;
}

function hostOf(url: string): string {
  const { hostname, port } = new URL(url);
  return `${hostname}:${port === '' ? DEFAULT_PORT : port}`;
}

export function parseInfo(text: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const line of text.split('\r\n')) {
    const colon = line.indexOf(':');
    if (colon > 0 && !line.startsWith('#')) fields.set(line.slice(0, colon), line.slice(colon + 1));
  }
  return fields;
}

export const DEFAULT_PORT = 6379;
const PING = Buffer.from('PING\r\n');

/** Version of Redis that the scripts need. */
export const LOWEST_MAJOR = 7;
/** Of `maxmemory`, for facts (CLUSTER.md C11: far below). */
export const EVENTS_SHARE = 0.25;

async function configOf(
  call: (command: string, ...args: string[]) => Promise<unknown>,
  key: string,
): Promise<string | undefined> {
  try {
    const reply = await call('CONFIG', 'GET', key);
    const value: unknown = Array.isArray(reply) ? reply[1] : undefined;
    return typeof value === 'string' ? value : undefined;
  } catch {
    return undefined;
  }
}

function unreadable(key: string, promise: RedisPromise): string {
  return `${key} cannot be read (CONFIG is forbidden): if it is as it should be, add ${promise} to promises`;
}
