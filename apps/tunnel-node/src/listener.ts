import type { Duplex } from 'node:stream';
import type { CertificateFacts } from '@sallyport/cluster';

/**
 * The seam below HTTP (ARCHITECTURE decision 10): a source of byte streams with facts. Everything above is written
 * against this, never against `tls.TLSSocket`, so that a native TLS listener can take the place of `node:tls`.
 */
export interface Listener {
  /** Starts to accept; resolves when the socket is open. Rejects with a one-sentence error, e.g. port taken. */
  listen(accept: (stream: ClientStream) => void): Promise<void>;
  /**
   * Loads certificates, CAs and versions. @returns the step from which handshakes and connections follow them; it does
   * not fail. @throws Error if they do not load; the old ones stay.
   */
  prepare(certificates: ListenerCertificates, rules: AddressRules): () => void;
  readonly stats: ListenerStats;
  /** That is listened on; 0 = none. */
  readonly port: number;
  /** Stops accepting. Streams that were handed over stay open: whoever took them closes them. Idempotent. */
  close(): Promise<void>;
}

/** One TLS connection after its handshake. */
export interface ClientStream {
  /** Decrypted bytes in and out, for HTTP and until `receive` or `farewell` only. */
  readonly duplex: Duplex;
  readonly facts: StreamFacts;
  /**
   * Writes `bytes` (at most 16,384) as exactly one TLS record (PROTOCOL §0.1).
   * @returns false when what waits to be sent is over the high-water mark.
   */
  writeRecord(bytes: Uint8Array): boolean;
  /** Bytes accepted by `writeRecord` and not yet taken by the kernel. */
  readonly pendingBytes: number;
  /** TLS exporter, RFC 5705 without a context. */
  exportKey(label: string, length: number): Uint8Array;
  /** Leaves HTTP for good: bytes go to `receiver` from now on, beginning with the next turn of the event loop. Once. */
  receive(receiver: StreamReceiver): void;
  /** The last bytes, then as `end`; what the client still sends is read and dropped, until `destroy`. */
  farewell(bytes: Uint8Array): void;
  /** close_notify and FIN. */
  end(): void;
  /** At once. */
  destroy(): void;
  /** Nothing can be sent any more. */
  readonly closed: boolean;
}

export interface StreamReceiver {
  handleChunk(chunk: Uint8Array): void;
  /** The client has ended the stream or is gone; may come twice. */
  handleLoss(): void;
}

export interface StreamFacts {
  /** Of the client, also behind a trusted proxy. */
  peerAddress: string;
  peerPort: number;
  localAddress: string;
  /** SNI; '' = none. */
  serverName: string;
  /** `TLSv1.2` or `TLSv1.3`. */
  tlsVersion: string;
  /** OpenSSL's name of the suite. */
  cipher: string;
  /** SHA-1 of the leaf that was presented on this connection, upper-case hex. */
  servedLeafSha1: string;
  certificate?: CertificateFacts;
  /** The client's Finished verify_data (12 or 48 bytes) for STRAP; undefined where the TLS library hides it. */
  clientFinished?: Uint8Array;
}

export interface ListenerCertificates {
  /** '' is the default host; others are chosen by SNI. */
  hosts: Map<string, HostCertificates>;
}

export interface HostCertificates {
  /** PEM chain and key, one pair per key type. */
  pairs: { cert: Buffer; key: Buffer }[];
  /** PEM; empty = no client certificate is asked for. */
  ca: Buffer | undefined;
  crl: Buffer | undefined;
  minVersion: 'TLSv1.2' | 'TLSv1.3';
  maxVersion: 'TLSv1.2' | 'TLSv1.3';
}

export interface AddressRules {
  /** Open connections from one address; 0 = no limit. */
  connectionsPerAddress: number;
  /** CIDRs of balancers that begin each connection with a PROXY header. */
  trustedProxies: readonly string[];
}

export interface ListenerStats {
  accepted: number;
  handshakes: number;
  /** By cause: `timeout`, `error`, `limit`, `address-limit`, `proxy-header`. */
  refused: Record<string, number>;
  /** In a handshake now: their ClientHello has begun. */
  handshaking: number;
  /** Accepted, nothing received yet; they take no handshake slot (C12). */
  silent: number;
  open: number;
}

/** Bytes that may wait to be sent to one client before data packets for it are dropped. */
export const HIGH_WATER_BYTES = 262_144;
