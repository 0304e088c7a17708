import { access } from 'node:fs/promises';
import { resolve } from 'node:path';
import {
  checkThreadPool,
  endOnUncaughtFaults,
  runService,
  StartError,
  type Supervision,
} from '@sallyport/chassis';
import { exampleSettings } from '@sallyport/cluster';
import type { Settings } from '@sallyport/cluster';
import { certificatePin, firstRun, reachableAddresses, stateFolder } from '../first-run.ts';
import type { StateFolder } from '../first-run.ts';
import type { Gateway, GatewayOptions } from '../main.ts';
import type { Running } from '../wiring.ts';
import type { GatewayCommand } from './program.ts';

export type StartGateway = (options: GatewayOptions) => Promise<Gateway>;

/**
 * The role `gateway`: starts it, keeps it until a signal, and on a first run makes the state folder before and says
 * afterwards how to try it.
 * @param threads value of UV_THREADPOOL_SIZE. @param print for results, standard output.
 */
export async function runGateway(
  { config, stateDir, firstRun: isFirstRun }: GatewayCommand,
  {
    start,
    threads,
    supervision,
    print,
  }: {
    start: StartGateway;
    threads: string | undefined;
    supervision: Supervision;
    print: (text: string) => void;
  },
): Promise<void> {
  checkThreadPool(threads);
  const state = stateFolder(resolve(stateDir));
  const demo = isFirstRun ? await prepare(state) : undefined;
  const file = config === '' ? state.config : resolve(config);
  if (config === '' && !(await exists(file))) {
    throw new StartError(
      `There is no ${file}: name a configuration with --config, or let --first-run make one.`,
    );
  }
  const gateway = await start({ config: file, stateDir: state.path, supervision });
  await keepRunning(gateway, supervision, 'sallyport gateway');
  if (isFirstRun && supervision.starts === 1) print(await welcome(gateway.settings(), demo));
}

/** Until a signal ends it, or what is loaded later fails. */
export async function keepRunning(
  { log, lifecycle, ready, close }: Omit<Running, 'settings'>,
  supervision: Supervision,
  title: string,
): Promise<void> {
  const stop = () => {
    supervision.stopping();
    return close();
  };
  runService({ stop, reload: () => lifecycle.reload() }, { log, title });
  endOnUncaughtFaults(log, () => close());
  try {
    await ready;
  } catch (fault) {
    await close();
    throw fault;
  }
  supervision.ready();
}

async function prepare(state: StateFolder): Promise<{ name: string; password: string } | undefined> {
  const { changeUsersFile, hashed } = await import('@sallyport/auth');
  const { demoUser } = await firstRun(state, exampleSettings(), async (file, name, password, group) => {
    await changeUsersFile(file, await hashed({ verb: 'add', name, password, groups: [group] }));
  });
  return demoUser;
}

/** How another machine connects; the password only when it was made just now. */
async function welcome(
  settings: Settings,
  demo: { name: string; password: string } | undefined,
): Promise<string> {
  const host = reachableAddresses(settings.device)[0] ?? '127.0.0.1';
  const shownHost = host.includes(':') ? `[${host}]` : host;
  const address = settings.tcpPort === 443 ? shownHost : `${shownHost}:${settings.tcpPort}`;
  const pin = await certificatePin(settings.tls.certFiles[0] ?? '');
  return [
    '',
    `Sallyport serves on https://${address}   configuration: ${settings.file}`,
    `Certificate pin:  ${pin}`,
    ...(demo ? [`Demo user:  ${demo.name}   password (shown once):  ${demo.password}`] : []),
    '',
    'From another machine:',
    `  sudo openconnect --servercert ${pin} --user ${demo?.name ?? 'NAME'} ${address}`,
    '',
    'On this machine the kernel drops packets that come back with a local source address, so a client here needs its own',
    'network namespace: npm run demo shows one. Stop with Ctrl-C; clients come back when the gateway is started again.',
    '',
  ].join('\n');
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
