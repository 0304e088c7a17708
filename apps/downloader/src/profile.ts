import { childOf, parseXml, XmlError, type XmlElement } from '@sallyport/protocol';

export interface ProfileProblem {
  /** From 1. */
  line: number;
  reason: string;
}

/**
 * Is this a client profile that clients can use? A broken one would lock its users out: a client that is announced a
 * profile and cannot read it gives the connection up (docs/protocol.md §8.4).
 * Checked: encoding, well-formedness, the host list, and the values of settings that decide how clients connect. Elements
 * that are not in the table are left to the client.
 */
export function checkProfile(bytes: Uint8Array): ProfileProblem | undefined {
  if (bytes.length > MAX_PROFILE_BYTES) return problem(1, `is larger than ${MAX_PROFILE_BYTES} bytes`);
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    return declarationProblem(text) ?? rootProblem(parseXml(text, LIMITS));
  } catch (error) {
    if (error instanceof XmlError) return problem(error.line, error.message);
    if (error instanceof TypeError) return problem(lineOfBrokenText(bytes), 'is not UTF-8');
    throw error;
  }
}

function declarationProblem(text: string): ProfileProblem | undefined {
  const encoding = /^<\?xml\s[^>]{0,200}?encoding\s*=\s*["']([^"']{1,40})["']/i.exec(text)?.[1];
  if (encoding === undefined || /^(?:utf-8|us-ascii)$/i.test(encoding)) return undefined;
  return problem(1, `encoding must be UTF-8, not ${encoding}`);
}

function rootProblem(root: XmlElement): ProfileProblem | undefined {
  if (root.name !== 'AnyConnectProfile')
    return problem(root.line, `root is <${root.name}>, not <AnyConnectProfile>`);
  const lists = root.children.filter(({ name }) => name === 'ServerList');
  const [list, second] = lists;
  if (!list) return problem(root.line, '<ServerList> is missing');
  if (second) return problem(second.line, '<ServerList> stands twice');
  const hosts = list.children.filter(({ name }) => name === 'HostEntry');
  if (hosts.length === 0) return problem(list.line, '<ServerList> has no <HostEntry>');
  return first(hosts, hostProblem) ?? valueProblem(root);
}

function hostProblem(host: XmlElement): ProfileProblem | undefined {
  const name = childOf(host, 'HostName')?.text.trim() ?? '';
  const address = childOf(host, 'HostAddress');
  if (name === '') return problem(host.line, '<HostEntry> has no <HostName>');
  // Clients take the name as the address only if it can be one.
  if (!address) return HOST.test(name) ? undefined : problem(host.line, '<HostEntry> has no <HostAddress>');
  if (!HOST.test(address.text.trim()))
    return problem(address.line, '<HostAddress> is not a host name or address');
  const group = childOf(host, 'UserGroup');
  if (group && /[\s/?#\\]/.test(group.text.trim()))
    return problem(group.line, '<UserGroup> is not part of a URL');
  return undefined;
}

function valueProblem(element: XmlElement): ProfileProblem | undefined {
  const allowed = VALUES.get(element.name);
  const value = element.text.trim();
  if (allowed && !allowed.test(value))
    return problem(element.line, `<${element.name}> cannot be "${value.slice(0, 40)}"`);
  return first(element.children, valueProblem);
}

function first<T>(
  items: readonly T[],
  check: (item: T) => ProfileProblem | undefined,
): ProfileProblem | undefined {
  for (const item of items) {
    const found = check(item);
    if (found) return found;
  }
  return undefined;
}

function lineOfBrokenText(bytes: Uint8Array): number {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let line = 1;
  for (let start = 0; start < bytes.length; line += 1) {
    const feed = bytes.indexOf(0x0a, start);
    const end = feed < 0 ? bytes.length : feed + 1;
    try {
      decoder.decode(bytes.subarray(start, end));
    } catch {
      return line;
    }
    start = end;
  }
  return 1;
}

function problem(line: number, reason: string): ProfileProblem {
  return { line, reason };
}

const BOOLEAN = /^(?:true|false)$/;
/** Settings that keep clients from connecting, or from coming back, when they are misspelt. */
const VALUES: ReadonlyMap<string, RegExp> = new Map([
  ['BypassDownloader', BOOLEAN],
  ['AutoUpdate', BOOLEAN],
  ['StrictCertificateTrust', BOOLEAN],
  ['RestrictPreferenceCaching', /^(?:true|false|Credentials|Thumbprints|CredentialsAndThumbprints|All)$/],
  ['UseStartBeforeLogon', BOOLEAN],
  ['AutoConnectOnStart', BOOLEAN],
  ['LocalLanAccess', BOOLEAN],
  ['AutoReconnect', BOOLEAN],
  ['AutoReconnectBehavior', /^(?:DisconnectOnSuspend|ReconnectAfterResume)$/],
  ['AuthenticationTimeout', /^(?:[1-9]\d|1[01]\d|120)$/],
  ['WindowsVPNEstablishment', /^(?:LocalUsersOnly|AllowRemoteUsers)$/],
  ['WindowsLogonEnforcement', /^(?:SingleLocalLogon|SingleLogon|SingleLogonNoRemote)$/],
  ['PrimaryProtocol', /^(?:SSL|IPsec)$/],
]);
/** Host name, IPv4 or IPv6 in brackets or without, perhaps a port, perhaps a path. */
const HOST =
  /^(?:https:\/\/)?(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})|\[?[0-9A-Fa-f:.]{2,45}\]?)(?::\d{1,5})?(?:\/[^\s?#\\]{0,128})?$/;

export const MAX_PROFILE_BYTES = 1024 * 1024;
const LIMITS = { maxLength: MAX_PROFILE_BYTES, maxNodes: 50_000 };
