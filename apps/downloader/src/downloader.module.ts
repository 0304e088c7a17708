import { Module, type DynamicModule } from '@nestjs/common';
import type { Log } from '@sallyport/chassis';
import { AUTH_SERVICE, type AuthService, type CatalogService, type Settings } from '@sallyport/cluster';
import { CATALOG, CatalogController } from './catalog.controller.ts';
import { loadCatalog, type Catalog } from './catalog.ts';
import { DownloaderController } from './downloader.controller.ts';

export interface DownloaderOptions {
  settings: Settings;
  auth: Pick<AuthService, 'lookup'>;
  log: Log;
}

export interface DownloaderParts {
  auth: Pick<AuthService, 'lookup'>;
  /** The present catalog: exchanged as a whole by a reload. */
  current: () => Catalog;
}

export interface OpenDownloader extends DownloaderParts {
  /** For the portal of the same process. */
  catalog: CatalogService;
  /** Reads the catalog of other settings. @returns the step that takes it over. @throws CatalogError */
  prepare(settings: Settings): Promise<() => void>;
}

/** @throws CatalogError when a profile or a package cannot be served. */
export async function openDownloader({ settings, auth, log }: DownloaderOptions): Promise<OpenDownloader> {
  let present = await loadCatalog(settings);
  const current = () => present;
  const note = () =>
    log.debug({ profiles: present.profiles.size, packages: present.packages.length }, 'catalog loaded');
  note();
  return {
    auth,
    current,
    catalog: new CatalogController(current),
    async prepare(next) {
      const loaded = await loadCatalog(next);
      return () => {
        present = loaded;
        note();
      };
    },
  };
}

@Module({})
export class DownloaderModule {
  static with({ auth, current }: DownloaderParts): DynamicModule {
    return {
      module: DownloaderModule,
      controllers: [DownloaderController, CatalogController],
      providers: [
        { provide: AUTH_SERVICE, useValue: auth },
        { provide: CATALOG, useValue: current },
      ],
    };
  }
}
