import type { IpFamily } from './ip.ts';

/**
 * From the link to the tunnel (docs/protocol.md §5.6). "Inner" is an IP packet in the tunnel, "outer" the packet that
 * carries it. All sizes in bytes.
 */
export interface TunnelMtuInput {
  /** From the request; 0 = not given or out of range. */
  baseMtuBytes: number;
  mtuBytes: number;
  /** Family of the TCP connection. */
  outer: IpFamily;
  /** Of the TLS connection (`tlsOverhead`). */
  tls: TlsOverhead;
  /** Set when DTLS is offered: the smaller of the two MTUs is used for both channels. */
  dtls?: DtlsOverhead;
  /** Upper limit by policy (Grant.mtuBytes); 0 = none. */
  limitBytes: number;
}

export interface TunnelMtu {
  /** Link MTU that was assumed: `X-CSTP-Base-MTU`. */
  baseMtuBytes: number;
  /** `X-CSTP-MTU`. */
  mtuBytes: number;
  /** IPv6 needs 1280 bytes (RFC 8200 §5): with less, no IPv6 address may be given out. */
  ipv6Fits: boolean;
}

/** Never larger than the link carries in one outer packet. */
export function tunnelMtu(input: TunnelMtuInput): TunnelMtu {
  const link = linkMtu(input, input.outer);
  let mtu = cstpMtu(link, input.outer, input.tls);
  if (input.dtls !== undefined) mtu = Math.min(mtu, dtlsMtu(link, input.outer, input.dtls));
  if (input.limitBytes > 0) mtu = Math.min(mtu, input.limitBytes);
  return { baseMtuBytes: link, mtuBytes: mtu, ipv6Fits: mtu >= MIN_IPV6_MTU_BYTES };
}

/** What the client says about its link, else back from its tunnel MTU (old clients), else openconnect's default. */
export function linkMtu(request: { baseMtuBytes: number; mtuBytes: number }, outer: IpFamily): number {
  const back = request.mtuBytes + CLIENT_OVERHEAD_BYTES + UDP_BYTES + IP_BYTES[outer];
  const asked =
    request.baseMtuBytes > 0 ? request.baseMtuBytes : request.mtuBytes > 0 ? back : DEFAULT_LINK_MTU_BYTES;
  return Math.max(MIN_LINK_MTU_BYTES, Math.min(asked, LINK_MTU_BYTES));
}

/** Largest inner packet in one TCP segment with timestamps. */
export function cstpMtu(linkBytes: number, outer: IpFamily, tls: TlsOverhead): number {
  const room = linkBytes - IP_BYTES[outer] - TCP_BYTES;
  if (tls !== 'tls12-cbc') return room - TLS_OVERHEAD_BYTES[tls];
  return blocks(room - 5 - 16, 16) - CSTP_HEADER_BYTES - 20 - 1;
}

/** Largest inner packet in one datagram. One byte of type goes before it. */
export function dtlsMtu(linkBytes: number, outer: IpFamily, dtls: DtlsOverhead): number {
  const room = linkBytes - IP_BYTES[outer] - UDP_BYTES;
  switch (dtls) {
    case 'gcm':
      return room - 38;
    case 'chacha20':
    case 'ccm8':
      return room - 30;
    case 'cbc-sha1':
      return blocks(room - 29, 16) - 22;
    case 'cbc-sha256':
      return blocks(room - 29, 16) - 34;
    case '3des-sha1':
      return blocks(room - 21, 8) - 22;
  }
}

/** @param cipher OpenSSL's or the standard name of the suite. An unknown one counts as the dearest. */
export function tlsOverhead(tlsVersion: string, cipher: string): TlsOverhead {
  if (tlsVersion === 'TLSv1.3') return 'tls13';
  if (/CHACHA20/.test(cipher)) return 'tls12-chacha20';
  return /GCM|CCM/.test(cipher) ? 'tls12-gcm' : 'tls12-cbc';
}

export type TlsOverhead = 'tls13' | 'tls12-gcm' | 'tls12-chacha20' | 'tls12-cbc';

export type DtlsOverhead = 'gcm' | 'chacha20' | 'ccm8' | 'cbc-sha1' | 'cbc-sha256' | '3des-sha1';

function blocks(room: number, size: number): number {
  return Math.floor(room / size) * size;
}

// Of the wire: docs/protocol.md §5.6
const IP_BYTES: Record<IpFamily, number> = { ipv4: 20, ipv6: 40 };
const UDP_BYTES = 8;
/** Header and timestamps. */
const TCP_BYTES = 32;
const CSTP_HEADER_BYTES = 8;
/** TLS record around a CSTP packet, with the CSTP header. */
const TLS_OVERHEAD_BYTES: Record<Exclude<TlsOverhead, 'tls12-cbc'>, number> = {
  tls13: 30,
  'tls12-gcm': 37,
  'tls12-chacha20': 29,
};
/** What openconnect takes off its link for `X-CSTP-MTU`, besides IP and UDP. */
const CLIENT_OVERHEAD_BYTES = 82;
/** RFC 8200 §5 */
export const MIN_IPV6_MTU_BYTES = 1280;

// Tunables
/** Smallest and largest link MTU that a client may claim. */
export const MIN_LINK_MTU_BYTES = 800;
export const MAX_LINK_MTU_BYTES = 9216;
/** Never more is used, whatever the client's own link can do: the path to it is Ethernet somewhere. */
export const LINK_MTU_BYTES = 1500;
/** Smallest tunnel MTU that a client may ask for (RFC 791: what every host must take). */
export const MIN_TUNNEL_MTU_BYTES = 576;
/** Link MTU when the client says nothing useful: openconnect's own assumption. */
export const DEFAULT_LINK_MTU_BYTES = 1406;
