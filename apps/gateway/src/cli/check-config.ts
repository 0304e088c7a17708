import { CatalogError, loadCatalog } from '@sallyport/downloader';
import { checkUsers, UsersFileError } from '@sallyport/auth';
import { certificateWarnings, readSettings } from '@sallyport/cluster';

/**
 * Everything that a start or a reload would refuse in a configuration: the file, the files that it names, the client
 * profiles and packages, the users. @returns `FILE:LINE: message`, all of them.
 */
export async function configurationErrors(file: string): Promise<string[]> {
  const read = await readSettings(file);
  if ('errors' in read) return read.errors;
  const errors: string[] = [];
  for (const check of [loadCatalog, checkUsers]) {
    try {
      await check(read.settings);
    } catch (error) {
      if (!(error instanceof CatalogError || error instanceof UsersFileError)) throw error;
      errors.push(error.message);
    }
  }
  return errors;
}

/** What a start takes and clients will not like. Nothing of a configuration that has errors. */
export async function configurationWarnings(file: string, now: number): Promise<string[]> {
  const read = await readSettings(file);
  return 'errors' in read ? [] : certificateWarnings(read.settings, now);
}
