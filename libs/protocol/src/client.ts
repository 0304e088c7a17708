/**
 * Which client speaks, and what it needs that others do not (docs/protocol.md §12).
 * Everything here is what the client says about itself: it tunes answers and never grants anything.
 */

export type ClientFamily =
  | 'openconnect'
  /** openconnect before version 4. */
  | 'openconnect-old'
  | 'anyconnect'
  | 'anyconnect-ios'
  /** Cisco Secure Client: AnyConnect from version 5 on. */
  | 'secure-client'
  | 'clavister'
  | 'anylink'
  | 'ip-phone'
  | 'unknown';

export interface Quirks {
  /** Documents of the login are a bare `<auth>` without `<config-auth>` around it. */
  bareAuth: boolean;
  /** Understands IPv6 inside the tunnel. */
  ipv6: boolean;
  /** A full tunnel carries IPv6 only if `X-CSTP-Split-Include-IP6: 2000::/3` is sent. */
  needsIpv6Route: boolean;
  /** Header that announces an IPv6 name server. */
  dnsIpv6Header: 'X-CSTP-DNS' | 'X-CSTP-DNS-IP6';
  /** Shows `X-CSTP-Banner`, and not the banner of the success document. */
  bannerHeader: boolean;
  /** Takes `X-CSTP-Post-Auth-XML`. */
  postAuthXml: boolean;
}

export interface Client {
  family: ClientFamily;
  /** Phone or tablet: it sleeps, so dead peer detection waits longer. */
  mobile: boolean;
  /** As in `<device-id>`: `win`, `mac-intel`, `linux-64`, `android`, `apple-ios`; '' = not known. */
  platform: string;
  /** e.g. `4.10.07061` or `9.01-3`; '' = not known. */
  version: string;
  quirks: Quirks;
}

/**
 * @param headers names in lower case.
 * An agent that is not in the table is served like openconnect.
 */
export function identifyClient(headers: Record<string, string>): Client {
  const agent = (headers['user-agent'] ?? '').slice(0, MAX_AGENT_LENGTH);
  const version = VERSION.exec(agent)?.[1] ?? '';
  const platform = platformOf(headers, agent);
  const family = familyOf(agent, version, platform);
  const mobile =
    MOBILE_PLATFORMS.has(platform) || headers['x-cstp-license']?.trim().toLowerCase() === 'mobile';
  const quirks = QUIRKS[family];
  return { family, mobile, platform, version, quirks: mobile ? { ...quirks, postAuthXml: false } : quirks };
}

function familyOf(agent: string, version: string, platform: string): ClientFamily {
  const lower = agent.toLowerCase();
  const family = AGENTS.find(([prefix]) => lower.startsWith(prefix))?.[1] ?? 'unknown';
  const major = Number.parseInt(version, 10);
  if (family === 'openconnect' && lower.startsWith(OLD_STYLE_AGENT) && major <= LAST_OLD_OPENCONNECT)
    return 'openconnect-old';
  if (family === 'anyconnect' && platform === 'apple-ios') return 'anyconnect-ios';
  if (family === 'anyconnect' && major >= FIRST_SECURE_CLIENT) return 'secure-client';
  return family;
}

function platformOf(headers: Record<string, string>, agent: string): string {
  const said = (headers['x-anyconnect-identifier-platform'] ?? headers['x-anyconnect-platform'] ?? '')
    .trim()
    .toLowerCase();
  if (PLATFORM_NAME.test(said)) return said;
  return PLATFORM_WORDS.find(([word]) => word.test(agent))?.[1] ?? '';
}

// docs/protocol.md §12.1. The first prefix that fits counts; lower case.
const OLD_STYLE_AGENT = 'open anyconnect vpn agent v';
const AGENTS: readonly (readonly [prefix: string, family: ClientFamily])[] = [
  [OLD_STYLE_AGENT, 'openconnect'],
  ['openconnect vpn agent', 'openconnect'],
  ['cisco anyconnect vpn agent for apple', 'anyconnect-ios'],
  ['cisco anyconnect', 'anyconnect'],
  ['cisco secure client', 'secure-client'],
  ['anyconnect-compatible openconnect', 'openconnect'],
  ['anyconnect', 'anyconnect'],
  ['clavister oneconnect vpn', 'clavister'],
  ['anylink secure client', 'anylink'],
  ['cisco svc ipphone client', 'ip-phone'],
];
const LAST_OLD_OPENCONNECT = 3;
const FIRST_SECURE_CLIENT = 5;

const PERMISSIVE: Quirks = {
  bareAuth: false,
  ipv6: true,
  needsIpv6Route: false,
  dnsIpv6Header: 'X-CSTP-DNS',
  bannerHeader: false,
  postAuthXml: false,
};
const CISCO: Quirks = {
  ...PERMISSIVE,
  dnsIpv6Header: 'X-CSTP-DNS-IP6',
  postAuthXml: true,
};

/** What needs another answer (what is good for all is done for all: docs/protocol.md §12.2). */
const QUIRKS: Record<ClientFamily, Quirks> = {
  openconnect: { ...PERMISSIVE, bannerHeader: true, postAuthXml: true },
  'openconnect-old': { ...PERMISSIVE, bannerHeader: true, bareAuth: true, ipv6: false },
  anyconnect: CISCO,
  'anyconnect-ios': { ...CISCO, needsIpv6Route: true, postAuthXml: false },
  'secure-client': CISCO,
  clavister: PERMISSIVE,
  anylink: PERMISSIVE,
  'ip-phone': { ...PERMISSIVE, ipv6: false },
  unknown: PERMISSIVE,
};

const MOBILE_PLATFORMS: ReadonlySet<string> = new Set(['android', 'apple-ios']);
const PLATFORM_NAME = /^[a-z0-9][a-z0-9_-]{0,31}$/;
const PLATFORM_WORDS: readonly (readonly [RegExp, string])[] = [
  [/\bandroid\b/i, 'android'],
  [/\bapple\b|\biphone\b|\bipad\b|\bios\b/i, 'apple-ios'],
  [/\bwindows(?:_|\b)/i, 'win'],
  [/\bdarwin(?:_|\b)|\bmac os\b/i, 'mac-intel'],
  [/\blinux_(?:64|arm64)\b/i, 'linux-64'],
  [/\blinux\b/i, 'linux'],
];
/** The last number of the agent that looks like a version, with or without `v`. */
const VERSION = /(?:^|\s|v)(\d{1,5}(?:\.\d{1,6}){0,4}(?:[-+][0-9A-Za-z.]{1,32})?)\s*$/;
const MAX_AGENT_LENGTH = 512;
