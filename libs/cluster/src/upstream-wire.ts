/**
 * One request inside the cluster as HTTP/1.1: what the client sent, less what belongs to its own connection, and the facts
 * of that connection in `X-Sallyport-*` headers. The edge has taken such headers away from what clients send, and only peers
 * with a certificate of the cluster are heard at all.
 */
import { ProtocolError } from '@sallyport/protocol';
import type { ConnectionFacts } from './upstream.ts';

export const FACTS_PREFIX = 'x-sallyport-';
/** In an answer: the client broke the protocol; the status is what the edge answers. */
export const MALFORMED_HEADER = 'X-Sallyport-Malformed';
/** In an answer with 503: a reason of libs/protocol/src/reasons.ts. */
export const REASON_HEADER = 'X-Sallyport-Reason';
/** In an answer: the edge closes the client's connection after it. */
export const CLOSE_HEADER = 'X-Sallyport-Close';
/** Served to whoever has a certificate of the cluster, without facts. */
export const UPSTREAM_HEALTH = '/health/ready';

/** Headers that belong to one connection (RFC 9110 §7.6.1), and those that HTTP here sets by itself. */
export const HOP_HEADERS: ReadonlySet<string> = new Set([
  'connection',
  'content-length',
  'expect',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** Names and values in turn. */
export function factHeaders(facts: ConnectionFacts): string[] {
  const headers = [
    ...[NAMES.clientAddress, encodeURIComponent(facts.clientAddress)],
    ...[NAMES.serverName, encodeURIComponent(facts.serverName)],
    ...[NAMES.servedLeafSha1, facts.servedLeafSha1],
    ...[NAMES.tlsVersion, encodeURIComponent(facts.tlsVersion)],
  ];
  const { certificate } = facts;
  if (!certificate) return headers;
  return [
    ...headers,
    ...[NAMES.certificate, Buffer.from(certificate.der).toString('base64')],
    ...[NAMES.certificateVerified, certificate.verified ? 'yes' : 'no'],
    ...[NAMES.certificateProblem, encodeURIComponent(certificate.problem)],
  ];
}

/**
 * @param raw names and values in turn, as they came.
 * @throws ProtocolError unless every fact is there once and well-formed: nothing is guessed about a client.
 */
export function factsFrom(raw: readonly string[]): ConnectionFacts {
  const given = new Map<string, string>();
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = (raw[at] ?? '').toLowerCase();
    if (!name.startsWith(FACTS_PREFIX)) continue;
    if (given.has(name) || !KNOWN.has(name)) throw new ProtocolError('facts that are doubled or unknown');
    given.set(name, raw[at + 1] ?? '');
  }
  const take = (name: string): string => {
    const value = given.get(name.toLowerCase());
    if (value === undefined) throw new ProtocolError('facts of the connection are missing');
    return value;
  };
  const servedLeafSha1 = take(NAMES.servedLeafSha1);
  if (!/^(?:[0-9A-F]{40})?$/.test(servedLeafSha1)) throw new ProtocolError('a fact is malformed');
  const facts: ConnectionFacts = {
    clientAddress: decoded(take(NAMES.clientAddress)),
    serverName: decoded(take(NAMES.serverName)),
    servedLeafSha1,
    tlsVersion: decoded(take(NAMES.tlsVersion)),
  };
  const aboutCertificate = [NAMES.certificate, NAMES.certificateVerified, NAMES.certificateProblem];
  if (!aboutCertificate.some((name) => given.has(name.toLowerCase()))) return facts;
  const verified = take(NAMES.certificateVerified);
  const text = take(NAMES.certificate);
  if ((verified !== 'yes' && verified !== 'no') || !/^[A-Za-z0-9+/]*={0,2}$/.test(text))
    throw new ProtocolError('a fact is malformed');
  return {
    ...facts,
    certificate: {
      verified: verified === 'yes',
      problem: decoded(take(NAMES.certificateProblem)),
      der: new Uint8Array(Buffer.from(text, 'base64')),
    },
  };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new ProtocolError('a fact is malformed');
  }
}

const NAMES = {
  clientAddress: 'X-Sallyport-Client-Address',
  serverName: 'X-Sallyport-Server-Name',
  servedLeafSha1: 'X-Sallyport-Served-Leaf-Sha1',
  tlsVersion: 'X-Sallyport-Tls-Version',
  certificate: 'X-Sallyport-Certificate',
  certificateVerified: 'X-Sallyport-Certificate-Verified',
  certificateProblem: 'X-Sallyport-Certificate-Problem',
} as const;

const KNOWN: ReadonlySet<string> = new Set(Object.values(NAMES).map((name) => name.toLowerCase()));
