/**
 * Who the services of a cluster are to each other: each has a certificate of the cluster's own CA, and both sides of every
 * connection show theirs. The names in it say what it may be:
 *
 *   ROLE.sallyport.internal         e.g. auth.sallyport.internal
 *   NAME.ROLE.sallyport.internal    the same with the name of the process, for people
 *
 * Certificates of another CA that carry no such name are good for every role, and a server is then known by its host name.
 */
import { createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { checkServerIdentity, createSecureContext, type PeerCertificate, type SecureContext } from 'node:tls';
import type { Log } from '@sallyport/chassis';

export const PEER_ROLES = ['auth', 'portal', 'downloader', 'tunnel-node'] as const;
export type PeerRole = (typeof PEER_ROLES)[number];
export const PEER_DOMAIN = 'sallyport.internal';

/** Name of a role in certificates. */
export function roleName(role: PeerRole): string {
  return `${role}.${PEER_DOMAIN}`;
}

export interface PeerFiles {
  /** PEM, absolute: CA certificates (several during a change of CA), certificate with chain, and key. */
  ca: string;
  cert: string;
  key: string;
}

export interface PeerMaterial {
  ca: Buffer;
  cert: Buffer;
  key: Buffer;
  /** Of the certificate, ms since 1970. */
  notAfter: number;
}

/**
 * Certificate, key and CA of this process, read again when their files change: connections made from then on use the new
 * ones. Files that do not fit together (one is replaced already, the other is not) are not taken over.
 * It is a CertificateProvider of grpc-js, too.
 */
export class PeerCertificates {
  readonly #files: PeerFiles;
  readonly #log: Log;
  readonly #caListeners = new Set<(update: { caCertificate: Buffer }) => void>();
  readonly #identityListeners = new Set<(update: { certificate: Buffer; privateKey: Buffer }) => void>();
  readonly #timer: NodeJS.Timeout;
  #material: PeerMaterial;
  #context: SecureContext;
  #problem = '';

  private constructor(files: PeerFiles, material: PeerMaterial, log: Log, everyMs: number) {
    this.#files = files;
    this.#log = log;
    this.#material = material;
    this.#context = createSecureContext(material);
    this.#timer = setInterval(() => void this.reload(), everyMs);
    this.#timer.unref();
  }

  /** @throws Error with one sentence that begins with the file's name. */
  static async open(files: PeerFiles, log: Log, everyMs = RELOAD_EVERY_MS): Promise<PeerCertificates> {
    return new PeerCertificates(files, await loadPeerMaterial(files), log, everyMs);
  }

  get current(): PeerMaterial {
    return this.#material;
  }

  /** Of the present certificate, for connections of `node:tls`. */
  get context(): SecureContext {
    return this.#context;
  }

  /** Looks at the files now. @returns whether there are new ones in use. */
  async reload(): Promise<boolean> {
    try {
      const material = await loadPeerMaterial(this.#files);
      this.#problem = '';
      if (sameMaterial(material, this.#material)) return false;
      this.#context = createSecureContext(material);
      this.#material = material;
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      if (problem !== this.#problem)
        this.#log.warn({ problem }, 'the new certificate of this service is not used');
      this.#problem = problem;
      return false;
    }
    for (const tell of this.#caListeners) tell(this.#ca());
    for (const tell of this.#identityListeners) tell(this.#identity());
    this.#log.info(
      { notAfter: new Date(this.#material.notAfter).toISOString() },
      'certificate of this service changed',
    );
    return true;
  }

  addCaCertificateListener(tell: (update: { caCertificate: Buffer }) => void): void {
    this.#caListeners.add(tell);
    // Afterwards, because grpc-js is not ready to hear it while it adds.
    queueMicrotask(() => this.#caListeners.has(tell) && tell(this.#ca()));
  }

  removeCaCertificateListener(tell: (update: { caCertificate: Buffer }) => void): void {
    this.#caListeners.delete(tell);
  }

  addIdentityCertificateListener(tell: (update: { certificate: Buffer; privateKey: Buffer }) => void): void {
    this.#identityListeners.add(tell);
    queueMicrotask(() => this.#identityListeners.has(tell) && tell(this.#identity()));
  }

  removeIdentityCertificateListener(
    tell: (update: { certificate: Buffer; privateKey: Buffer }) => void,
  ): void {
    this.#identityListeners.delete(tell);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #ca(): { caCertificate: Buffer } {
    return { caCertificate: this.#material.ca };
  }

  #identity(): { certificate: Buffer; privateKey: Buffer } {
    return { certificate: this.#material.cert, privateKey: this.#material.key };
  }
}

/** Reads the three files and sees that they fit together. @throws Error with one sentence. */
export async function loadPeerMaterial(files: PeerFiles): Promise<PeerMaterial> {
  const [ca, cert, key] = await Promise.all([
    readPem(files.ca, 'CERTIFICATE'),
    readPem(files.cert, 'CERTIFICATE'),
    readPem(files.key, 'PRIVATE KEY'),
  ]);
  const leaf = attempt(files.cert, 'holds no certificate that can be read', () => new X509Certificate(cert));
  const privateKey: KeyObject = attempt(
    files.key,
    'holds no private key that can be read (encrypted keys cannot)',
    () => createPrivateKey(key),
  );
  if (!leaf.checkPrivateKey(privateKey))
    throw new Error(`${files.key} is not the key of the certificate in ${files.cert}.`);
  attempt(files.ca, 'holds no CA certificate that can be read', () => createSecureContext({ ca }));
  return { ca, cert, key, notAfter: Date.parse(leaf.validTo) };
}

/** For a client: is this the certificate of a service with that role? As `checkServerIdentity` of `node:tls`. */
export function checkRole(role: PeerRole): (host: string, certificate: PeerCertificate) => Error | undefined {
  return (host, certificate) => {
    const roles = rolesOf(certificate);
    if (roles.length === 0) return checkServerIdentity(host, certificate);
    if (roles.includes(role)) return undefined;
    return new Error(`The certificate at ${host} is one of ${roles.join(' and ')}, and ${role} is expected.`);
  };
}

/** For a server, after its CA was checked: may a peer with this certificate come as one of these roles? */
export function mayCome(certificate: PeerCertificate, roles: readonly PeerRole[]): boolean {
  const given = rolesOf(certificate);
  return given.length === 0 || given.some((role) => roles.some((known) => known === role));
}

/** Roles named by a certificate, those that we do not know included. */
export function rolesOf({ subjectaltname = '' }: Pick<PeerCertificate, 'subjectaltname'>): string[] {
  const roles = subjectaltname
    .split(', ')
    .filter((name) => name.startsWith('DNS:') && name.endsWith(`.${PEER_DOMAIN}`))
    .map(
      (name) =>
        name
          .slice('DNS:'.length, -PEER_DOMAIN.length - 1)
          .split('.')
          .at(-1) ?? '',
    );
  return [...new Set(roles)];
}

async function readPem(file: string, label: string): Promise<Buffer> {
  const bytes = await readFile(file).catch((error: unknown) => {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new Error(`${file} cannot be read (${code}).`, { cause: error });
  });
  if (!bytes.includes(`${label}-----`)) throw new Error(`${file} holds no PEM ${label.toLowerCase()}.`);
  return bytes;
}

function attempt<T>(file: string, problem: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new Error(`${file} ${problem}.`, { cause: error });
  }
}

function sameMaterial(a: PeerMaterial, b: PeerMaterial): boolean {
  return a.ca.equals(b.ca) && a.cert.equals(b.cert) && a.key.equals(b.key);
}

/** A renewed certificate is in use after this time at the latest. */
export const RELOAD_EVERY_MS = 10_000;
