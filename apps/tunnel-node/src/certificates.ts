import { readTlsFiles, type Settings, type TlsSettings } from '@sallyport/cluster';
import type { HostCertificates, ListenerCertificates } from './listener.ts';

/** Certificates, keys, CAs or CRLs that cannot be used. The message is one sentence that names the first bad file. */
export class CertificateError extends Error {
  constructor(problem: string) {
    super(`${problem}.`);
    this.name = 'CertificateError';
  }
}

/**
 * Reads and checks everything the listener needs; nothing is taken over when one file is bad.
 * @throws CertificateError
 */
export async function loadCertificates(
  settings: Pick<Settings, 'tls' | 'vhosts'>,
): Promise<ListenerCertificates> {
  const hosts = new Map<string, HostCertificates>();
  hosts.set('', await loadHost(settings.tls));
  for (const [name, vhost] of Object.entries(settings.vhosts))
    hosts.set(name.toLowerCase(), await loadHost(vhost.tls));
  return { hosts };
}

async function loadHost(tls: TlsSettings): Promise<HostCertificates> {
  const { certFiles, keyFiles, caFile, crlFile, minVersion, maxVersion } = tls;
  if (certFiles.length === 0) throw new CertificateError('no server-cert is configured');
  if (certFiles.length !== keyFiles.length) {
    const counts = `server-cert names ${certFiles.length} files and server-key ${keyFiles.length}`;
    throw new CertificateError(`${counts}; each certificate needs its key`);
  }
  if (crlFile !== '' && caFile === '') throw new CertificateError(`crl ${crlFile} needs ca-cert`);
  const read = await readTlsFiles(tls);
  if ('problems' in read) throw new CertificateError(read.problems[0]?.message ?? 'a file cannot be used');
  return { ...read.files, minVersion, maxVersion };
}
