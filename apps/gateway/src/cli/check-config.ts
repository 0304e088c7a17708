import { CatalogError, loadCatalog } from '@sallyport/downloader';
import { checkUsers, UsersFileError } from '@sallyport/auth';
import { readSettings, type Settings } from '@sallyport/cluster';

/**
 * Everything that a start or a reload would refuse in a configuration: the file, the files that it names, the client
 * profiles and packages, the users. @returns errors as `FILE:LINE: message`, all of them.
 */
export async function checkedConfiguration(file: string): Promise<{ errors: string[]; settings?: Settings }> {
  const read = await readSettings(file);
  if ('errors' in read) return { errors: read.errors };
  const errors: string[] = [];
  for (const check of [loadCatalog, checkUsers]) {
    try {
      await check(read.settings);
    } catch (error) {
      if (!(error instanceof CatalogError || error instanceof UsersFileError)) throw error;
      errors.push(error.message);
    }
  }
  return { errors, settings: read.settings };
}
