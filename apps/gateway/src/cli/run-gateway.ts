import { access, readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import {
  checkThreadPool,
  createLog,
  endOnUncaughtFaults,
  runService,
  StartError,
  type Supervision,
} from '@sallyport/chassis';
import { exampleSettings, parseSettings } from '@sallyport/cluster';
import { firstRun, planFirstRun, stateFolder } from '../first-run.ts';
import type { DemoUser, StateFolder } from '../first-run.ts';
import type { Gateway, GatewayOptions } from '../main.ts';
import type { Running } from '../wiring.ts';
import { placeProblems } from './place.ts';
import type { GatewayCommand } from './verbs.ts';
import { demoLine, welcome } from './welcome.ts';

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
  const file = config === '' ? state.config : resolve(config);
  let demo: DemoUser | undefined;
  const startHere = async (): Promise<Gateway> => {
    if (isFirstRun) demo = await prepare(state, file, supervision);
    if (config === '' && !(await exists(file))) {
      throw new StartError(
        `There is no ${file}: name a configuration with --config, or let --first-run make one.`,
      );
    }
    return start({ config: file, stateDir: state.path, supervision }).catch((fault: unknown) => {
      // The users file is there now, so no later start shows it.
      if (demo) print(`${demoLine(demo)}\n`);
      throw fault;
    });
  };
  const { settings } = await keepRunning(startHere, supervision, 'sallyport gateway');
  if (isFirstRun && supervision.starts === 1) print(await welcome(settings(), demo));
}

/**
 * Starts, and goes on until a signal ends it, or what is loaded later fails. Signals are heard from the first moment, so
 * that a start leaves nothing behind: one to stop is followed when what has been opened can be closed, one to reload
 * when all of it is loaded.
 */
export async function keepRunning<T extends Running>(
  start: () => Promise<T>,
  supervision: Supervision,
  title: string,
): Promise<T> {
  // Of its own until the settings are read.
  const log = createLog({ name: 'sallyport', level: 'info' });
  const starting = Promise.resolve().then(start);
  const started = starting.catch(() => undefined);
  const close = async () => (await started)?.close();
  const stop = () => {
    supervision.stopping();
    return close();
  };
  const reload = async () => {
    const running = await started;
    await running?.ready;
    await running?.lifecycle.reload();
  };
  runService({ stop, reload }, { log, title });
  endOnUncaughtFaults(log, close);
  const running = await starting;
  log.level = running.log.level;
  try {
    await running.ready;
  } catch (fault) {
    await running.close();
    throw fault;
  }
  supervision.ready();
  void running.lost?.then(async ({ message }) => {
    process.stderr.write(`${message}\n`);
    await stop();
    process.exit(LOST_EXIT);
  });
  return running;
}

const LOST_EXIT = 1;

/** Makes what is missing, if the gateway can run here: a start that fails leaves nothing behind. */
async function prepare(
  state: StateFolder,
  file: string,
  { tcp }: Supervision,
): Promise<DemoUser | undefined> {
  const example = exampleSettings();
  const read = parseSettings(await readFile(file, 'utf8').catch(() => example), file);
  if ('errors' in read) throw new StartError(read.errors.join('\n'));
  const plan = await planFirstRun(state, file, read.settings);
  if (!Object.values(plan).includes(true)) return undefined;
  const problems = await placeProblems(read.settings, { portIsHeld: tcp !== undefined });
  if (problems.length > 0) throw new StartError(problems.join('\n'));
  const { changeUsersFile, hashed } = await import('@sallyport/auth');
  return firstRun(state, plan, example, async (usersFile, name, password, group) => {
    await changeUsersFile(usersFile, await hashed({ verb: 'add', name, password, groups: [group] }));
  }).catch((error: unknown) => {
    const said = error instanceof Error ? error.message : String(error);
    throw new StartError(`The state folder ${state.path} cannot be made: ${said}`, { cause: error });
  });
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
