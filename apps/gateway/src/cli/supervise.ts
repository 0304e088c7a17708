/**
 * `sallyport supervise ROLE …`: the role below sallyport-supervisor (native/supervisor), which holds its sockets and starts
 * it again. This process only waits and passes signals on, because Node cannot become another program.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { constants } from 'node:os';
import { parseArgs } from 'node:util';
import { exampleSettings, parseSettings, PEER_ROLES, type PeerRole, type Settings } from '@sallyport/cluster';
import { stateFolder } from '../first-run.ts';
import { DEFAULT_STATE_DIR } from './verbs.ts';

export interface SuperviseOptions {
  role: string;
  /** Arguments of the role. */
  args: readonly string[];
  /** The supervisor's program. */
  supervisor: string;
  /** What runs a role: Node, its options, bin/sallyport. */
  program: readonly string[];
  /** One line for the operator. */
  say(line: string): void;
}

/**
 * @returns the exit code; undefined = nothing was started, and the role should run in this process: there is no
 * supervisor, or the configuration has errors, which the role tells in its own words.
 */
export async function supervise(options: SuperviseOptions): Promise<number | undefined> {
  const { role, args, supervisor, program } = options;
  if (!existsSync(supervisor)) {
    options.say(NO_SUPERVISOR);
    return undefined;
  }
  const settings = await settingsOf(
    args,
    PEER_ROLES.find((one) => one === role),
  );
  if (settings === undefined) return undefined;
  const health = healthPlace(settings);
  const child = spawn(
    supervisor,
    [
      ...(SERVING_ROLES.includes(role)
        ? ['--tcp', listenPlace(settings), ...(health === '' ? [] : ['--health', health])]
        : []),
      ...['--parent', String(process.pid), '--log-level', settings.logLevel],
      ...['--', ...program, role, ...args],
    ],
    { stdio: 'inherit' },
  );
  for (const signal of PASSED_ON) process.on(signal, () => child.kill(signal));
  return new Promise((resolve) => {
    child.once('error', () => {
      options.say(NO_SUPERVISOR);
      resolve(undefined);
    });
    child.once('exit', (code, signal) => resolve(code ?? 128 + (signal ? constants.signals[signal] : 0)));
  });
}

/** As sallyport-supervisor takes it. */
export function listenPlace({ listenHost, tcpPort }: Pick<Settings, 'listenHost' | 'tcpPort'>): string {
  if (listenHost === '') return `*:${tcpPort}`;
  return listenHost.includes(':') ? `[${listenHost}]:${tcpPort}` : `${listenHost}:${tcpPort}`;
}

/** '' = a name, which the role itself has to look up. */
function healthPlace({ adminAddress }: Pick<Settings, 'adminAddress'>): string {
  const host = adminAddress.slice(0, adminAddress.lastIndexOf(':')).replace(/^\[(.*)\]$/, '$1');
  return isIP(host) ? adminAddress : '';
}

async function settingsOf(args: readonly string[], role?: PeerRole): Promise<Settings | undefined> {
  const { values } = parseArgs({ args: [...args], options: ROLE_OPTIONS, strict: false });
  const stateDir = typeof values['state-dir'] === 'string' ? values['state-dir'] : DEFAULT_STATE_DIR;
  const file = typeof values.config === 'string' ? values.config : stateFolder(stateDir).config;
  // A first run will make it.
  const missing = values['first-run'] === true ? exampleSettings() : '';
  const parsed = parseSettings(await readFile(file, 'utf8').catch(() => missing), file, role);
  return 'settings' in parsed ? parsed.settings : undefined;
}

const ROLE_OPTIONS = {
  config: { type: 'string' },
  'state-dir': { type: 'string' },
  'first-run': { type: 'boolean' },
} as const;
const SERVING_ROLES = ['gateway', 'tunnel-node'];
const PASSED_ON = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR2'] as const;
const NO_SUPERVISOR =
  'There is no supervisor (npm run build makes it where cargo 1.85 or newer is): restarts cost clients 10 s.';
