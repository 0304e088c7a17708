import { Module, type DynamicModule } from '@nestjs/common';
import {
  LoginFailures,
  MemoryCounters,
  systemClock,
  type AccountRecords,
  type Accounts,
  type EventLog,
  type ExplainPolicy,
  type Sessions,
  type Settings,
} from '@sallyport/cluster';
import type { Log, Metrics } from '@sallyport/chassis';
import { ACCOUNT_PARTS, AccountController } from './account.controller.ts';
import { Attempts } from './attempts.ts';
import { AUTH_PARTS, AuthController, type AuthParts } from './auth.controller.ts';
import { Directory } from './directory.ts';
import { policyExplainer } from './explain.ts';
import { LoginFlow } from './login-flow.ts';
import { MemoryLogins, type Logins } from './logins.ts';
import { CertificateMethod } from './methods/certificate.ts';
import { LocalMethod } from './methods/local.ts';
import { Passwords } from './passwords.ts';
import { mayEnter, Policies } from './policy.ts';
import { readUsers, usersFileStamp } from './users-file.ts';

/** What auth needs from outside. */
export interface AuthOptions {
  /** The present configuration: asked anew for each call, so a reload takes hold at once. */
  settings: () => Settings;
  sessions: Sessions;
  events: Pick<EventLog, 'append'>;
  metrics: Metrics;
  log: Log;
  /** Where logins are kept; in this process if absent. */
  logins?: Logins;
  /** What operators changed of the users of a cluster; absent: `users-file` itself is changed. */
  records?: AccountRecords | undefined;
  /** Where failed logins are counted; in this process if absent. */
  failures?: LoginFailures | undefined;
  /** ms since 1970; must not jump. Default: that of `systemClock`. */
  now?: () => number;
}

/** The parts of auth, made in order; who opened them closes them. */
export interface OpenAuth extends AuthParts {
  directory: Directory;
  /** The users, and what each would get. */
  accounts: Accounts & { explain: ExplainPolicy };
  /** @returns the step that takes over, which does not fail. @throws UsersFileError */
  prepare(settings: Settings): Promise<() => Promise<void>>;
  close(): Promise<void>;
}

/** @throws UsersFileError when `users-file` cannot be read or is wrong. */
export async function openAuth(options: AuthOptions): Promise<OpenAuth> {
  const { settings, sessions, log, events, metrics } = options;
  const clock = systemClock();
  const now = options.now ?? (() => Number(clock() / 1000n));
  const directory = await Directory.open({
    file: settings().usersFile,
    required: () => usesPasswords(settings()),
    records: options.records,
    sessions,
    events,
    now: () => BigInt(now()) * 1000n,
    log,
    mayEnter: (profile, groups) => mayEnter(settings(), profile, groups).ok,
    listsUsers: (profile) => {
      const { profiles } = settings();
      return Object.hasOwn(profiles, profile) && (profiles[profile]?.methods.includes('local') ?? false);
    },
  });
  const passwords = new Passwords();
  const failures = options.failures ?? new LoginFailures(new MemoryCounters());
  const flow = new LoginFlow({
    settings,
    logins: options.logins ?? new MemoryLogins(now),
    methods: [new LocalMethod(directory, passwords), new CertificateMethod(directory, settings)],
    directory,
    policies: new Policies(),
    sessions,
    attempts: new Attempts({ events, metrics, log, now, failures }),
    now,
  });
  return {
    flow,
    sessions,
    now,
    directory,
    accounts: {
      list: () => directory.list(),
      apply: (order) => directory.apply(order),
      explain: policyExplainer(settings, directory),
    },
    prepare: (next) => directory.prepare(usesPasswords(next)),
    async close() {
      directory.close();
      await passwords.close();
    },
  };
}

/** @throws UsersFileError when some profile needs `users-file` and it is missing, or it is there and wrong. */
export async function checkUsers(settings: Settings): Promise<void> {
  const { usersFile } = settings;
  if (usersFile === '') return;
  if (usesPasswords(settings) || (await usersFileStamp(usersFile)) !== '') await readUsers(usersFile);
}

function usesPasswords(settings: Settings): boolean {
  return Object.values(settings.profiles).some(({ methods }) => methods.includes('local'));
}

@Module({})
export class AuthModule {
  /** The module over parts that are open: the same ones that the process calls directly. */
  static with(parts: AuthParts & Partial<Pick<OpenAuth, 'accounts'>>): DynamicModule {
    const { accounts } = parts;
    return {
      module: AuthModule,
      controllers: [AuthController, ...(accounts ? [AccountController] : [])],
      providers: [
        { provide: AUTH_PARTS, useValue: parts },
        { provide: ACCOUNT_PARTS, useValue: { accounts, explain: accounts?.explain } },
      ],
    };
  }
}
