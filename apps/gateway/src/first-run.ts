import { createHash, randomBytes, randomInt, webcrypto, X509Certificate } from 'node:crypto';
import { access, chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { hostname, networkInterfaces } from 'node:os';
import { isIP } from 'node:net';
import { join } from 'node:path';

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

/** Made once, never overwritten: an operator's own files stay. */
export interface FirstRun {
  /** Shown once; undefined when the users file was there already. */
  demoUser: { name: string; password: string } | undefined;
}

/**
 * First start: the state folder with a self-signed certificate, one demo user with a random password and a commented
 * sallyport.yaml. Each is made only when it is missing.
 * @param example text of the configuration to write.
 */
export async function firstRun(
  state: StateFolder,
  example: string,
  addUser: (usersFile: string, name: string, password: string, group: string) => Promise<void>,
): Promise<FirstRun> {
  await mkdir(join(state.path, 'tls'), { recursive: true, mode: 0o700 });
  if (!(await exists(state.cert)) || !(await exists(state.key))) await selfSigned(state);
  let demoUser: FirstRun['demoUser'];
  if (!(await exists(state.users))) {
    demoUser = { name: 'demo', password: readablePassword() };
    await addUser(state.users, demoUser.name, demoUser.password, 'staff');
  }
  if (!(await exists(state.config))) await writeFile(state.config, example, { mode: 0o600 });
  return { demoUser };
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
    {
      mode: 0o600,
    },
  );
  await chmod(state.key, 0o600);
  await writeFile(state.cert, certificate.toString('pem') + '\n');
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

const CLOCK_SKEW_MS = 24 * 3600 * 1000;
/** What browsers and Apple's clients accept at most for a server certificate. */
const CERTIFICATE_LIFETIME_MS = 397 * 24 * 3600 * 1000;
