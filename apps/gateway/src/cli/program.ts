/**
 * The command line: occtl's verbs over the admin socket, `user`, `check-config`, and the role `gateway`.
 * Results go to `out`, everything else is a StartError or a log line. What is heavy is imported when its verb runs: a gateway that
 * starts again has clients waiting.
 */
import { PEER_ROLES, RETURN_PATHS, settingsReference, type PeerRole } from '@sallyport/cluster';
import { StartError } from '@sallyport/chassis';
import type { Target } from '../admin/wire.ts';
import type { AdminClient } from './admin-client.ts';
import { addCluster } from './cluster-verbs.ts';
import { addEvents } from './event-verbs.ts';
import * as form from './occtl-form.ts';
import { addPki } from './pki-verbs.ts';
import { readNewPassword } from './prompt.ts';
import {
  Argument,
  Command,
  DEFAULT_STATE_DIR,
  Option,
  SOCKETS,
  Verbs,
  type GatewayCommand,
  type GlobalOptions,
  type RoleCommand,
  type Surroundings,
} from './verbs.ts';

export function sallyportProgram(around: Surroundings): Command {
  const program = new Command('sallyport')
    .description('AnyConnect-compatible SSL VPN gateway: runs it, and asks and commands a running one.')
    .version(around.version)
    .option('-s, --socket-file <path>', `admin socket (else $SALLYPORT_SOCKET, ${SOCKETS.join(', ')})`)
    .option('-j, --json', 'results as JSON, with the keys of occtl')
    .option('-n, --no-pager', 'accepted for scripts written for occtl; there never is a pager')
    .option('--debug', 'accepted for scripts written for occtl')
    .showSuggestionAfterError()
    .addHelpText('after', EXAMPLES);
  const verbs = new Verbs(program, around);
  addRoles(program, around);
  addShow(program, verbs);
  addCommands(program, verbs);
  addUsers(program, verbs, around);
  addCluster(program, verbs);
  addPki(program, verbs);
  addEvents(program, verbs);
  return program;
}

function addRoles(program: Command, around: Surroundings): void {
  program
    .command('gateway')
    .description('run the gateway in one process')
    .option('--config <file>', 'configuration (else sallyport.yaml in the state folder)', '')
    .option('--state-dir <dir>', 'folder for configuration, users, journal and socket', DEFAULT_STATE_DIR)
    .option('--first-run', 'make what the state folder lacks: certificate, demo user, configuration', false)
    .action((options: GatewayCommand) => around.runGateway(options));
  for (const role of PEER_ROLES) {
    program
      .command(role)
      .description(`run ${ROLES[role]} of a cluster`)
      .requiredOption('--config <file>', 'configuration of the cluster')
      .option('--state-dir <dir>', 'folder for the socket', DEFAULT_STATE_DIR)
      .action((options: RoleCommand) => around.runRole(role, options));
  }
  program
    .command('supervise')
    .description('run a role below the supervisor: a crash or an upgrade never closes its port')
    .argument('<role>', 'with its own arguments')
    .argument('[arguments...]')
    .allowUnknownOption()
    .action((role: string, args: string[]) => around.supervise(role, args));
  program
    .command('check-config')
    .description('check a configuration file and the files that it names; all errors at once')
    .argument('<file>')
    .addOption(
      new Option('--role <role>', 'what this role of a cluster needs, and no more').choices(PEER_ROLES),
    )
    .action(async (file: string, { role }: { role?: PeerRole }) => {
      const json = program.opts<GlobalOptions>().json ?? false;
      const { checkedConfiguration } = await import('./check-config.ts');
      const { errors, warnings, settings } = await checkedConfiguration(file, around.now(), role);
      const notes =
        settings?.redis && role === 'tunnel-node'
          ? [`return-path ${settings.returnPath}: ${RETURN_PATHS[settings.returnPath]}`]
          : [];
      if (json) around.out(`${JSON.stringify({ errors, warnings, notes }, null, 2)}\n`);
      if (errors.length > 0) throw new StartError(errors.join('\n'));
      if (!json) around.out([...warnings.map(warningLine), `${file}: no errors`, ...notes, ''].join('\n'));
    });
  program
    .command('config-reference')
    .description('print the reference of all keys (docs/configuration.md)')
    .action(() => around.out(settingsReference()));
}

function addShow(program: Command, verbs: Verbs): void {
  const show = program.command('show').description('show what a running gateway knows');
  show
    .command('status')
    .description('state, version and counters')
    .action(() =>
      verbs.ask(async (client) => {
        const status = await client.status();
        verbs.print(form.statusJson(status, verbs.now), form.statusText(status, verbs.now));
      }),
    );
  show
    .command('users')
    .description('users with a tunnel')
    .action(() =>
      verbs.ask(async (client) => {
        showTunnels(verbs, await client.tunnels());
        await warnOfSilent(verbs, client);
      }),
    );
  show
    .command('user')
    .description('all that is known of the tunnels of one user')
    .argument('<name>')
    .action((user: string) =>
      verbs.ask(async (client) =>
        showTunnel(verbs, await client.tunnels({ user }), `User ${user} has no tunnel.`),
      ),
    );
  show
    .command('id')
    .description('all that is known of one tunnel')
    .argument('<id>', 'from show users; NODE/ID in a cluster')
    .action((id: string) =>
      verbs.ask(async (client) => {
        showTunnel(verbs, await client.tunnels(idOf(id)), `There is no tunnel with the id ${id}.`);
      }),
    );
  addShowSessions(show, verbs);
  show
    .command('events')
    .description('the last events, then each as it happens; JSON: one object a line')
    .option('--last <count>', 'how many of the last ones come first', countOf, DEFAULT_EVENTS)
    .option('--once', 'end after the last ones')
    .action(({ last, once }: { last: number; once?: boolean }) =>
      verbs.ask(async (client) => {
        for await (const event of client.events({ last, follow: !once })) {
          verbs.printLine(form.eventJson(event), form.eventText(event));
        }
      }),
    );
}

function addShowSessions(show: Command, verbs: Verbs): void {
  show
    .command('sessions')
    .alias('cookies')
    .description('sessions, with or without a tunnel')
    .addArgument(
      new Argument('[which]', 'the same here: ended sessions are not kept').choices(['all', 'valid']),
    )
    .action(() =>
      verbs.ask(async (client) => {
        const sessions = await client.sessions();
        const json = sessions.map((session) => form.sessionJson(session, verbs.now));
        verbs.print(
          json,
          sessions.length > 0 ? form.sessionsText(sessions, verbs.now) : 'There are no sessions.',
        );
      }),
    );
  show
    .command('session')
    .alias('cookie')
    .description('one session')
    .argument('<sid>', 'an id or its beginning')
    .action((sid: string) =>
      verbs.ask(async (client) => {
        const sessions = await client.sessions(sid);
        if (sessions.length === 0) throw new StartError(`There is no session ${sid}.`);
        const json = sessions.map((session) => form.sessionJson(session, verbs.now));
        verbs.print(json, sessions.map((session) => form.sessionText(session, verbs.now)).join('\n\n'));
      }),
    );
}

/** One line on stderr for each node that did not answer: what it has was neither shown nor ended. */
async function warnOfSilent(verbs: Verbs, client: AdminClient): Promise<void> {
  // While the store is away nobody knows them; the answer itself stands.
  const nodes = await client.nodes().catch(() => []);
  for (const { name, state } of nodes)
    if (state === 'silent') verbs.warn(`node ${name} does not answer: its tunnels are not in this`);
}

function showTunnels(verbs: Verbs, tunnels: Parameters<typeof form.tunnelsText>[0]): void {
  const json = tunnels.map((tunnel) => form.tunnelJson(tunnel, verbs.now));
  verbs.print(json, tunnels.length > 0 ? form.tunnelsText(tunnels, verbs.now) : 'No user has a tunnel.');
}

function showTunnel(verbs: Verbs, tunnels: Parameters<typeof form.tunnelsText>[0], none: string): void {
  if (tunnels.length === 0) throw new StartError(none);
  const json = tunnels.map((tunnel) => form.tunnelJson(tunnel, verbs.now));
  verbs.print(json, tunnels.map((tunnel) => form.tunnelText(tunnel, verbs.now)).join('\n\n'));
}

function addCommands(program: Command, verbs: Verbs): void {
  const disconnect = program
    .command('disconnect')
    .description(
      'end tunnels; the sessions stay: openconnect exits, other clients may come back without a password',
    );
  const terminate = program.command('terminate').description('end sessions: their clients need a new login');
  for (const [command, call] of [
    [disconnect, 'disconnect'],
    [terminate, 'terminate'],
  ] as const) {
    const run = async (target: Target, subject: string) =>
      verbs.ask(async (client) => {
        const { count } = await client[call](target);
        await warnOfSilent(verbs, client);
        if (count === 0 && 'sessionId' in target) throw new StartError(`There is no ${subject}.`);
        if (count === 0) throw new StartError(`There was nothing to end: ${subject} has no ${WHAT[call]}.`);
        verbs.print({ count }, `${subject}: ${count} ${WHAT[call]}${count === 1 ? '' : 's'} ended`);
      });
    command
      .command('user')
      .argument('<name>')
      .action((user: string) => run({ user }, `user ${user}`));
    command
      .command('id')
      .argument('<id>', 'from show users; NODE/ID in a cluster')
      .action((id: string) => run(idOf(id), `id ${id}`));
    if (call === 'terminate') {
      command
        .command('session')
        .argument('<sid>', 'an id or its beginning, at least six characters')
        .action((sessionId: string) => run({ sessionId }, `session ${sessionId}`));
    }
  }
  program
    .command('reload')
    .description('read configuration, certificates and users anew; with errors the old ones stay')
    .action(() =>
      verbs.ask(async (client) => {
        const answer = await client.reload();
        if (!answer.applied)
          throw new StartError(['The old configuration stays.', ...answer.errors].join('\n'));
        const waiting = answer.waiting.map((key) => `${key} changed: takes effect at the next start`);
        const files = answer.files.map((path) => `${path} has changed and is in use`);
        const lines = [`configuration ${answer.revision} is in use`, ...files, ...waiting];
        verbs.print(answer, [...lines, ...answer.warnings.map(warningLine)].join('\n'));
      }),
    );
  program
    .command('stop')
    .description(
      'stop the gateway; clients come back when it is started again (which systemd does at once: systemctl stop)',
    )
    .addArgument(new Argument('<now>', 'the word now').choices(['now']))
    .action(() =>
      verbs.ask(async (client) => {
        await client.stop();
        verbs.print({ stopping: true }, 'the gateway is stopping');
      }),
    );
}

function addUsers(program: Command, verbs: Verbs, around: Surroundings): void {
  const user = program
    .command('user')
    .description('users; of one gateway also while it does not run')
    .option('--config <file>', 'the users-file of this configuration, instead of asking what runs');
  const accounts = async () => {
    const { accountsOf } = await import('./accounts.ts');
    return accountsOf(verbs.socket, user.opts<{ config?: string }>().config);
  };
  const done = async (verb: string, name: string, work: Promise<void>) => {
    await work;
    verbs.print({ user: name, done: verb }, `user ${name}: ${verb}`);
  };
  user
    .command('add')
    .description('add a user; the password is asked for, or is the first line of standard input')
    .argument('<name>')
    .option(
      '-g, --group <groups>',
      'his groups, with commas between or the option repeated; the policy of the first applies',
      (names: string, before: string[]) => [...before, ...names.split(',')],
      [],
    )
    .action(async (name: string, { group }: { group: string[] }) => {
      const to = await accounts();
      const password = await readNewPassword(name, around.input, around.prompts);
      const groups = group.filter((one) => one !== '');
      await done('added', name, to.apply({ verb: 'add', name, groups, password }));
    });
  user
    .command('passwd')
    .description('set a new password; ends his sessions')
    .argument('<name>')
    .action(async (name: string) => {
      const to = await accounts();
      const password = await readNewPassword(name, around.input, around.prompts);
      await done('password changed', name, to.apply({ verb: 'passwd', name, password }));
    });
  for (const [verb, about, past] of [
    ['lock', 'refuse his logins and end his sessions', 'locked'],
    ['unlock', 'take his logins again', 'unlocked'],
    ['delete', 'delete a user and end his sessions', 'deleted'],
  ] as const) {
    user
      .command(verb)
      .description(about)
      .argument('<name>')
      .action(async (name: string) => done(past, name, (await accounts()).apply({ verb, name })));
  }
  user
    .command('list')
    .description('all users with their groups')
    .action(async () => {
      const list = await (await accounts()).list();
      const json = list.map(({ name, groups, locked }) => ({
        Username: name,
        Groups: groups,
        Locked: locked,
      }));
      const rows = list.map(({ name, groups, locked }) => [name, groups.join(','), locked ? 'locked' : '']);
      verbs.print(
        json,
        list.length > 0 ? form.columns(['user', 'groups', 'state'], rows) : 'There are no users.',
      );
    });
}

function warningLine(text: string): string {
  return `warning: ${text}`;
}

/** `7` or `n1/7`. */
function idOf(text: string): { tunnelId: number; node: string } {
  const slash = text.indexOf('/');
  const tunnelId = Number(text.slice(slash + 1));
  if (Number.isInteger(tunnelId) && tunnelId > 0 && tunnelId < 2 ** 32)
    return { tunnelId, node: text.slice(0, Math.max(0, slash)) };
  throw new StartError(`${text} is no id: it is the number in the first column of show users.`);
}

function countOf(text: string): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 0 && count <= MAX_EVENTS) return count;
  throw new StartError(`${text} is no count from 0 to ${MAX_EVENTS}.`);
}

const ROLES: Record<PeerRole, string> = {
  auth: 'a replica of auth',
  portal: 'a replica of the portal',
  downloader: 'a replica of the downloader',
  'tunnel-node': 'a tunnel node',
};
const WHAT = { disconnect: 'tunnel', terminate: 'session' } as const;
const DEFAULT_EVENTS = 20;
const MAX_EVENTS = 100_000;

const EXAMPLES = `
Examples:
  sallyport gateway --state-dir /var/lib/sallyport
  sallyport check-config /var/lib/sallyport/sallyport.yaml
  sallyport check-config --role auth /etc/sallyport/auth.yaml
  sallyport user add alice --group staff
  sallyport show users
  sallyport -j show user alice
  sallyport disconnect id 7
  sallyport terminate user alice
  sallyport reload

Exit code 0: done; 1: not done, with the reason on standard error.`;
