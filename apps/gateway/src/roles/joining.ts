import type { Nodes } from '@sallyport/cluster';
import type { ReturnPath } from '@sallyport/engine';
import { HomeSlice } from '../home-slice.ts';
import { Isolation, observeIsolation, type IsolationParts } from '../isolation.ts';
import { NodeClients } from '../node-clients.ts';
import { NodeLife, type NodeLifeParts } from '../node-life.ts';
import { Peers } from '../peers.ts';
import type { Closer } from '../wiring.ts';
import type { RoleParts } from './role.ts';

export interface JoiningParts extends RoleParts {
  nodes: Nodes;
  tunnels: NodeLifeParts['tunnels'] & IsolationParts['tunnels'];
  lifecycle: NodeLifeParts['lifecycle'];
  returnPath: ReturnPath;
  onReplaced: (why: Error) => void;
}

/**
 * Makes this node one of several: heartbeat and drain, whom it can hear, its slice of the pools.
 * @param begun told before the first heartbeat: from then on the node has to be taken back.
 */
export async function joinCluster(parts: JoiningParts, closers: Closer[], begun: (own: NodeLife) => void) {
  const { onReplaced } = parts;
  const { settings, certificates, metrics, node, nodes, tunnels, lifecycle, returnPath, log, now } = parts;
  const clients = new NodeClients(certificates);
  closers.push(() => clients.close());
  const client = (where: string) => clients.at(where);
  const monotonic = () => performance.now();
  const peers = new Peers({ nodes, own: node.name, client, monotonic });
  const limitSeconds = () => settings().isolationLimitSeconds;
  const isolation = new Isolation({ peers, tunnels, limitSeconds, log, monotonic });
  observeIsolation(metrics, isolation);
  const home = new HomeSlice({
    ...{ nodes, node, settings, returnPath, log },
    known: () => peers.alive,
    isolated: () => isolation.reason !== undefined,
  });
  closers.push(() => home.close());
  const { number, address } = settings().node;
  const own = new NodeLife({
    ...{ nodes, tunnels, lifecycle, home, peers, isolation, onReplaced, log, now, monotonic },
    announcement: { ...node, number, address },
  });
  closers.push(() => own.close());
  begun(own);
  await own.handleTick();
  await home.handleTick();
  return { own, peers, clients, client };
}
