import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLog, Metrics } from '@sallyport/chassis';
import {
  LoginFailures,
  MemoryCounters,
  MemoryEventLog,
  MemorySessions,
  Redis,
  RedisAccountRecords,
  RedisCounters,
  RedisSessions,
  type EventLog,
  type RedisSettings,
  type Sessions,
  type Settings,
} from '@sallyport/cluster';
import { begin, formOf, grantedOf, PASSWORD, reply } from './auth.fake.ts';
import { AuthController } from './auth.controller.ts';
import { openAuth, type AuthOptions, type OpenAuth } from './auth.module.ts';
import { MemoryLogins } from './logins.ts';
import { RedisLogins } from './logins.redis.ts';
import { fakeSettings } from './settings.fake.ts';

/** One auth of several on one store, by the real clock. For tests only. */
export interface Replica extends OpenAuth {
  auth: AuthController;
  sessions: Sessions;
  metrics: Metrics;
  failures: LoginFailures;
}

export interface Replicas {
  usersFile: string;
  settings: Settings;
  open(): Promise<Replica>;
  close(): Promise<void>;
}

type Store = Pick<AuthOptions, 'sessions' | 'logins' | 'records'> & {
  failures: LoginFailures;
  events: Pick<EventLog, 'append'>;
  close(): Promise<void>;
};

/** Replicas on one users-file and one store in memory: what they change is the file. */
export async function fileReplicas(users: string): Promise<Replicas> {
  const [sessions, logins] = [await MemorySessions.open(), new MemoryLogins(Date.now)];
  const [events, failures] = [new MemoryEventLog(), new LoginFailures(new MemoryCounters())];
  return replicas(users, {}, async () => ({
    ...{ sessions, logins, events, failures },
    close: async () => undefined,
  }));
}

/** Replicas on one Redis, each with its own connection. */
export async function redisReplicas(
  users: string,
  where: RedisSettings,
  change: Partial<Settings> = {},
): Promise<Replicas> {
  return replicas(users, change, async () => {
    const redis = await Redis.open(where, { windowMicros: 0n, deadlineMillis: DEADLINE_MS });
    const sessions = new RedisSessions({ redis });
    return {
      ...{ sessions, logins: new RedisLogins(redis), records: new RedisAccountRecords(redis) },
      ...{ failures: new LoginFailures(new RedisCounters(redis)), events: new MemoryEventLog() },
      async close() {
        await sessions.close();
        await redis.close();
      },
    };
  });
}

async function replicas(
  users: string,
  change: Partial<Settings>,
  openStore: () => Promise<Store>,
): Promise<Replicas> {
  const dir = await mkdtemp(join(tmpdir(), 'sallyport-replicas-'));
  const usersFile = join(dir, 'users');
  await writeFile(usersFile, users, { mode: 0o600 });
  const settings = fakeSettings({ usersFile, ...change });
  const closers: (() => Promise<void>)[] = [() => rm(dir, { recursive: true })];
  return {
    usersFile,
    settings,
    async open() {
      const { close, ...store } = await openStore();
      closers.push(close);
      const metrics = new Metrics();
      const log = createLog({ name: 'auth', level: 'silent' });
      const parts = await openAuth({ ...store, settings: () => settings, metrics, log });
      closers.push(() => parts.close());
      return {
        ...parts,
        ...{ metrics, sessions: store.sessions, failures: store.failures },
        auth: new AuthController(parts),
      };
    },
    async close() {
      for (const close of closers.reverse()) await close();
    },
  };
}

/** A whole login. @returns token and id of the session; rejects when it is refused. */
export async function logIn(
  { auth }: Replica,
  username: string,
  password = PASSWORD,
): Promise<{ token: string; sessionId: string }> {
  return grantedOf(await auth.reply(reply(formOf(await auth.begin(begin())), { username, password })));
}

/** Waits for what comes to pass; a machine that is busy takes longer. */
export async function until(what: string, reached: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await reached())) {
    if (Date.now() > deadline) throw new Error(`it did not come to pass: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const PATIENCE_MS = 60_000;
const DEADLINE_MS = 2_000;
