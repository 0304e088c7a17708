/** The role `downloader`: phase 4 of the clients that the edges pass on, and the catalog for the portals. */
import { authClient, CATALOG_WIRE, serveUpstream } from '@sallyport/cluster';
import { DownloaderController, DownloaderModule, openDownloader } from '@sallyport/downloader';
import { sentence, starting, type Running } from '../wiring.ts';
import { addressesOf, openRole, openWatching, type RoleOptions } from './role.ts';
import { serveRpc } from './serve-rpc.ts';

/** @throws StartError */
export function startDownloader(options: Omit<RoleOptions, 'openStore'>): Promise<Running> {
  return starting(async (closers, close) => {
    const parts = await openRole('downloader', options.config, closers);
    const { settings, certificates, log } = parts;
    const auth = await authClient({ addresses: addressesOf(settings(), 'auth'), certificates, log });
    closers.push(() => auth.close());
    const downloads = await sentence(openDownloader({ settings: settings(), auth, log }));
    const lifecycle = await openWatching(parts);
    lifecycle.add({ prepare: (next) => downloads.prepare(next) });
    const { listen } = settings();
    const rpc = await serveRpc(
      DownloaderModule.with(downloads),
      {
        listen: listen.catalog,
        services: [{ wire: CATALOG_WIRE, callers: ['portal'] }],
        certificates,
      },
      log,
    );
    closers.push(() => rpc.close());
    const downloader = new DownloaderController(auth, downloads.current);
    const server = await sentence(
      serveUpstream({
        listen: listen.downloader,
        certificates,
        handle: (request) => downloader.handle(request),
        ready: () => lifecycle.state === 'online',
        log,
      }),
    );
    closers.push(() => server.close());
    lifecycle.state = 'online';
    log.info({ listen: listen.downloader, catalog: listen.catalog }, 'the downloader is ready');
    return {
      ...{ settings, log, lifecycle, ready: Promise.resolve() },
      async close() {
        lifecycle.state = 'stopping';
        await close();
      },
    };
  });
}
