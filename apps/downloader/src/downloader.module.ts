import { Module, type DynamicModule } from '@nestjs/common';
import { AUTH_SERVICE, type AuthService } from '@sallyport/cluster';
import { CATALOG, CatalogController } from './catalog.controller.ts';
import type { Catalog } from './catalog.ts';
import { DownloaderController } from './downloader.controller.ts';

export interface DownloaderParts {
  auth: AuthService;
  /** The present catalog: exchanged as a whole by a reload. */
  catalog: () => Catalog;
}

@Module({})
export class DownloaderModule {
  static with({ auth, catalog }: DownloaderParts): DynamicModule {
    return {
      module: DownloaderModule,
      controllers: [DownloaderController, CatalogController],
      providers: [
        { provide: AUTH_SERVICE, useValue: auth },
        { provide: CATALOG, useValue: catalog },
      ],
    };
  }
}
