/**
 * The packages folder (docs/packages.md): client packages as their maker ships them, each unpacked in place or in a
 * folder of its own, with its VPNManifest.xml.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readdir, readFile, realpath, stat, type FileHandle } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { childOf, parseXml, XmlError, type PackageFile, type XmlElement } from '@sallyport/protocol';
import { CatalogError, codeOf } from './errors.ts';

export interface Package extends PackageFile {
  /** The file itself, links followed. */
  path: string;
  size: number;
  /** Lower-case hex. */
  sha256: string;
  /** Tells whether the file is still the one that was hashed. */
  stamp: string;
}

/** @throws CatalogError */
export async function loadPackages(folder: string): Promise<Package[]> {
  const packages: Package[] = [];
  for (const manifest of await manifestsIn(folder)) {
    for (const { file, line } of await readManifest(manifest)) {
      const known = packages.find(({ uri }) => uri === file.uri);
      const loaded = await loadPackage(folder, manifest, file, line);
      if (known && known.sha256 !== loaded.sha256)
        throw new CatalogError(manifest, line, `another package is called "${file.uri}" too`);
      packages.push(loaded);
      if (packages.length > MAX_PACKAGES)
        throw new CatalogError(manifest, line, 'there are too many packages');
    }
  }
  return packages;
}

/** The file of a package, opened; undefined = it is gone or was changed since the configuration was loaded. */
export async function openPackage(found: Package): Promise<FileHandle | undefined> {
  const file = await open(found.path).catch(() => undefined);
  if (!file) return undefined;
  const stats = await file.stat().catch(() => undefined);
  if (stats && stampOf(stats) === found.stamp) return file;
  await file.close();
  return undefined;
}

async function manifestsIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: unknown) => {
    throw new CatalogError(folder, 1, `packages cannot be read (${codeOf(error)})`, { cause: error });
  });
  const folders = entries.filter((entry) => entry.isDirectory()).map(({ name }) => join(folder, name));
  const candidates = [folder, ...folders.sort()].map((place) => join(place, MANIFEST_NAME));
  const present = await Promise.all(
    candidates.map((file) =>
      stat(file).then(
        (stats) => stats.isFile(),
        () => false,
      ),
    ),
  );
  return candidates.filter((_, index) => present[index]);
}

async function readManifest(manifest: string): Promise<{ file: PackageFile; line: number }[]> {
  let root: XmlElement;
  try {
    root = parseXml((await readFile(manifest, 'utf8')).replace(/^\ufeff/, ''));
  } catch (error) {
    const line = error instanceof XmlError ? error.line : 1;
    throw new CatalogError(manifest, line, error instanceof XmlError ? error.message : codeOf(error), {
      cause: error,
    });
  }
  if (root.name !== 'vpn') throw new CatalogError(manifest, root.line, `root is <${root.name}>, not <vpn>`);
  return root.children
    .filter(({ name }) => name === 'file')
    .map((element) => ({ file: packageOf(manifest, element), line: element.line }));
}

function packageOf(manifest: string, element: XmlElement): PackageFile {
  const attribute = (name: string): string => element.attributes.get(name)?.trim() ?? '';
  const required = (name: string, form: RegExp): string => {
    const value = attribute(name);
    if (!form.test(value)) throw new CatalogError(manifest, element.line, `<file> has no good ${name}`);
    return value;
  };
  const uri = childOf(element, 'uri')?.text.trim() ?? '';
  if (!URI.test(uri) || uri.split('/').some((segment) => segment.startsWith('.')))
    throw new CatalogError(manifest, element.line, '<uri> must be a plain path below the manifest');
  return {
    id: required('id', WORD),
    version: required('version', /^\d{1,5}(?:\.\d{1,6}){1,4}$/),
    isCore: attribute('is_core') === 'yes',
    type: required('type', WORD),
    os: required('os', /^[A-Za-z0-9_.:-]{1,64}$/),
    module: attribute('module') === '' ? '' : required('module', WORD),
    uri,
    displayName: childOf(element, 'display-name')?.text.trim() || attribute('id'),
  };
}

async function loadPackage(
  folder: string,
  manifest: string,
  file: PackageFile,
  line: number,
): Promise<Package> {
  const refuse = (reason: string, cause?: unknown) =>
    new CatalogError(manifest, line, `${file.uri}: ${reason}`, { cause });
  try {
    const path = await realpath(join(manifest, '..', file.uri));
    const inside = relative(await realpath(folder), path);
    if (inside.startsWith(`..${sep}`) || inside === '..') throw refuse('leads out of the packages folder');
    const stats = await stat(path);
    if (!stats.isFile()) throw refuse('is not a file');
    return { ...file, path, size: stats.size, sha256: await sha256Of(path), stamp: stampOf(stats) };
  } catch (error) {
    throw error instanceof CatalogError ? error : refuse(`cannot be read (${codeOf(error)})`, error);
  }
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Uint8Array);
  return hash.digest('hex');
}

function stampOf({ ino, size, mtimeMs }: { ino: number; size: number; mtimeMs: number }): string {
  return `${ino} ${size} ${mtimeMs}`;
}

const MANIFEST_NAME = 'VPNManifest.xml';
const WORD = /^[A-Za-z0-9_.-]{1,64}$/;
const URI = /^[A-Za-z0-9._-]{1,100}(?:\/[A-Za-z0-9._-]{1,100}){0,3}$/;
const MAX_PACKAGES = 500;
