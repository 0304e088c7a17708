import { createHash, randomBytes, randomInt, webcrypto, X509Certificate } from 'node:crypto';
import { access, mkdir, readFile, writeFile } from 'node:fs/promises';
import { hostname, networkInterfaces } from 'node:os';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { StartError } from '@sallyport/chassis';
import type { Settings } from '@sallyport/cluster';

/** What the state folder holds (ARCHITECTURE decision 9). */
export interface StateFolder {
  path: string;
  config: string;
  users: string;
  cert: string;
  key: string;
  journal: string;
  socket: string;
}

export function stateFolder(path: string): StateFolder {
  return {
    path,
    config: join(path, 'sallyport.yaml'),
    users: join(path, 'users'),
    cert: join(path, 'tls', 'cert.pem'),
    key: join(path, 'tls', 'key.pem'),
    journal: join(path, 'journal'),
    socket: join(path, 'sallyport.sock'),
  };
}

/** What a first start makes: what is missing and what the configuration, if there is one, asks for. */
export interface FirstRunPlan {
  config: boolean;
  certificate: boolean;
  users: boolean;
}

/**
 * Looks, makes nothing.
 * @param file the configuration that the start will use; only that of the state folder is made.
 * @param settings what it says, or what the one to be made will say.
 * @throws StartError when half of the key pair is there: it is the operator's, and nothing is written over it.
 */
export async function planFirstRun(
  state: StateFolder,
  file: string,
  settings: Pick<Settings, 'tls' | 'usersFile'>,
): Promise<FirstRunPlan> {
  const { certFiles, keyFiles } = settings.tls;
  const isPairNamed = isDeepStrictEqual([certFiles, keyFiles], [[state.cert], [state.key]]);
  const [hasCert, hasKey] = [await exists(state.cert), await exists(state.key)];
  if (isPairNamed && hasCert !== hasKey) {
    const [here, missing] = hasCert ? [state.cert, state.key] : [state.key, state.cert];
    throw new StartError(
      `${here} is there and ${missing} is missing: put the missing one there, or move the other one away and a new pair is made.`,
    );
  }
  return {
    config: file === state.config && !(await exists(file)),
    certificate: isPairNamed && !hasCert,
    users: settings.usersFile === state.users && !(await exists(state.users)),
  };
}

/** Made by a first start; the password is shown then or never. */
export interface DemoUser {
  name: string;
  password: string;
}

/**
 * First start: the state folder with a self-signed certificate, one demo user with a random password and a commented
 * sallyport.yaml, as far as they are planned.
 * @param example text of the configuration to write.
 */
export async function firstRun(
  state: StateFolder,
  plan: FirstRunPlan,
  example: string,
  addUser: (usersFile: string, name: string, password: string, group: string) => Promise<void>,
): Promise<DemoUser | undefined> {
  await mkdir(join(state.path, 'tls'), { recursive: true, mode: 0o700 });
  if (plan.certificate) await selfSigned(state);
  if (plan.config) await writeFile(state.config, example, { mode: 0o600, flag: 'wx' });
  if (!plan.users) return undefined;
  const demoUser = { name: DEMO_USER, password: readablePassword() };
  await addUser(state.users, demoUser.name, demoUser.password, 'staff');
  return demoUser;
}

/** `pin-sha256:BASE64` of the certificate's public key: what `openconnect --servercert` takes. */
export async function certificatePin(certFile: string): Promise<string> {
  const spki = new X509Certificate(await readFile(certFile)).publicKey.export({
    type: 'spki',
    format: 'der',
  });
  return `pin-sha256:${createHash('sha256').update(spki).digest('base64')}`;
}

/**
 * Addresses of this machine that a client could reach, IPv4 first; loopback and link-local are left out.
 * @param device the gateway's own TUN device, left out too.
 */
export function reachableAddresses(device = ''): string[] {
  const all = Object.entries(networkInterfaces())
    .filter(([name]) => name !== device)
    .flatMap(([, list]) => list ?? [])
    .filter(
      (entry) =>
        !entry.internal && !entry.address.startsWith('fe80:') && !entry.address.startsWith('169.254.'),
    );
  return [
    ...all.filter((entry) => entry.family === 'IPv4'),
    ...all.filter((entry) => entry.family === 'IPv6'),
  ].map((entry) => entry.address);
}

async function selfSigned(state: StateFolder): Promise<void> {
  await import('reflect-metadata'); // @peculiar/x509 needs it loaded before
  const x509 = await import('@peculiar/x509');
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const name = hostname();
  const names = [...new Set([name, 'localhost', ...reachableAddresses(), '127.0.0.1', '::1'])];
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: randomBytes(16)
        .toString('hex')
        .replace(/^[89a-f]/, '7'),
      name: [{ CN: [name] }],
      notBefore: new Date(Date.now() - CLOCK_SKEW_MS),
      notAfter: new Date(Date.now() + CERTIFICATE_LIFETIME_MS),
      signingAlgorithm: algorithm,
      keys,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
        new x509.SubjectAlternativeNameExtension(
          names.map((value) => ({ type: isIP(value) ? ('ip' as const) : ('dns' as const), value })),
        ),
      ],
    },
    webcrypto,
  );
  const key = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
  await writeFile(
    state.key,
    `-----BEGIN PRIVATE KEY-----\n${key.replace(/.{64}/g, '$&\n').trimEnd()}\n-----END PRIVATE KEY-----\n`,
    { mode: 0o600, flag: 'wx' },
  );
  await writeFile(state.cert, certificate.toString('pem') + '\n', { flag: 'wx' });
}

/** Easy to read from a screen and type on another machine: no 0/o, 1/l; about 82 bits. */
function readablePassword(): string {
  const letters = 'abcdefghijkmnpqrstuvwxyz23456789';
  return Array.from({ length: 4 }, () =>
    Array.from({ length: 4 }, () => letters.charAt(randomInt(letters.length))).join(''),
  ).join('-');
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

export const DEMO_USER = 'demo';
const CLOCK_SKEW_MS = 24 * 3600 * 1000;
/** What browsers and Apple's clients accept at most for a server certificate. */
const CERTIFICATE_LIFETIME_MS = 397 * 24 * 3600 * 1000;
