import { Controller, Inject } from '@nestjs/common';
import { GrpcMethod } from '@nestjs/microservices';
import type { AnnounceRequest, Announcement, CatalogService } from '@sallyport/cluster';
import { packageVersion } from '@sallyport/protocol';
import type { Catalog } from './catalog.ts';
import type { Package } from './packages.ts';

/** Token of a function that gives the present Catalog: asked anew for each request, so a reload takes hold at once. */
export const CATALOG = Symbol('Catalog');

/** proto/catalog.proto. The portal announces what this says, the downloader serves it: both from one Catalog. */
@Controller()
export class CatalogController implements CatalogService {
  readonly #catalog: () => Catalog;

  constructor(@Inject(CATALOG) catalog: () => Catalog) {
    this.#catalog = catalog;
  }

  @GrpcMethod('CatalogService', 'Announce')
  announce(request: AnnounceRequest): Promise<Announcement> {
    const { profiles, packages } = this.#catalog();
    const profile = profiles.get(request.profileFile);
    const fitting = packagesFor(packages, request.platform);
    return Promise.resolve({
      basePackageUri: BASE_URI,
      packageVersion: packageVersion(coreVersion(fitting)),
      packages: fitting.map(({ id, version, isCore, type, os, module, uri, displayName }) => ({
        ...{ id, version, isCore, type, os, module, uri, displayName },
      })),
      profileUri: profile ? `${PROFILE_FOLDER}${profile.name}` : '',
      profileSha1: profile?.sha1 ?? '',
    });
  }
}

/** Packages for one operating system; of an unknown platform nobody knows what would fit. */
export function packagesFor(packages: readonly Package[], platform: string): Package[] {
  const wanted = systemOf(platform);
  return wanted === '' ? [] : packages.filter(({ os }) => systemOf(os) === wanted);
}

/** With dots; '' = no core among them, so no update. */
export function coreVersion(packages: readonly Package[]): string {
  return packages.find(({ isCore }) => isCore)?.version ?? '';
}

/** `win:6.1.7601`, `win`, `Windows_ARM64` → `win`; `mac-intel`, `darwin_i386` → `mac`; `linux-64` → `linux`. */
function systemOf(name: string): string {
  return SYSTEMS.find(([form]) => form.test(name))?.[1] ?? '';
}

const SYSTEMS: readonly (readonly [RegExp, string])[] = [
  [/^win/i, 'win'],
  [/^(?:mac|darwin)/i, 'mac'],
  [/^linux/i, 'linux'],
];
export const BASE_URI = '/CACHE/stc/1';
export const PROFILE_FOLDER = '/CACHE/stc/profiles/';
