import { identifyClient, type Client } from './client.ts';
import { parseCookies } from './cookies.ts';
import { MAX_LINK_MTU_BYTES, MIN_LINK_MTU_BYTES, MIN_TUNNEL_MTU_BYTES } from './mtu.ts';
import { ProtocolError } from './errors.ts';

/** What a client says in CONNECT (docs/protocol.md §5.1). Texts are '' when absent; all of it is untrusted. */
export interface ConnectRequest {
  /** Value of the `webvpn` cookie. Secret. */
  token: string;
  hostname: string;
  userAgent: string;
  /** As in `Client`. */
  platform: string;
  mobile: boolean;
  client: Client;
  /** Link MTU that the client sees; 0 = not given or out of range. */
  baseMtuBytes: number;
  /** Tunnel MTU that the client wants; 0 = not given or out of range. */
  mtuBytes: number;
  wantIpv4: boolean;
  wantIpv6: boolean;
  /** Understands `X-CSTP-Address-IP6` and the like; else the old form. */
  fullIpv6: boolean;
  /** base64, see `strap.ts`. */
  strapVerify: string;
  strapPubkey: string;
  /** Absent: the client wants no DTLS. */
  dtls?: DtlsOffer;
}

export interface DtlsOffer {
  /** Hex. Secret; on a reconnect it contains the previous PSK. */
  masterSecret: string;
  /** Names in `X-DTLS-CipherSuite` and `X-DTLS12-CipherSuite`. The same name means different suites in the two. */
  cipherSuites: string[];
  cipherSuites12: string[];
}

/**
 * @param target request target, as sent.
 * @param rawHeaders name, value, name, value …
 * @throws ProtocolError with status 404 for a target that is not the tunnel's (P5.1).
 */
export function parseConnect(target: string, rawHeaders: readonly string[]): ConnectRequest {
  if (!TUNNEL_TARGETS.includes(target))
    throw new ProtocolError('CONNECT to something other than the tunnel', 404);
  const headers = firstValues(rawHeaders);
  const text = (name: string): string => headers.get(name) ?? '';
  const client = identifyClient(Object.fromEntries(headers));
  const families = tokens(text('x-cstp-address-type'), ',');
  const secret = text('x-dtls-master-secret');
  return {
    token: parseCookies(text('cookie')).webvpn,
    hostname: shown(text('x-cstp-hostname')),
    userAgent: shown(text('user-agent')),
    platform: client.platform,
    mobile: client.mobile,
    client,
    baseMtuBytes: bytesInRange(text('x-cstp-base-mtu'), MIN_LINK_MTU_BYTES, MAX_LINK_MTU_BYTES),
    mtuBytes: bytesInRange(text('x-cstp-mtu'), MIN_TUNNEL_MTU_BYTES, MAX_LINK_MTU_BYTES),
    wantIpv4: families.length === 0 || families.includes('ipv4'),
    wantIpv6: families.includes('ipv6') && client.quirks.ipv6,
    fullIpv6: text('x-cstp-full-ipv6-capability').toLowerCase() === 'true',
    strapVerify: text('x-anyconnect-strap-verify'),
    strapPubkey: text('x-anyconnect-strap-pubkey'),
    ...(secret !== '' && {
      dtls: {
        masterSecret: secret,
        cipherSuites: tokens(text('x-dtls-ciphersuite'), ':', (name) => name),
        cipherSuites12: tokens(text('x-dtls12-ciphersuite'), ':', (name) => name),
      },
    }),
  };
}

function firstValues(rawHeaders: readonly string[]): Map<string, string> {
  const headers = new Map<string, string>();
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] ?? '').toLowerCase();
    if (!headers.has(name)) headers.set(name, (rawHeaders[i + 1] ?? '').trim());
  }
  return headers;
}

/** For operators: no control characters, not longer than a name may be. */
function shown(text: string): string {
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, '').slice(0, MAX_SHOWN_LENGTH);
}

/** Digits only: a sign, a fraction, an exponent or a value out of range is as good as nothing (V13). */
function bytesInRange(text: string, min: number, max: number): number {
  if (!/^\d{1,6}$/.test(text)) return 0;
  const value = Number(text);
  return value >= min && value <= max ? value : 0;
}

function tokens(text: string, separator: string, form = (token: string) => token.toLowerCase()): string[] {
  return text
    .split(separator)
    .map((token) => form(token.trim()))
    .filter((token) => token !== '')
    .slice(0, MAX_TOKENS);
}

/** Clavister's client leaves the slash out. */
const TUNNEL_TARGETS: readonly string[] = ['/CSCOSSLC/tunnel', 'CSCOSSLC/tunnel'];
/** Longest list looked at; OpenSSL builds send some 40 cipher names. */
const MAX_TOKENS = 128;
export const MAX_SHOWN_LENGTH = 256;
