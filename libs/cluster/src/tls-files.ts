/** The one judge of certificates, keys, CAs and revocation lists: for check-config and for the listener alike. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import type { Settings, TlsSettings } from './settings.ts';

export interface TlsFiles {
  /** PEM chain and key, in the order of `server-cert`. */
  pairs: { cert: Buffer; key: Buffer }[];
  /** PEM; undefined = none is configured. */
  ca: Buffer | undefined;
  crl: Buffer | undefined;
}

export interface TlsFileProblem {
  key: 'server-cert' | 'server-key' | 'ca-cert' | 'crl';
  /** `KEY FILE …` with what is wrong, without the end of the sentence. */
  message: string;
}

/** Reads and checks all of them. A certificate without a key in the settings is left out: counts are no file's fault. */
export async function readTlsFiles(
  tls: TlsSettings,
): Promise<{ files: TlsFiles } | { problems: TlsFileProblem[] }> {
  const reader = new TlsFileReader();
  const pairs: TlsFiles['pairs'] = [];
  for (const [index, certFile] of tls.certFiles.entries()) {
    const keyFile = tls.keyFiles[index];
    const pair = keyFile === undefined ? undefined : await reader.pair(certFile, keyFile);
    if (pair) pairs.push(pair);
  }
  const ca = tls.caFile === '' ? undefined : await reader.authorities(tls.caFile);
  const crl = tls.crlFile === '' ? undefined : await reader.revocations(tls.crlFile);
  const cert = pairs.map((pair) => pair.cert);
  const key = pairs.map((pair) => pair.key);
  if (reader.problems.length === 0) {
    const together = 'is not accepted by the TLS library, with its key and the other files';
    reader.attempt('server-cert', tls.certFiles[0] ?? '', together, () =>
      createSecureContext({ cert, key, ca, crl }),
    );
  }
  return reader.problems.length > 0 ? { problems: reader.problems } : { files: { pairs, ca, crl } };
}

/**
 * Sentences about server certificates that load and that clients will not like, or not for long.
 * @param now ms since 1970.
 */
export async function certificateWarnings(
  { tls, vhosts }: Pick<Settings, 'tls' | 'vhosts'>,
  now: number,
): Promise<string[]> {
  const all = [tls, ...Object.values(vhosts).map((vhost) => vhost.tls)];
  const warnings: string[] = [];
  for (const file of new Set(all.flatMap(({ certFiles }) => certFiles))) {
    const pem = await readNamed(file);
    if (typeof pem === 'string') continue;
    const leaf = new X509Certificate(pem);
    const [begins, ends] = [Date.parse(leaf.validFrom), Date.parse(leaf.validTo)];
    const say = (text: string) => warnings.push(`server-cert ${file} ${text}`);
    if (ends <= now) say(`has expired (${leaf.validTo}): clients refuse it`);
    else if (begins > now) say(`is not valid before ${leaf.validFrom}: clients refuse it`);
    else if (ends - now < EXPIRY_WARNING_MS) say(`expires soon (${leaf.validTo}): renew it`);
    if (leaf.ca) say('begins with the certificate of a CA: the one of the gateway must come first');
  }
  return warnings;
}

class TlsFileReader {
  readonly problems: TlsFileProblem[] = [];

  async pair(certFile: string, keyFile: string): Promise<{ cert: Buffer; key: Buffer } | undefined> {
    const cert = await this.#read('server-cert', certFile);
    const key = await this.#read('server-key', keyFile);
    const leaf =
      cert &&
      this.attempt('server-cert', certFile, 'holds no PEM certificate', () => new X509Certificate(cert));
    const secret =
      key &&
      this.attempt('server-key', keyFile, 'holds no PEM private key, or it is encrypted', () =>
        createPrivateKey(key),
      );
    if (!cert || !key || !leaf || !secret) return undefined;
    if (leaf.checkPrivateKey(secret)) return { cert, key };
    this.#report('server-key', keyFile, `is not the key of server-cert ${certFile}`);
    return undefined;
  }

  async authorities(file: string): Promise<Buffer | undefined> {
    const ca = await this.#read('ca-cert', file);
    const blocks = ca?.toString('latin1').match(PEM_CERTIFICATE) ?? [];
    if (ca && blocks.length === 0) this.#report('ca-cert', file, 'holds no PEM certificate');
    for (const [index, block] of blocks.entries()) {
      const problem = `holds a certificate that cannot be read, number ${index + 1}`;
      this.attempt('ca-cert', file, problem, () => new X509Certificate(block));
    }
    return ca;
  }

  /** PEM or DER. An expired CRL is not refused here: then every client certificate fails, and says so. */
  async revocations(file: string): Promise<Buffer | undefined> {
    const bytes = await this.#read('crl', file);
    if (!bytes) return undefined;
    const crl = bytes.includes('-----BEGIN') ? bytes : derToPem(bytes);
    this.attempt('crl', file, 'holds no certificate revocation list', () => createSecureContext({ crl }));
    return crl;
  }

  attempt<T>(key: TlsFileProblem['key'], file: string, problem: string, work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      this.#report(key, file, `${problem} (${error instanceof Error ? error.message : 'unknown error'})`);
      return undefined;
    }
  }

  async #read(key: TlsFileProblem['key'], file: string): Promise<Buffer | undefined> {
    const read = await readNamed(file);
    if (typeof read !== 'string') return read;
    this.#report(key, file, read);
    return undefined;
  }

  #report(key: TlsFileProblem['key'], file: string, problem: string): void {
    this.problems.push({ key, message: `${key} ${file} ${problem}` });
  }
}

/** @returns the bytes, or why there are none: `FILE …`. */
export async function readNamed(file: string): Promise<Buffer | string> {
  try {
    return await readFile(file);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : '';
    return code === 'ENOENT' ? 'does not exist' : code === 'EACCES' ? 'may not be read' : 'cannot be read';
  }
}

function derToPem(der: Buffer): Buffer {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return Buffer.from(`-----BEGIN X509 CRL-----\n${lines.join('\n')}\n-----END X509 CRL-----\n`);
}

/** 14 days. */
export const EXPIRY_WARNING_MS = 14 * 24 * 3600 * 1000;
const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
