import { createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import type { Settings, TlsSettings } from '@sallyport/cluster';
import type { HostCertificates, ListenerCertificates } from './listener.ts';

/** A certificate, key, CA or CRL that cannot be used. The message is one sentence that begins with the file's name. */
export class CertificateError extends Error {
  constructor(file: string, problem: string) {
    super(`${file}: ${problem}`);
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
  const firstFile = tls.certFiles[0] ?? 'server-cert';
  if (tls.certFiles.length === 0) throw new CertificateError('server-cert', 'no certificate is configured.');
  if (tls.certFiles.length !== tls.keyFiles.length) {
    throw new CertificateError(
      firstFile,
      `there are ${tls.certFiles.length} certificates and ${tls.keyFiles.length} keys; each certificate needs its key.`,
    );
  }
  const pairs: HostCertificates['pairs'] = [];
  for (const [index, certFile] of tls.certFiles.entries()) {
    pairs.push(await loadPair(certFile, tls.keyFiles[index] ?? ''));
  }
  const ca = tls.caFile === '' ? undefined : await loadAuthorities(tls.caFile);
  const crl = tls.crlFile === '' ? undefined : await loadRevocations(tls.crlFile);
  if (crl !== undefined && ca === undefined)
    throw new CertificateError(tls.crlFile, 'a CRL needs a ca-cert.');
  const host: HostCertificates = { pairs, ca, crl, minVersion: tls.minVersion, maxVersion: tls.maxVersion };
  attempt(firstFile, 'the TLS library does not accept it', () =>
    createSecureContext({
      cert: pairs.map((pair) => pair.cert),
      key: pairs.map((pair) => pair.key),
      ca,
      crl,
    }),
  );
  return host;
}

async function loadPair(certFile: string, keyFile: string): Promise<{ cert: Buffer; key: Buffer }> {
  const cert = await read(certFile);
  const key = await read(keyFile);
  const leaf = attempt(certFile, 'no PEM certificate in it', () => new X509Certificate(cert));
  const secret: KeyObject = attempt(keyFile, 'no PEM private key in it, or it is encrypted', () =>
    createPrivateKey(key),
  );
  if (!leaf.checkPrivateKey(secret))
    throw new CertificateError(keyFile, `this is not the key of ${certFile}.`);
  return { cert, key };
}

async function loadAuthorities(file: string): Promise<Buffer> {
  const ca = await read(file);
  const blocks = ca.toString('latin1').match(PEM_CERTIFICATE) ?? [];
  if (blocks.length === 0) throw new CertificateError(file, 'no PEM certificate in it.');
  for (const [index, block] of blocks.entries()) {
    attempt(file, `certificate ${index + 1} in it cannot be read`, () => new X509Certificate(block));
  }
  return ca;
}

/** PEM or DER. An expired CRL is not refused here: then every client certificate fails, and says so. */
async function loadRevocations(file: string): Promise<Buffer> {
  const bytes = await read(file);
  const crl = bytes.includes('-----BEGIN') ? bytes : derToPem(bytes);
  attempt(file, 'no certificate revocation list in it', () => createSecureContext({ crl }));
  return crl;
}

function derToPem(der: Buffer): Buffer {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return Buffer.from(`-----BEGIN X509 CRL-----\n${lines.join('\n')}\n-----END X509 CRL-----\n`);
}

async function read(file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
    throw new CertificateError(file, `cannot be read (${code}).`);
  }
}

function attempt<T>(file: string, problem: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    const detail = error instanceof Error ? error.message : 'unknown error';
    throw new CertificateError(file, `${problem} (${detail}).`);
  }
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
