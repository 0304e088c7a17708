/**
 * The role `tunnel-node`: TLS edge, tunnels and engine; portal and downloader are elsewhere. A start, in order:
 *
 *  1. settings, certificates, store      a CONNECT needs the store; the TUN device and the return path meanwhile
 *  2. serving                            the port opens: a CONNECT is served from now on
 *  3. upstreams                          other requests, which waited, go on
 *  4. node                               heartbeat; NestJS with gRPC for the other nodes and the admin socket
 */
import { httpUpstream, type Upstream } from '@sallyport/cluster';
import type { UpstreamName } from '@sallyport/tunnel-node';
import { stateFolder } from '../first-run.ts';
import type { NodeLife } from '../node-life.ts';
import { Releases } from '../releases.ts';
import { calm, openHost, openServing } from '../serving.ts';
import {
  deferred,
  limitsOf,
  nodeEvent,
  sentence,
  starting,
  together,
  type Closer,
  type Running,
} from '../wiring.ts';
import { asserting } from './asserting.ts';
import { joinCluster } from './joining.ts';
import { addressesOf, openRole, type ClusterStore, type RoleOptions, type RoleParts } from './role.ts';

/** @throws StartError */
export function startTunnelNode(options: RoleOptions): Promise<Running> {
  return starting(async (closers, close) => {
    // 1. settings, certificates, store
    const parts = await openRole('tunnel-node', options.config, closers);
    const { settings, certificates, log, now, node, role } = parts;
    const [portals, downloaders] = [addressesOf(settings(), 'portal'), addressesOf(settings(), 'downloader')];
    const state = stateFolder(options.stateDir);
    // Clients of a process that died wait, and each of the two waits for others most of its time.
    const [store, host] = await together(
      openStore(options, parts, closers),
      openHost(settings(), state, log, closers),
    );
    const { sessions, assertions, nodes, events } = store;

    // 2. serving
    const upstreams = deferred<Record<UpstreamName, Upstream>>();
    const later: { life?: NodeLife; releases?: Releases } = {};
    // After the tunnels and the heartbeat have stopped. A drain outlives the process, so such a node is not forgotten.
    closers.push(() => (later.life?.draining === false ? nodes.leave(node) : undefined));
    const { tunnels, listener, lifecycle, returnPath } = await openServing({
      ...{ ...parts, role, state, host, sessions, events, supervision: options.supervision },
      upstreams: upstreams.promise,
      onTaken: (from, release) => later.releases?.add(from, release),
      notReady: () => later.life?.notReady() ?? [],
      notes: () => later.life?.notes() ?? [],
    });

    if (assertions) closers.push(asserting({ assertions, tunnels, node, log }));

    // 3. upstreams
    const portal = httpUpstream({ role: 'portal', addresses: portals, certificates, log });
    const downloader = httpUpstream({ role: 'downloader', addresses: downloaders, certificates, log });
    closers.push(
      () => portal.close(),
      () => downloader.close(),
    );
    const lost = deferred<Error>();
    const joining = { ...parts, nodes, tunnels, lifecycle, returnPath, onReplaced: lost.resolve };
    const { own, peers, clients, client } = await joinCluster(
      joining,
      closers,
      (made) => (later.life = made),
    );
    upstreams.resolve({ portal: own.guarded(portal.upstream), downloader: downloader.upstream });

    // 4. node
    const ready = calm(listener).then(async () => {
      const { openNodeServices } = await import('./node-services.ts');
      const services = await sentence(
        openNodeServices({
          ...{ ...parts, sessions, nodes, events, lifecycle, own, peers, clients, socket: state.socket },
          ...{ failures: store.failures, lastLogins: store.lastLogins },
        }),
      );
      closers.push(() => services.close());
      // Not before: the first call loads gRPC, and clients wait.
      later.releases = new Releases({ peers, client, log });
      lifecycle.state = 'online';
      events.append([nodeEvent({ now, node }, 'node.ready')]);
      log.info({ port: settings().tcpPort, rpc: settings().listen.node }, 'the node is ready');
    });
    return {
      ...{ settings, log, lifecycle, ready, lost: lost.promise },
      async close() {
        lifecycle.state = 'stopping';
        events.append([nodeEvent({ now, node }, 'node.stopping')]);
        await ready.catch(() => undefined);
        await close();
      },
    };
  });
}

/** With what the former process of this node had parked. @throws StartError */
async function openStore(
  options: RoleOptions,
  { settings, log, metrics, node, role }: RoleParts,
  closers: Closer[],
): Promise<ClusterStore> {
  const limits = limitsOf(settings());
  const store = await sentence(options.openStore(settings(), { log, metrics, node, role, limits }));
  closers.push(() => store.close());
  const parked = await sentence(store.sessions.announce(node));
  log.info({ parked }, 'announced');
  return store;
}
