import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLog, Metrics } from '@sallyport/chassis';
import {
  MemoryEventLog,
  MemorySessions,
  type BeginRequest,
  type ClientFacts,
  type LoginAnswer,
  type LoginForm,
  type LoginGranted,
  type ReplyRequest,
  type Settings,
} from '@sallyport/cluster';
import { AuthController } from './auth.controller.ts';
import { openAuth, type OpenAuth } from './auth.module.ts';
import type { Logins } from './logins.ts';
import { hashPassword } from './passwords.ts';
import { fakeSettings } from './settings.fake.ts';

/** The whole of auth on the embedded store, with a clock that stands still. For tests only. */
export async function fakeAuth(
  options: { users?: string; settings?: Partial<Settings>; logins?: Logins } = {},
) {
  const dir = await mkdtemp(join(tmpdir(), 'sallyport-auth-'));
  const usersFile = join(dir, 'users');
  await writeFile(usersFile, options.users ?? (await line('alice', '*')), { mode: 0o600 });
  const clock = { now: 1_700_000_000_000 };
  const state = { settings: fakeSettings({ usersFile, ...options.settings }) };
  const events = new MemoryEventLog();
  const sessions = await MemorySessions.open({ clock: () => BigInt(clock.now) * 1000n, events });
  const metrics = new Metrics();
  const open = (logins: Logins | undefined, registry = new Metrics()) =>
    openAuth({
      ...{ settings: () => state.settings, sessions, events, metrics: registry, now: () => clock.now },
      log: createLog({ name: 'auth', level: 'silent' }),
      ...(logins && { logins }),
    });
  const parts = await open(options.logins, metrics);
  const replicas: OpenAuth[] = [];
  return {
    auth: new AuthController(parts),
    parts,
    state,
    clock,
    sessions,
    events,
    metrics,
    usersFile,
    /** Another one over the same sessions. */
    async replica(logins: Logins) {
      const more = await open(logins);
      replicas.push(more);
      return new AuthController(more);
    },
    async close() {
      await Promise.all([parts, ...replicas].map((each) => each.close()));
      await sessions.close();
      await rm(dir, { recursive: true });
    },
  };
}

export const PASSWORD = 'correct horse';
/** Cheap: tests check behaviour, not cost. */
export const CHEAP = { kind: 'scrypt', logN: 4, blockSize: 1, passes: 1 } as const;

const hashes = new Map<string, Promise<string>>();

/** A line of a users-file. */
export async function line(
  name: string,
  groups: string,
  change: { password?: string; locked?: boolean } = {},
) {
  const password = change.password ?? PASSWORD;
  const hash = hashes.get(password) ?? hashPassword(password, CHEAP);
  hashes.set(password, hash);
  return `${name}:${groups}:${change.locked ? '!' : ''}${await hash}\n`;
}

export function client(change: Partial<ClientFacts> = {}): ClientFacts {
  return {
    address: '192.0.2.7',
    userAgent: 'test',
    platform: 'linux-64',
    strapKey: '',
    serverName: '',
    ...change,
  };
}

export function begin(change: Partial<BeginRequest> = {}): BeginRequest {
  return { profile: '', urlProfile: '', client: client(), certificateFailed: false, ...change };
}

export function reply(
  form: LoginForm,
  answers: Record<string, string>,
  change: Partial<ReplyRequest> = {},
): ReplyRequest {
  return { loginId: form.loginId, answers, profile: '', client: client(), ...change };
}

export function formOf(answer: LoginAnswer): LoginForm {
  if (!answer.form) throw new Error(`no form but ${JSON.stringify(answer)}`);
  return answer.form;
}

export function grantedOf(answer: LoginAnswer): LoginGranted {
  if (!answer.granted) throw new Error(`not granted but ${JSON.stringify(answer)}`);
  return answer.granted;
}
