/**
 * The cluster's own small CA: files in one folder, which only its operator needs.
 *
 *   ca.pem, ca.key       the CA; the key stays where certificates are issued
 *   NAME.pem, NAME.key   one process: certificate and key, with the roles that it may have (peers.ts)
 *
 * ECDSA P-256 throughout. A service takes ca.pem and its own pair; it reads them again when they change, so renewing is
 * writing the files.
 */
import { createPrivateKey, createPublicKey, randomBytes, webcrypto, X509Certificate } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, unlink } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { PEER_DOMAIN, PEER_ROLES, roleName, rolesOf, type PeerRole } from './peers.ts';

/** What cannot be done, in one sentence for the operator. */
export class PkiError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'PkiError';
  }
}

export interface CertificateOrder {
  /** Of the process, e.g. `n1` or `auth-1`: letters, digits and `-`. */
  name: string;
  roles: readonly PeerRole[];
  /** Host names and addresses by which others reach it; roles are enough for our own services. */
  hosts: readonly string[];
  days: number;
}

export interface IssuedCertificate {
  /** '' = the CA. */
  name: string;
  roles: string[];
  /** Without those that say roles. */
  hosts: string[];
  notBefore: Date;
  notAfter: Date;
  /** Upper-case hex. */
  serial: string;
  file: string;
}

/** Makes the CA. @throws PkiError where there is one already: a second one would lock all its services out. */
export async function initAuthority(
  folder: string,
  { cluster, days = CA_DAYS }: { cluster: string; days?: number },
): Promise<IssuedCertificate> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const keys = await newKeys();
  const x509 = await library();
  const name = [{ CN: [`Sallyport cluster ${cluster}`] }];
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      ...validity(days),
      serialNumber: serial(),
      name,
      signingAlgorithm: ALGORITHM,
      keys,
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  const { ca, caKey } = files(folder);
  await write(caKey, await pemOfKey(keys.privateKey), 0o600, 'wx').catch((error: unknown) => {
    throw new PkiError(`There is a CA in ${folder} already: its services would not know a second one.`, {
      cause: error,
    });
  });
  await write(ca, `${certificate.toString('pem')}\n`, 0o644);
  return describe('', ca, certificate.toString('pem'));
}

/** A certificate and a new key, in place of the former of that name. @throws PkiError */
export async function issueCertificate(folder: string, order: CertificateOrder): Promise<IssuedCertificate> {
  if (!NAME.test(order.name) || order.name === 'ca')
    throw new PkiError(`${order.name} is no name: letters, digits and - only, and not ca.`);
  if (order.roles.length === 0) throw new PkiError(`A certificate needs a role: ${PEER_ROLES.join(', ')}.`);
  const authority = await readAuthority(folder);
  const x509 = await library();
  const keys = await newKeys();
  const names = [
    ...order.roles.flatMap((role) => [roleName(role), `${order.name}.${roleName(role)}`]),
    ...order.hosts,
  ];
  const span = validity(order.days);
  if (span.notAfter > authority.certificate.notAfter)
    throw new PkiError(
      `The CA ends ${day(authority.certificate.notAfter)}, before this certificate would: choose fewer --days, or make a new CA (docs/pki.md).`,
    );
  const certificate = await x509.X509CertificateGenerator.create(
    {
      ...span,
      serialNumber: serial(),
      subject: [{ CN: [order.name] }],
      issuer: authority.certificate.subjectName,
      publicKey: keys.publicKey,
      signingKey: authority.key,
      signingAlgorithm: ALGORITHM,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([
          x509.ExtendedKeyUsage.serverAuth,
          x509.ExtendedKeyUsage.clientAuth,
        ]),
        await x509.AuthorityKeyIdentifierExtension.create(authority.certificate, false, webcrypto),
        new x509.SubjectAlternativeNameExtension(
          [...new Set(names)].map((value) => ({ type: isIP(value) ? 'ip' : 'dns', value })),
        ),
      ],
    },
    webcrypto,
  );
  const { cert, key } = files(folder, order.name);
  // The key first: who reads between the two sees a pair that does not fit, keeps the old one and looks again.
  await write(key, await pemOfKey(keys.privateKey), 0o600);
  await write(cert, `${certificate.toString('pem')}\n`, 0o644);
  return describe(order.name, cert, certificate.toString('pem'));
}

/**
 * Issues anew what ends soon, with the names and the length of life that it has.
 * @param beforeDays those that end within this time; undefined = those that have lived two thirds of their time.
 * @returns what was renewed.
 */
export async function renewCertificates(
  folder: string,
  { beforeDays, only, now = Date.now() }: { beforeDays?: number; only?: string; now?: number } = {},
): Promise<IssuedCertificate[]> {
  const renewed: IssuedCertificate[] = [];
  for (const found of await listCertificates(folder)) {
    if (found.name === '' || (only !== undefined && found.name !== only)) continue;
    const life = found.notAfter.getTime() - found.notBefore.getTime() - CLOCK_SKEW_MS;
    const left = found.notAfter.getTime() - now;
    const due = beforeDays === undefined ? left < life / 3 : left < beforeDays * DAY_MS;
    if (!due && only === undefined) continue;
    const roles = PEER_ROLES.filter((role) => found.roles.includes(role));
    renewed.push(
      await issueCertificate(folder, {
        name: found.name,
        roles,
        hosts: found.hosts,
        days: Math.max(1, Math.round(life / DAY_MS)),
      }),
    );
  }
  if (only !== undefined && renewed.length === 0)
    throw new PkiError(`There is no certificate of ${only} in ${folder}.`);
  return renewed;
}

/** The CA first. @throws PkiError */
export async function listCertificates(folder: string): Promise<IssuedCertificate[]> {
  const { ca } = files(folder);
  const names = await readdir(folder).catch((error: unknown) => {
    throw new PkiError(`${folder} cannot be read: make a CA with sallyport pki init.`, { cause: error });
  });
  const found = [describe('', ca, await readText(ca))];
  for (const file of names.filter((name) => name.endsWith('.pem') && name !== CA_FILE).sort()) {
    const path = join(folder, file);
    found.push(describe(file.slice(0, -'.pem'.length), path, await readText(path)));
  }
  return found;
}

function describe(name: string, file: string, pem: string): IssuedCertificate {
  let leaf: X509Certificate;
  try {
    leaf = new X509Certificate(pem);
  } catch (error) {
    throw new PkiError(`${file} holds no certificate that can be read.`, { cause: error });
  }
  const subjectaltname = leaf.subjectAltName ?? '';
  const hosts = subjectaltname
    .split(', ')
    .filter((text) => text !== '')
    .map((text) => text.replace(/^(?:DNS|IP Address):/, ''))
    .filter((host) => !host.endsWith(`.${PEER_DOMAIN}`));
  return {
    name,
    roles: rolesOf({ subjectaltname }),
    hosts,
    notBefore: new Date(leaf.validFrom),
    notAfter: new Date(leaf.validTo),
    serial: leaf.serialNumber,
    file,
  };
}

async function readAuthority(folder: string) {
  const { ca, caKey } = files(folder);
  const x509 = await library();
  const pem = await readText(ca);
  const privateKey = createPrivateKey(await readText(caKey));
  const spki = createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
  if (!new X509Certificate(pem).publicKey.export({ type: 'spki', format: 'der' }).equals(spki))
    throw new PkiError(`${caKey} is not the key of ${ca}.`);
  const pkcs8 = privateKey.export({ type: 'pkcs8', format: 'der' });
  const key = await webcrypto.subtle.importKey('pkcs8', pkcs8, ALGORITHM, false, ['sign']);
  return { certificate: new x509.X509Certificate(pem), key };
}

/** Whole or not at all, and never readable by others in between. */
async function write(path: string, text: string, mode: number, flag?: 'wx'): Promise<void> {
  if (flag) {
    const file = await open(path, flag, mode);
    await file.writeFile(text).finally(() => file.close());
    return;
  }
  const temporary = `${path}.new`;
  const file = await open(temporary, 'w', mode);
  try {
    await file.chmod(mode);
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path).catch(async (error: unknown) => {
    await unlink(temporary).catch(() => undefined);
    throw error;
  });
}

async function readText(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((error: unknown) => {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new PkiError(`${path} cannot be read (${code}): is this the folder of sallyport pki init?`, {
      cause: error,
    });
  });
}

function files(folder: string, name = '') {
  return {
    ca: join(folder, CA_FILE),
    caKey: join(folder, 'ca.key'),
    cert: join(folder, `${name}.pem`),
    key: join(folder, `${name}.key`),
  };
}

/** Loaded when it is needed; it wants reflect-metadata before it. */
async function library() {
  await import('reflect-metadata');
  return import('@peculiar/x509');
}

function newKeys() {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
}

async function pemOfKey(key: webcrypto.CryptoKey): Promise<string> {
  const text = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key)).toString('base64');
  return `-----BEGIN PRIVATE KEY-----\n${text.replace(/.{64}/g, '$&\n').trimEnd()}\n-----END PRIVATE KEY-----\n`;
}

/** Positive and of one length. */
function serial(): string {
  return randomBytes(16)
    .toString('hex')
    .replace(/^[089a-f]/, '7');
}

function validity(days: number): { notBefore: Date; notAfter: Date } {
  return {
    notBefore: new Date(Date.now() - CLOCK_SKEW_MS),
    notAfter: new Date(Date.now() + days * DAY_MS),
  };
}

function day(date: Date): string {
  return date.toISOString().slice(0, 10);
}

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/;
const CA_FILE = 'ca.pem';
const DAY_MS = 24 * 3600 * 1000;
/** A service whose clock is behind takes a new certificate, too. */
const CLOCK_SKEW_MS = 3600 * 1000;
export const CA_DAYS = 3650;
export const CERTIFICATE_DAYS = 90;
