import { CatalogError, loadCatalog } from '@sallyport/downloader';
import { checkUsers, UsersFileError } from '@sallyport/auth';
import {
  certificateWarnings,
  isClusterText,
  PEER_ROLES,
  readSettings,
  uses,
  type PeerRole,
  type Settings,
} from '@sallyport/cluster';
import { readFile } from 'node:fs/promises';

/**
 * Everything that a start or a reload would refuse in a configuration: the file, the files that it names, the client
 * profiles and packages, the users; of a cluster only what the role uses. @returns errors as `FILE:LINE: message`, all of
 * them; as warnings what a start takes and clients will not like.
 * @param now ms since 1970.
 */
export async function checkedConfiguration(
  file: string,
  now: number,
  role?: PeerRole,
): Promise<{ errors: string[]; warnings: string[]; settings?: Settings }> {
  const text = role === undefined ? await readFile(file, 'utf8').catch(() => '') : '';
  if (isClusterText(text))
    return {
      errors: [
        `${file} is the configuration of a cluster: say of which role with --role ${PEER_ROLES.join(', ')}.`,
      ],
      warnings: [],
    };
  const read = await readSettings(file, role);
  if ('errors' in read) return { errors: read.errors, warnings: [] };
  const errors: string[] = [];
  const checks = [
    ...(uses(role, 'downloader') ? [loadCatalog] : []),
    ...(uses(role, 'auth') ? [checkUsers] : []),
  ];
  for (const check of checks) {
    try {
      await check(read.settings);
    } catch (error) {
      if (!(error instanceof CatalogError || error instanceof UsersFileError)) throw error;
      errors.push(error.message);
    }
  }
  const warnings = uses(role, 'tunnel-node') ? await certificateWarnings(read.settings, now) : [];
  return { errors, warnings, settings: read.settings };
}
