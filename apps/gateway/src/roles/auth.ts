/**
 * The role `auth`: Logins, users, policy, new sessions; and the clockwork of the whole session table, which any replica may
 * turn: a session ends once, whoever finds its time over first.
 */
import { AuthModule, openAuth } from '@sallyport/auth';
import { ACCOUNT_WIRE, AUTH_WIRE } from '@sallyport/cluster';
import { serveAdmin } from '../admin/serve-admin.ts';
import { Tally } from '../admin/tally.ts';
import { ClusterNodes } from '../cluster-nodes.ts';
import { stateFolder } from '../first-run.ts';
import { NodeClients } from '../node-clients.ts';
import { observeSessions, sweeping } from '../watching.ts';
import { limitsOf, sentence, starting, type Running } from '../wiring.ts';
import { openRole, openWatching, type RoleOptions } from './role.ts';
import { serveRpc } from './serve-rpc.ts';

/** @throws StartError */
export function startAuth(options: RoleOptions): Promise<Running> {
  return starting(async (closers, close) => {
    const parts = await openRole('auth', options.config, closers);
    const { settings, certificates, log, metrics, now, node, role } = parts;
    const limits = limitsOf(settings());
    const store = await sentence(options.openStore(settings(), { log, metrics, node, role, limits }));
    closers.push(() => store.close());
    const { sessions, logins, records, failures, nodes, events } = store;
    if (!logins || !records) throw new Error('the store of auth has no logins, or no records of users');
    const auth = await sentence(
      openAuth({ settings, sessions, logins, records, failures, events, metrics, log }),
    );
    closers.push(() => auth.close());
    const lifecycle = await openWatching(parts, events);
    observeSessions({ metrics, sessions, settings });
    const sweeper = sweeping({ sessions, log });
    closers.push(() => clearInterval(sweeper));
    lifecycle.add({
      async prepare(next) {
        const takeOver = await auth.prepare(next);
        return () => {
          sessions.configure(limitsOf(next));
          return takeOver();
        };
      },
    });
    const clients = new NodeClients(certificates);
    closers.push(() => clients.close());
    const cluster = new ClusterNodes({ nodes, sessions, clients, log });
    const tally = new Tally(events);
    closers.push(() => tally.close());
    const admin = await serveAdmin(
      {
        ...{ sessions, node: cluster, nodes, events, lifecycle, tally, log, now },
        ...{ accounts: auth.accounts, failures, lastLogins: store.lastLogins },
      },
      stateFolder(options.stateDir).socket,
    );
    closers.push(() => admin.close());
    const { listen } = settings();
    const rpc = await serveRpc(
      AuthModule.with(auth),
      {
        listen: listen.auth,
        services: [
          { wire: AUTH_WIRE, callers: ['portal', 'downloader'] },
          { wire: ACCOUNT_WIRE, callers: ['tunnel-node'] },
        ],
        certificates,
      },
      log,
    );
    closers.push(() => rpc.close());
    lifecycle.state = 'online';
    log.info({ listen: listen.auth }, 'auth is ready');
    return {
      ...{ settings, log, lifecycle, ready: Promise.resolve() },
      async close() {
        lifecycle.state = 'stopping';
        await close();
      },
    };
  });
}
