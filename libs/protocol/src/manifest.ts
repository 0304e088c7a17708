import { escapeXml } from './xml.ts';

/** Manifests of phase 4 (docs/protocol.md §8): what the downloader offers, as XML. */

export interface PackageFile {
  /** e.g. `VPNCore`, `DART`. */
  id: string;
  /** With dots. */
  version: string;
  isCore: boolean;
  /** `msi`, `dmg`, `sh` … */
  type: string;
  /** e.g. `win:6.1.7601`. */
  os: string;
  /** '' for the core. */
  module: string;
  /** Relative to the folder of the manifest. */
  uri: string;
  displayName: string;
}

/** VPNManifest.xml, a whole document. Without packages it is the "no update" answer. */
export function renderManifest(packages: readonly PackageFile[]): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n${packagesXml(packages)}\n`;
}

/** The same, to stand inside another document (`vpn-core-manifest`). */
export function packagesXml(packages: readonly PackageFile[]): string {
  return `<vpn rev="1.0">${packages.map(fileXml).join('')}</vpn>`;
}

/** For `vpn-profile-manifest`; empty without a profile. @param sha1 upper-case hex over the exact bytes served. */
export function profileManifestXml(uri: string, sha1: string): string {
  const file =
    uri === ''
      ? ''
      : '<file type="profile" service-type="user">' +
        `<uri>${escapeXml(uri)}</uri><hash type="sha1">${escapeXml(sha1)}</hash></file>`;
  return `<vpn rev="1.0">${file}</vpn>`;
}

/** update.txt: version of the core with commas. @param version with dots; '' = nothing is offered. */
export function renderUpdateText(version: string): string {
  return `${packageVersion(version)}\n`;
}

/** `4.10.07061` as clients compare it: `4,10,07061`; '' = older than anything, so no update. */
export function packageVersion(version: string): string {
  return version === '' ? NO_UPDATE : version.replaceAll('.', ',');
}

function fileXml(file: PackageFile): string {
  const module = file.module === '' ? '' : ` module="${escapeXml(file.module)}"`;
  return (
    `<file version="${escapeXml(file.version)}" id="${escapeXml(file.id)}" is_core="${file.isCore ? 'yes' : 'no'}"` +
    ` type="${escapeXml(file.type)}" action="install"${module} os="${escapeXml(file.os)}">` +
    `<uri>${escapeXml(file.uri)}</uri><display-name>${escapeXml(file.displayName)}</display-name></file>`
  );
}

export const NO_UPDATE = '0,0,0000';
