import { CatalogError, loadCatalog } from '@sallyport/downloader';
import { checkUsers, UsersFileError } from '@sallyport/auth';
import { certificateWarnings, readSettings, type Settings } from '@sallyport/cluster';

/**
 * Everything that a start or a reload would refuse in a configuration: the file, the files that it names, the client
 * profiles and packages, the users. @returns errors as `FILE:LINE: message`, all of them; as warnings what a start takes
 * and clients will not like.
 * @param now ms since 1970.
 */
export async function checkedConfiguration(
  file: string,
  now: number,
): Promise<{ errors: string[]; warnings: string[]; settings?: Settings }> {
  const read = await readSettings(file);
  if ('errors' in read) return { errors: read.errors, warnings: [] };
  const errors: string[] = [];
  for (const check of [loadCatalog, checkUsers]) {
    try {
      await check(read.settings);
    } catch (error) {
      if (!(error instanceof CatalogError || error instanceof UsersFileError)) throw error;
      errors.push(error.message);
    }
  }
  const warnings = await certificateWarnings(read.settings, now);
  return { errors, warnings, settings: read.settings };
}
