/**
 * What each role of a cluster needs of its configuration, and what only some of them hold: a process is given no secret that
 * it never uses. The only user of Kafka is auth; of Redis, auth and the tunnel nodes.
 */
import { X509Certificate } from 'node:crypto';
import { loadPeerMaterial, rolesOf, type PeerFiles, type PeerMaterial, type PeerRole } from './peers.ts';
import type { ListenAddresses, ServiceAddresses } from './settings-cluster.ts';

type Report = (message: string, ...path: string[]) => void;
type ListenName = keyof ListenAddresses;

/** The part of a configuration, as it is written, that says where services are. */
export interface WrittenPlaces {
  redis?: unknown;
  pki?: unknown;
  services?: Partial<ServiceAddresses>;
  listen?: Partial<Record<ListenName, string>>;
  node?: { name?: string; address?: string };
}

/** Does this process use it? undefined = one process is all roles. */
export function uses(role: PeerRole | undefined, ...ones: PeerRole[]): boolean {
  return role === undefined || ones.includes(role);
}

/** What this role cannot do without. @param refused has this key a value that is no good? Then it is not missing. */
export function checkNeeds(
  role: PeerRole,
  values: WrittenPlaces,
  defaults: Readonly<Record<ListenName, string>>,
  refused: (key: string) => boolean,
  report: Report,
): void {
  const { redis, pki, services, listen, node } = values;
  if (!redis || !pki) {
    const missing = [!redis && 'redis', !pki && 'pki'].filter(Boolean).join(' and ');
    report(`${role} is a role of a cluster and needs ${missing}; one process by itself is sallyport gateway`);
  }
  for (const service of CALLS[role])
    if (!services?.[service]?.length && !refused(service))
      report(`services names no ${service}, and ${role} needs it`, 'services');
  for (const name of LISTENS[role]) {
    if (listen?.[name] !== undefined || refused(name)) continue;
    const named = name === 'node' ? undefined : services?.[name];
    if (named?.length && !named.includes(defaults[name]))
      report(
        `listen.${name} is missing: ${defaults[name]}, its default, is not in services.${name}`,
        'listen',
      );
  }
  if (role !== 'tunnel-node') return;
  if (!node?.name && !refused('name'))
    report('node.name is missing: each node has its own, which stays', 'node');
  if (!node?.address && listen?.node === undefined && !refused('node'))
    report('listen.node is missing: the other nodes reach this one there', 'listen');
}

/**
 * Certificate, key and CA of a process: do they fit together, would the others believe them, and may they have this role?
 * @returns one sentence; undefined = they are good. Their end is not judged: clocks differ, and old tunnels need no peers.
 */
export async function pkiProblem(files: PeerFiles, role: PeerRole | undefined): Promise<string | undefined> {
  let material: PeerMaterial;
  try {
    material = await loadPeerMaterial(files);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  const [leaf, ...between] = certificatesOf(material.cert);
  if (!leaf) return `${files.cert} holds no certificate.`;
  if (!leadsTo(leaf, between, certificatesOf(material.ca)))
    return `The certificate in ${files.cert} is not of the CA in ${files.ca}: the other services would refuse it.`;
  const roles = rolesOf({ subjectaltname: leaf.subjectAltName ?? '' });
  if (role === undefined || roles.length === 0 || roles.includes(role)) return undefined;
  return `${files.cert} is the certificate of ${roles.join(' and ')}, and ${role} needs its own (sallyport pki issue NAME --role ${role}).`;
}

function leadsTo(
  leaf: X509Certificate,
  between: readonly X509Certificate[],
  roots: X509Certificate[],
): boolean {
  let one = leaf;
  for (let step = 0; step < MAX_CHAIN; step += 1) {
    const below = one;
    const issued = (by: X509Certificate) => below.checkIssued(by) && below.verify(by.publicKey);
    if (roots.some((root) => root.fingerprint256 === below.fingerprint256 || issued(root))) return true;
    const next = between.find(issued);
    if (!next) return false;
    one = next;
  }
  return false;
}

function certificatesOf(pem: Buffer): X509Certificate[] {
  return (pem.toString('latin1').match(PEM_CERTIFICATE) ?? []).map((text) => new X509Certificate(text));
}

/** Services that a role calls. */
const CALLS: Record<PeerRole, readonly (keyof ServiceAddresses)[]> = {
  auth: [],
  portal: ['auth', 'catalog'],
  downloader: ['auth'],
  'tunnel-node': ['auth', 'portal', 'downloader'],
};
const LISTENS: Record<PeerRole, readonly ListenName[]> = {
  auth: ['auth'],
  portal: ['portal'],
  downloader: ['downloader', 'catalog'],
  'tunnel-node': [],
};
/** Certificates from that of a process up to its CA. */
const MAX_CHAIN = 10;
const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
