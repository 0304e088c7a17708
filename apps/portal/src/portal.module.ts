import { Module, type DynamicModule } from '@nestjs/common';
import type { Log } from '@sallyport/chassis';
import { AUTH_SERVICE, CATALOG_SERVICE, type AuthService, type CatalogService } from '@sallyport/cluster';
import { PORTAL_LOG, PortalController } from './portal.controller.ts';

export interface PortalParts {
  auth: AuthService;
  catalog: CatalogService;
  log: Log;
}

@Module({})
export class PortalModule {
  static with({ auth, catalog, log }: PortalParts): DynamicModule {
    return {
      module: PortalModule,
      controllers: [PortalController],
      providers: [
        { provide: AUTH_SERVICE, useValue: auth },
        { provide: CATALOG_SERVICE, useValue: catalog },
        { provide: PORTAL_LOG, useValue: log },
      ],
    };
  }
}
