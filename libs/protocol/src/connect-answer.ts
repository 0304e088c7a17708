import { decodeLatin1, encodeUtf8 } from './bytes.ts';
import type { Client } from './client.ts';
import type { Grant } from './grant.ts';
import {
  cidrContains,
  dottedMask,
  formatAddress,
  formatCidr,
  parseAddress,
  parseCidr,
  type Cidr,
  type IpFamily,
} from './ip.ts';

/** What the gateway answers to CONNECT (docs/protocol.md §5.3). */
export interface ConnectAnswer {
  grant: Grant;
  /** '' = not given out. IPv6: address of the client's prefix. */
  ipv4: string;
  ipv6: string;
  mtuBytes: number;
  baseMtuBytes: number;
  /** From the request. */
  fullIpv6: boolean;
  client: Client;
  /** Name of the gateway, without software or version. */
  gatewayName: string;
  /** What is left until the session's absolute limit; 0 = no limit. */
  sessionRemainingSeconds: number;
}

/** Values of the client's device class, for the answer and for the channel alike. Seconds; 0 = off. */
export function channelTimers(grant: Grant, mobile: boolean): ChannelTimers {
  return {
    dpdSeconds: mobile ? grant.mobileDpdSeconds : grant.dpdSeconds,
    keepaliveSeconds: grant.keepaliveSeconds,
    idleTimeoutSeconds: mobile ? grant.mobileIdleTimeoutSeconds : grant.idleTimeoutSeconds,
  };
}

export interface ChannelTimers {
  dpdSeconds: number;
  keepaliveSeconds: number;
  idleTimeoutSeconds: number;
}

/**
 * The complete head of the answer, one character a byte, empty line included: the next byte is CSTP. With hundreds of routes it is longer than
 * one TLS record.
 * Names are spelled as openconnect compares them. Nothing in the input can end a line.
 */
export function connectAnswer(answer: ConnectAnswer): string {
  const lines = new HeaderLines('HTTP/1.1 200 CONNECTED');
  lines.add('X-CSTP-Version', '1');
  lines.add('X-CSTP-Hostname', answer.gatewayName);
  addAddresses(lines, answer);
  addNames(lines, answer);
  addRoutes(lines, answer);
  addTimeouts(lines, answer);
  addConstants(lines);
  if (answer.client.quirks.bannerHeader && answer.grant.banner !== '')
    lines.addText('X-CSTP-Banner', answer.grant.banner);
  lines.add('X-CSTP-Client-Bypass-Protocol', String(answer.grant.clientBypassProtocol));
  lines.add('X-CSTP-Base-MTU', String(answer.baseMtuBytes));
  lines.add('X-CSTP-MTU', String(answer.mtuBytes));
  if (answer.client.quirks.postAuthXml) lines.add('X-CSTP-Post-Auth-XML', POST_AUTH_XML);
  return lines.end();
}

function addAddresses(lines: HeaderLines, answer: ConnectAnswer): void {
  const { grant } = answer;
  if (answer.ipv4 !== '') {
    lines.add('X-CSTP-Address', answer.ipv4);
    lines.add('X-CSTP-Netmask', dottedMask(poolPrefix(grant.ipv4Pools, answer.ipv4)));
  }
  if (answer.ipv6 === '') return;
  if (answer.fullIpv6) {
    lines.add('X-CSTP-Address-IP6', `${answer.ipv6}/${grant.ipv6SubnetPrefix}`);
    return;
  }
  lines.add('X-CSTP-Address', answer.ipv6);
  const network = parseCidr(`${answer.ipv6}/${grant.ipv6SubnetPrefix}`);
  if (network) lines.add('X-CSTP-Netmask', formatCidr(network));
}

/** Mask of the pool that the address is from. It depends on the stored grant only, so a reconnect gets the same. */
function poolPrefix(pools: readonly string[], addressText: string): number {
  const address = parseAddress(addressText);
  for (const text of pools) {
    const pool = parseCidr(text);
    if (pool && address && cidrContains(pool, address)) return pool.prefixLength;
  }
  return 32;
}

function addNames(lines: HeaderLines, answer: ConnectAnswer): void {
  const { grant, client } = answer;
  for (const server of grant.dns) {
    const family = familyOf(server);
    if (family === 'ipv4') lines.add('X-CSTP-DNS', server);
    else if (family === 'ipv6' && answer.ipv6 !== '') lines.add(client.quirks.dnsIpv6Header, server);
  }
  for (const server of grant.nbns) if (familyOf(server) === 'ipv4') lines.add('X-CSTP-NBNS', server);
  if (grant.defaultDomain !== '') lines.add('X-CSTP-Default-Domain', grant.defaultDomain);
  for (const domain of grant.splitDns) lines.add('X-CSTP-Split-DNS', domain);
  lines.add('X-CSTP-Tunnel-All-DNS', String(grant.tunnelAllDns));
}

function addRoutes(lines: HeaderLines, answer: ConnectAnswer): void {
  const { grant, client } = answer;
  const includes = cidrs(grant.routes);
  if (grant.routes.length > 0) {
    // A family with an address and no route of its own would become a full tunnel: give it its own address only.
    const own = { ipv4: parseCidr(answer.ipv4), ipv6: parseCidr(answer.ipv6) };
    for (const family of ['ipv4', 'ipv6'] as const) {
      const self = own[family];
      if (self && !includes.some((cidr) => cidr.family === family)) includes.push(self);
    }
  }
  for (const cidr of includes) addRoute(lines, answer, 'X-CSTP-Split-Include', cidr);
  if (client.quirks.needsIpv6Route && answer.ipv6 !== '' && grant.routes.length === 0)
    lines.add('X-CSTP-Split-Include-IP6', '2000::/3');
  for (const cidr of cidrs(grant.noRoutes)) addRoute(lines, answer, 'X-CSTP-Split-Exclude', cidr);
}

/** IPv4 with a dotted mask: Cisco's client takes nothing else. */
function addRoute(lines: HeaderLines, answer: ConnectAnswer, name: string, cidr: Cidr): void {
  if (cidr.family === 'ipv4')
    lines.add(name, `${formatAddress(cidr.network)}/${dottedMask(cidr.prefixLength)}`);
  else if (answer.ipv6 !== '') lines.add(answer.fullIpv6 ? `${name}-IP6` : name, formatCidr(cidr));
}

function addTimeouts(lines: HeaderLines, answer: ConnectAnswer): void {
  const { grant, sessionRemainingSeconds: remaining } = answer;
  const timers = channelTimers(grant, answer.client.mobile);
  // openconnect takes the last of these two: they must be equal.
  lines.add('X-CSTP-Session-Timeout', secondsOrNone(remaining));
  lines.add('X-CSTP-Session-Timeout-Remaining', secondsOrNone(remaining));
  if (remaining > 0) lines.add('X-CSTP-Session-Timeout-Alert-Interval', String(ALERT_SECONDS));
  lines.add('X-CSTP-Idle-Timeout', secondsOrNone(timers.idleTimeoutSeconds));
  lines.add('X-CSTP-Disconnected-Timeout', secondsOrNone(grant.disconnectedTimeoutSeconds));
  // Some clients refuse an answer without a rekey: "never" is a year.
  const rekey = grant.rekeySeconds > 0 ? Math.min(grant.rekeySeconds, MAX_REKEY_SECONDS) : MAX_REKEY_SECONDS;
  lines.add('X-CSTP-Rekey-Time', String(rekey));
  lines.add('X-CSTP-Rekey-Method', 'new-tunnel');
  if (timers.dpdSeconds > 0) lines.add('X-CSTP-DPD', String(timers.dpdSeconds));
  if (timers.keepaliveSeconds > 0) lines.add('X-CSTP-Keepalive', String(timers.keepaliveSeconds));
}

function addConstants(lines: HeaderLines): void {
  lines.add('X-CSTP-Keep', 'true');
  lines.add('X-CSTP-TCP-Keepalive', 'true');
  lines.add('X-CSTP-License', 'accept');
  lines.add('X-CSTP-Smartcard-Removal-Disconnect', 'true');
  lines.add('X-CSTP-MSIE-Proxy-Lockdown', 'true');
  lines.add('X-CSTP-Routing-Filtering-Ignore', 'false');
  lines.add('X-CSTP-Quarantine', 'false');
  lines.add('X-CSTP-Disable-Always-On-VPN', 'false');
}

class HeaderLines {
  readonly #lines: string[];

  constructor(statusLine: string) {
    this.#lines = [statusLine];
  }

  /** Printable ASCII only: what is not is left out. A line that is too long for clients is left out as a whole. */
  add(name: string, value: string): void {
    const line = `${name}: ${value.replace(/[^\x20-\x7e]/g, '').trim()}`;
    if (line.length <= MAX_HEADER_LINE) this.#lines.push(line);
  }

  /** Text for people, in UTF-8: without control characters, a new line is a blank. */
  addText(name: string, value: string): void {
    const text = value.replace(/\s*\n\s*/g, ' ').replace(/[\p{Cc}\u2028\u2029]/gu, '');
    const line = `${name}: ${decodeLatin1(encodeUtf8(text.trim()))}`;
    if (line.length <= MAX_HEADER_LINE) this.#lines.push(line);
  }

  end(): string {
    return `${this.#lines.join('\r\n')}\r\n\r\n`;
  }
}

function cidrs(texts: readonly string[]): Cidr[] {
  return texts.map(parseCidr).filter((cidr) => cidr !== undefined);
}

function familyOf(text: string): IpFamily | undefined {
  const address = parseAddress(text);
  if (address === undefined) return undefined;
  return address.length === 4 ? 'ipv4' : 'ipv6';
}

function secondsOrNone(seconds: number): string {
  return seconds > 0 ? String(seconds) : 'none';
}

/** For the agent process of Cisco's client; in the form of the success document, on one line. */
const POST_AUTH_XML =
  '<?xml version="1.0" encoding="UTF-8"?>' +
  '<config-auth client="vpn" type="complete" aggregate-auth-version="2">' +
  '<config client="vpn" type="private"><opaque is-for="vpn-client"><custom-attr></custom-attr></opaque></config>' +
  '</config-auth>';

/** Characters; openconnect's buffer is 8 KiB. */
export const MAX_HEADER_LINE = 8000;
/** A year; values near 2^31 break clients. */
export const MAX_REKEY_SECONDS = 31_536_000;
const ALERT_SECONDS = 60;
