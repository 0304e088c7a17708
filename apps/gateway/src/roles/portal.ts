/** The role `portal`: phases 2 and 3 of the clients that the edges pass on. Stateless; loads no NestJS, having no gRPC. */
import { authClient, catalogClient, serveUpstream } from '@sallyport/cluster';
import { PortalController } from '@sallyport/portal';
import { sentence, starting, type Running } from '../wiring.ts';
import { addressesOf, openRole, openWatching, type RoleOptions } from './role.ts';

/** @throws StartError */
export function startPortal(options: Omit<RoleOptions, 'openStore'>): Promise<Running> {
  return starting(async (closers, close) => {
    const parts = await openRole('portal', options.config, closers);
    const { settings, certificates, log } = parts;
    const auth = await authClient({ addresses: addressesOf(settings(), 'auth'), certificates, log });
    closers.push(() => auth.close());
    const catalog = await catalogClient({ addresses: addressesOf(settings(), 'catalog'), certificates, log });
    closers.push(() => catalog.close());
    const lifecycle = await openWatching(parts);
    const portal = new PortalController(auth, catalog, log);
    const server = await sentence(
      serveUpstream({
        listen: settings().listen.portal,
        certificates,
        handle: (request) => portal.handle(request),
        ready: () => lifecycle.state === 'online',
        log,
      }),
    );
    closers.push(() => server.close());
    lifecycle.state = 'online';
    log.info({ listen: settings().listen.portal }, 'the portal is ready');
    return {
      ...{ settings, log, lifecycle, ready: Promise.resolve() },
      async close() {
        lifecycle.state = 'stopping';
        await close();
      },
    };
  });
}
