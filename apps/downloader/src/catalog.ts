/**
 * What the downloader serves: read, checked and hashed once, when a configuration is loaded. Nothing that a client says
 * becomes the name of a file: requests are looked up in the tables made here (docs/protocol.md §8).
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { policyScopes, type Settings } from '@sallyport/cluster';
import { CatalogError, codeOf } from './errors.ts';
import { loadPackages, type Package } from './packages.ts';
import { checkProfile } from './profile.ts';

export interface Catalog {
  /** By the path in `profile-file`, absolute. */
  profiles: ReadonlyMap<string, ClientProfile>;
  packages: readonly Package[];
}

export interface ClientProfile {
  /** Last segment of its URL. */
  name: string;
  /** Exactly as in the file. */
  bytes: Uint8Array;
  /** Upper-case hex. */
  sha1: string;
}

/**
 * Reads the profiles of all scopes and the packages folder.
 * @throws CatalogError for the first file that is wrong.
 */
export async function loadCatalog(settings: Settings): Promise<Catalog> {
  const profiles = new Map<string, ClientProfile>();
  for (const file of profileFiles(settings)) profiles.set(file, await loadProfile(file));
  return { profiles, packages: settings.packagesDir === '' ? [] : await loadPackages(settings.packagesDir) };
}

function profileFiles(settings: Settings): Set<string> {
  const files = policyScopes(settings).map(({ policy }) => policy.profileFile ?? '');
  return new Set(files.filter((file) => file !== ''));
}

async function loadProfile(file: string): Promise<ClientProfile> {
  const bytes = await readFile(file).catch((error: unknown) => {
    throw new CatalogError(file, 1, `cannot be read (${codeOf(error)})`, { cause: error });
  });
  const problem = checkProfile(bytes);
  if (problem) throw new CatalogError(file, problem.line, problem.reason);
  const sha1 = createHash('sha1').update(bytes).digest('hex').toUpperCase();
  return { name: urlName(basename(file)), bytes, sha1 };
}

/** A name that no client and no proxy spells differently. */
function urlName(name: string): string {
  return name.replace(/[^A-Za-z0-9._-]/g, '_').replace(/^\.+/, '_');
}
