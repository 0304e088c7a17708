import {
  accountClient,
  NODE_WIRE,
  type EventLog,
  type LoginFailures,
  type Nodes,
  type Occurrence,
  type Sessions,
} from '@sallyport/cluster';
import { TunnelNodeModule } from '@sallyport/tunnel-node/nest';
import { serveAdmin } from '../admin/serve-admin.ts';
import { Tally } from '../admin/tally.ts';
import { ClusterNodes } from '../cluster-nodes.ts';
import type { GatewayLifecycle } from '../lifecycle.ts';
import type { NodeClients } from '../node-clients.ts';
import type { NodeLife } from '../node-life.ts';
import type { Peers } from '../peers.ts';
import { addressesOf, type RoleParts } from './role.ts';
import { serveRpc } from './serve-rpc.ts';

export interface NodeServicesParts extends RoleParts {
  sessions: Sessions;
  nodes: Nodes;
  events: EventLog;
  failures: LoginFailures;
  lastLogins?: ((user: string) => Promise<Occurrence[]>) | undefined;
  lifecycle: GatewayLifecycle;
  own: NodeLife;
  peers: Peers;
  clients: NodeClients;
  /** Path of the admin socket. */
  socket: string;
}

/** What a node offers besides serving clients. Loads NestJS, so it is imported after the port is open. */
export async function openNodeServices(parts: NodeServicesParts): Promise<{ close(): Promise<void> }> {
  const { settings, certificates, log, now, node, sessions, nodes, events, lifecycle, own } = parts;
  const { peers, clients } = parts;
  const cluster = new ClusterNodes({
    ...{ nodes, sessions, clients, log },
    known: () => peers.alive,
    own: { name: node.name, node: own },
  });
  const accounts = await accountClient({ addresses: addressesOf(settings(), 'auth'), certificates, log });
  const tally = new Tally(events);
  const rpc = await serveRpc(
    TunnelNodeModule.with(own),
    {
      listen: settings().listen.node,
      services: [{ wire: NODE_WIRE, callers: ['tunnel-node', 'auth'] }],
      certificates,
    },
    log,
  );
  try {
    const admin = await serveAdmin(
      {
        sessions,
        node: cluster,
        nodes,
        events,
        lifecycle,
        tally,
        log,
        now,
        accounts,
        failures: parts.failures,
        lastLogins: parts.lastLogins,
        notes: () => [...own.notReady(), ...own.notes()],
      },
      parts.socket,
    );
    return {
      async close() {
        tally.close();
        accounts.close();
        await admin.close();
        await rpc.close();
      },
    };
  } catch (error) {
    tally.close();
    accounts.close();
    await rpc.close();
    throw error;
  }
}
