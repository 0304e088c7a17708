import { Controller, Inject } from '@nestjs/common';
import {
  AUTH_SERVICE,
  resourcePath,
  type AuthService,
  type InsideRequest,
  type InsideResponse,
} from '@sallyport/cluster';
import { identifyClient, parseCookies, renderManifest, renderUpdateText } from '@sallyport/protocol';
import { CATALOG, coreVersion, packagesFor } from './catalog.controller.ts';
import type { Catalog } from './catalog.ts';
import { empty, serveBytes, serveFile, UNAUTHORIZED } from './http.ts';
import { openPackage } from './packages.ts';

/**
 * Phase 4 (docs/protocol.md §8). A request names an entry of a table, never a file:
 *
 *   1. stubs      the same for everybody, no session needed
 *   2. session    by the cookie, or 401
 *   3. profile    the one of the session, exactly as announced
 *      package    by its URI in the manifests
 */
@Controller()
export class DownloaderController {
  readonly #auth: Pick<AuthService, 'lookup'>;
  readonly #catalog: () => Catalog;

  constructor(
    @Inject(AUTH_SERVICE) auth: Pick<AuthService, 'lookup'>,
    @Inject(CATALOG) catalog: () => Catalog,
  ) {
    this.#auth = auth;
    this.#catalog = catalog;
  }

  async handle(request: InsideRequest): Promise<InsideResponse> {
    const path = resourcePath(request.target);
    if (path === undefined) return empty(404);
    if (request.method !== 'GET' && request.method !== 'HEAD') return empty(405, [['Allow', 'GET, HEAD']]);
    const name = path.replace(PACKAGE_FOLDER, '');
    const inFolder = name !== path;
    const stub = FIXED.get(path) ?? (inFolder ? STUBS.get(name) : undefined);
    if (stub) return serveBytes(request, stub);
    if (path === '/VPNManifest.xml' || (inFolder && name === 'VPNManifest.xml'))
      return serveBytes(request, text('text/xml; charset=utf-8', renderManifest(this.#fitting(request))));
    if (inFolder && name === 'binaries/update.txt')
      return serveBytes(request, text('text/xml', renderUpdateText(coreVersion(this.#fitting(request)))));

    const profileName = PROFILE_PATH.exec(path)?.[1];
    if (profileName === undefined && !inFolder) return empty(404);
    const { webvpn: token } = parseCookies(request.headers['cookie'] ?? '');
    const session = token === '' ? undefined : await this.#auth.lookup({ token });
    if (!session?.live) return UNAUTHORIZED;
    return profileName === undefined
      ? this.#package(request, name)
      : this.#profile(request, profileName, session.profileFile);
  }

  #profile(request: InsideRequest, name: string, profileFile: string): InsideResponse {
    const profile = this.#catalog().profiles.get(profileFile);
    if (!profile || profile.name !== name) return empty(404);
    const { bytes, sha1 } = profile;
    return serveBytes(request, { type: 'text/xml; charset=utf-8', body: bytes, tag: sha1 });
  }

  async #package(request: InsideRequest, name: string): Promise<InsideResponse> {
    const found = this.#catalog().packages.find(({ uri }) => uri === name);
    const file = found && (await openPackage(found));
    if (!found || !file) return empty(404);
    return serveFile(request, {
      type: 'application/octet-stream',
      file,
      size: found.size,
      tag: found.sha256,
    });
  }

  /** A folder that is asked without saying for which system offers nothing. */
  #fitting(request: InsideRequest) {
    return packagesFor(this.#catalog().packages, identifyClient(request.headers).platform);
  }
}

function text(type: string, content: string) {
  return { type, body: UTF8.encode(content), tag: '' };
}

const UTF8 = new TextEncoder();
const PACKAGE_FOLDER = /^\/(?:CACHE\/stc\/)?1\//;
/** Some clients add the port of the gateway to the path. */
const PROFILE_PATH = /^(?:\/CACHE\/stc)?\/profiles\/([A-Za-z0-9._-]{1,255})(?::\d{1,5})?$/;

// docs/protocol.md §8.3
const NOTHING_OFFERED = text('text/xml; charset=utf-8', renderManifest([]));
const PROBE = text('text/html', '<html></html>\n');
const FIXED = new Map([
  ['/+CSCOT+/translation-table', NOTHING_OFFERED],
  ['/+CSCOT+/oem-customization', NOTHING_OFFERED],
]);
/** Below the package folder. */
const STUBS = new Map([
  ['index.html', PROBE],
  ['Linux', PROBE],
  ['Linux_64', PROBE],
  ['Windows', PROBE],
  ['Windows_ARM64', PROBE],
  ['Darwin_i386', PROBE],
  ['binaries/vpndownloader.sh', text('application/x-shellscript', '#!/bin/sh\n\nexit 0\n')],
]);
