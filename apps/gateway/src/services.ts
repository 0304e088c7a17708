import 'reflect-metadata';
import { AuthController, AuthModule, openAuth } from '@sallyport/auth';
import type { Log, Metrics } from '@sallyport/chassis';
import {
  LoginFailures,
  MemoryCounters,
  type EventLog,
  type Nodes,
  type NodeService,
  type Sessions,
  type Settings,
  type Upstream,
} from '@sallyport/cluster';
import { DownloaderController, DownloaderModule, openDownloader } from '@sallyport/downloader';
import { PortalController, PortalModule } from '@sallyport/portal';
import type { UpstreamName } from '@sallyport/tunnel-node';
import { serveAdmin } from './admin/serve-admin.ts';
import { Tally } from './admin/tally.ts';
import type { GatewayLifecycle } from './lifecycle.ts';

export interface ServicesParts {
  settings: () => Settings;
  /** Path of the admin socket. */
  socket: string;
  sessions: Sessions;
  node: NodeService;
  nodes: Nodes;
  events: EventLog;
  metrics: Metrics;
  log: Log;
  lifecycle: GatewayLifecycle;
  /** µs. */
  now: () => bigint;
  /** The portal as clients reach it. */
  guarded: (portal: Upstream) => Upstream;
}

export interface Services {
  upstreams: Record<UpstreamName, Upstream>;
  close(): Promise<void>;
}

/**
 * Everything that CONNECT does not need: auth, portal and downloader behind the interfaces that the cluster has too,
 * called in this process (docs/decisions/0002), and the admin service on its socket. Loads NestJS, so it is imported
 * after the port is open.
 */
export async function openServices(parts: ServicesParts): Promise<Services> {
  const { settings, sessions, events, metrics, log, lifecycle, node, now } = parts;
  const failures = new LoginFailures(new MemoryCounters(now));
  const authParts = await openAuth({
    ...{ settings, sessions, events, failures, metrics, log: log.child({ part: 'auth' }) },
  });
  try {
    const auth = new AuthController(authParts);
    const downloads = await openDownloader({
      settings: settings(),
      auth,
      log: log.child({ part: 'downloader' }),
    });
    const tally = new Tally(events);
    const admin = await serveAdmin(
      {
        sessions,
        node,
        events,
        accounts: authParts.accounts,
        failures,
        nodes: parts.nodes,
        lifecycle,
        tally,
        log,
        now,
      },
      parts.socket,
      [
        AuthModule.with(authParts),
        PortalModule.with({ auth, catalog: downloads.catalog, log: log.child({ part: 'portal' }) }),
        DownloaderModule.with(downloads),
      ],
    );
    const portal = admin.get(PortalController);
    const downloader = admin.get(DownloaderController);
    lifecycle.add({ prepare: (next) => downloads.prepare(next) });
    lifecycle.add({ prepare: (next) => authParts.prepare(next) });
    return {
      upstreams: {
        portal: parts.guarded((request) => portal.handle(request)),
        downloader: (request) => downloader.handle(request),
      },
      async close() {
        tally.close();
        await admin.close();
        await authParts.close();
      },
    };
  } catch (error) {
    await authParts.close();
    throw error;
  }
}
