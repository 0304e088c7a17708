/**
 * What `show` prints. JSON has occtl's keys, byte for byte, so that scripts and exporters written for ocserv work;
 * keys of our own (`Node`, `Version` …) come beside them. Texts for people are columns or lines of `Key: value`.
 */
import type { AdminEvent, SessionEntry, StatusResponse, Tunnel } from '../admin/wire.ts';

export type JsonObject = Record<string, string | number | boolean | string[]>;

/** @param now ms since 1970. */
export function statusJson(status: StatusResponse, now: number): JsonObject {
  const startedMs = millis(status.startedAt);
  const startedSeconds = Math.floor(startedMs / 1000);
  const average = Number(status.averageSessionSeconds);
  const max = Number(status.maxSessionSeconds);
  return {
    Status: status.state,
    'Server PID': status.pid,
    'Sec-mod PID': status.pid,
    'Sec-mod instance count': 1,
    'Up since': clock(startedMs),
    '_Up since': interval(startedMs, now),
    raw_up_since: startedSeconds,
    uptime: Math.max(0, Math.floor((now - startedMs) / 1000)),
    'Active sessions': status.activeSessions,
    'Total sessions': Number(status.totalSessions),
    'Total authentication failures': Number(status.authenticationFailures),
    // No address is ever banned.
    'IPs in ban list': 0,
    'Median latency': UNKNOWN,
    raw_median_latency: 0,
    'STDEV latency': UNKNOWN,
    raw_stdev_latency: 0,
    'Last stats reset': clock(startedMs),
    '_Last stats reset': interval(startedMs, now),
    raw_last_stats_reset: startedSeconds,
    'Sessions handled': Number(status.sessionsHandled),
    'Timed out sessions': Number(status.timedOutSessions),
    'Timed out (idle) sessions': Number(status.timedOutIdleSessions),
    'Closed due to error sessions': Number(status.closedErrorSessions),
    'Authentication failures': Number(status.authenticationFailures),
    'Average auth time': UNKNOWN,
    raw_avg_auth_time: 0,
    'Max auth time': UNKNOWN,
    raw_max_auth_time: 0,
    'Average session time': duration(average),
    raw_avg_session_time: average,
    'Max session time': duration(max),
    raw_max_session_time: max,
    ...(status.activeSessions > 0 && { 'Min MTU': status.minMtuBytes, 'Max MTU': status.maxMtuBytes }),
    RX: bytes(status.rxBytes),
    raw_rx: Number(status.rxBytes),
    TX: bytes(status.txBytes),
    raw_tx: Number(status.txBytes),
    Version: status.version,
    Node: status.node,
    'Config revision': status.revision,
    ...(status.notes.length > 0 && { Notes: status.notes }),
    'Not measured': NOT_MEASURED,
  };
}

/** Of what nobody measures (latency, login times) and of numbers for programs people see nothing. */
export function statusText(status: StatusResponse, now: number): string {
  const json = statusJson(status, now);
  const line = (key: string, value = String(json[key] ?? '').trim()) => `  ${key}: ${value}`;
  const since = (key: string) => line(key, `${String(json[key])} (${String(json[`_${key}`]).trim()})`);
  return [
    'General info:',
    ...['Status', 'Version', 'Node', 'Config revision', 'Server PID'].map((key) => line(key)),
    ...status.notes.map((note) => line('Note', note)),
    since('Up since'),
    ...['Active sessions', ...(status.activeSessions > 0 ? ['Min MTU', 'Max MTU'] : [])].map((key) =>
      line(key),
    ),
    '',
    'Since the start (ended sessions count in times):',
    ...[
      'Total sessions',
      'Sessions handled',
      'Timed out sessions',
      'Timed out (idle) sessions',
      'Closed due to error sessions',
      'Authentication failures',
      'Average session time',
      'Max session time',
      'RX',
      'TX',
    ].map((key) => line(key)),
  ].join('\n');
}

export function tunnelJson(tunnel: Tunnel, now: number): JsonObject {
  const connected = millis(tunnel.connectedAt);
  const started = millis(tunnel.sessionStartedAt);
  const seconds = Math.max(1, Math.floor((now - connected) / 1000));
  return {
    ID: tunnel.tunnelId,
    Username: tunnel.user,
    Groupname: tunnel.group || '(none)',
    State: 'connected',
    vhost: 'default',
    Device: tunnel.device,
    MTU: String(tunnel.mtuBytes),
    'Remote IP': tunnel.clientAddress,
    Location: UNKNOWN,
    'Local Device IP': tunnel.localDeviceAddress,
    ...(tunnel.ipv4 && { IPv4: tunnel.ipv4, 'P-t-P IPv4': '' }),
    ...(tunnel.ipv6 && { IPv6: tunnel.ipv6, 'P-t-P IPv6': '' }),
    'User-Agent': tunnel.userAgent,
    RX: tunnel.rxBytes,
    TX: tunnel.txBytes,
    _RX: bytes(tunnel.rxBytes),
    _TX: bytes(tunnel.txBytes),
    'Average RX': rate(Number(tunnel.rxBytes) / seconds),
    'Average TX': rate(Number(tunnel.txBytes) / seconds),
    DPD: String(tunnel.dpdSeconds),
    KeepAlive: String(tunnel.keepaliveSeconds),
    Hostname: tunnel.hostname,
    'Connected at': clock(connected),
    '_Connected at': interval(connected, now),
    'Last connected at': clock(connected),
    '_Last connected at': interval(connected, now),
    raw_connected_at: Math.floor(connected / 1000),
    'Session started at': clock(started),
    '_Session started at': interval(started, now),
    raw_session_started_at: Math.floor(started / 1000),
    'Full session': tunnel.sessionId,
    Session: tunnel.sessionId.slice(0, SHORT_ID),
    'TLS ciphersuite': tunnel.tlsCipher,
    ...(tunnel.dtlsCipher && { 'DTLS cipher': tunnel.dtlsCipher }),
    DNS: tunnel.dns,
    NBNS: tunnel.nbns,
    'Split-DNS-Domains': tunnel.splitDns,
    Routes: tunnel.routes.length > 0 ? tunnel.routes : ['defaultroute'],
    'No-routes': tunnel.noRoutes,
    iRoutes: [],
    'Restricted to routes': 'False',
    'Restricted to ports': [],
    Profile: tunnel.profile,
    Node: tunnel.node,
  };
}

export function tunnelsText(tunnels: Tunnel[], now: number): string {
  const rows = tunnels.map((tunnel) => [
    String(tunnel.tunnelId),
    tunnel.user,
    tunnel.group || '(none)',
    tunnel.clientAddress,
    [tunnel.ipv4, tunnel.ipv6].filter((address) => address !== '').join(' '),
    tunnel.device,
    interval(millis(tunnel.connectedAt), now).trim(),
    tunnel.dtlsCipher || '(no-dtls)',
    'connected',
    tunnel.node,
  ]);
  return columns(
    ['id', 'user', 'group', 'ip', 'vpn-ip', 'device', 'since', 'dtls-cipher', 'status', 'node'],
    rows,
  );
}

/** All that is known of one tunnel. */
export function tunnelText(tunnel: Tunnel, now: number): string {
  const hidden = /^(_|raw_|P-t-P|iRoutes|Restricted|Location|vhost|Connected at$)/;
  return Object.entries(tunnelJson(tunnel, now))
    .filter(
      ([key, value]) => !hidden.test(key) && value !== '' && !(Array.isArray(value) && value.length === 0),
    )
    .map(([key, value]) => `  ${key}: ${Array.isArray(value) ? value.join(', ') : String(value)}`)
    .join('\n')
    .replace(/^( {2}Routes:) defaultroute$/m, '$1 default (everything)');
}

export function sessionJson(session: SessionEntry, now: number): JsonObject {
  const created = millis(session.createdAt);
  return {
    Session: session.sessionId.slice(0, SHORT_ID),
    'Full session': session.sessionId,
    Created: clock(created),
    _Created: interval(created, now),
    raw_created: Math.floor(created / 1000),
    State: 'authenticated',
    Username: session.user,
    Groupname: session.group || '(none)',
    vhost: 'default',
    'User-Agent': session.userAgent,
    'Remote IP': session.clientAddress,
    Location: UNKNOWN,
    session_is_open: 1,
    tls_auth_ok: 0,
    in_use: session.state === 'up' ? 1 : 0,
    Hostname: session.hostname,
    Profile: session.profile,
    'Session state': session.state,
    ...(session.ipv4 && { IPv4: session.ipv4 }),
    ...(session.ipv6 && { IPv6: session.ipv6 }),
    raw_rx: Number(session.rxBytes),
    raw_tx: Number(session.txBytes),
    Node: session.node,
  };
}

export function sessionsText(sessions: SessionEntry[], now: number): string {
  const rows = sessions.map((session) => [
    session.sessionId.slice(0, SHORT_ID),
    session.user,
    session.profile,
    session.clientAddress,
    [session.ipv4, session.ipv6].filter((address) => address !== '').join(' '),
    session.userAgent.slice(0, AGENT_WIDTH),
    interval(millis(session.createdAt), now).trim(),
    session.state,
    session.node,
  ]);
  return columns(
    ['session', 'user', 'profile', 'ip', 'vpn-ip', 'user agent', 'created', 'status', 'node'],
    rows,
  );
}

export function sessionText(session: SessionEntry, now: number): string {
  const hidden = new Set(['Location', 'vhost', 'State', 'session_is_open', 'tls_auth_ok', 'in_use']);
  return Object.entries(sessionJson(session, now))
    .filter(([key, value]) => !hidden.has(key) && !/^(_|raw_)/.test(key) && value !== '')
    .map(([key, value]) => `  ${key}: ${String(value)}`)
    .join('\n');
}

export function eventJson(event: AdminEvent): JsonObject {
  const set = Object.entries(event).filter(([, value]) => value !== '' && value !== '0');
  return {
    ...Object.fromEntries(set),
    at: new Date(millis(event.at)).toISOString(),
    raw_at: Number(event.at),
  };
}

export function eventText(event: AdminEvent): string {
  const { user, profile, reason, address, node, detail, sessionId } = event;
  const traffic =
    event.rxBytes === '0' && event.txBytes === '0'
      ? ''
      : `rx ${bytes(event.rxBytes)} tx ${bytes(event.txBytes)}`;
  const facts = { user, profile, session: sessionId.slice(0, SHORT_ID), from: address, node, reason };
  const texts = Object.entries(facts).filter(([, value]) => value !== '');
  return [
    `${clock(millis(event.at), true)} ${event.type.padEnd(TYPE_WIDTH)}`,
    ...texts.map(([key, value]) => `${key}=${value}`),
    detail,
    traffic,
  ]
    .filter((text) => text !== '')
    .join(' ');
}

/** Columns as wide as their widest cell, the last one open. */
export function columns(head: string[], rows: string[][]): string {
  const widths = head.map((title, i) =>
    rows.reduce((width, row) => Math.max(width, (row[i] ?? '').length), title.length),
  );
  return [head, ...rows]
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Keys of `show status` that scripts may need to be there, and that nobody measures: their `raw_` numbers say nothing. */
const NOT_MEASURED = ['Median latency', 'STDEV latency', 'Average auth time', 'Max auth time'];
/** As occtl writes it for what it does not know. */
const UNKNOWN = 'unknown';

// Forms of occtl

/** `2026-11-24 21:46`, local time. */
export function clock(ms: number, withSeconds = false): string {
  const date = new Date(ms);
  const two = (number: number) => String(number).padStart(2, '0');
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}${withSeconds ? `:${two(date.getSeconds())}` : ''}`;
}

/** `    7s`, ` 1m:02s`, ` 3h:04m`, ` 5days`. */
export function duration(seconds: number): string {
  const two = (number: number, fill: string) => String(Math.floor(number)).padStart(2, fill);
  if (seconds >= 48 * 3600) return `${two(seconds / 86_400, ' ')}days`;
  if (seconds >= 3600) return `${two(seconds / 3600, ' ')}h:${two((seconds % 3600) / 60, '0')}m`;
  if (seconds > 60) return `${two(seconds / 60, ' ')}m:${two(seconds % 60, '0')}s`;
  return `${String(Math.floor(seconds)).padStart(5)}s`;
}

/** `0 bytes`, `17.8 KB`: powers of 1000. */
export function bytes(count: string | number): string {
  const value = Number(count);
  if (value < 1000) return `${Math.floor(value)} bytes`;
  const power = Math.min(UNITS.length, Math.floor(Math.log10(value) / 3));
  return `${(value / 1000 ** power).toFixed(1)} ${UNITS[power - 1] ?? ''}`;
}

function rate(perSecond: number): string {
  return `${bytes(perSecond)}/sec`;
}

function interval(fromMs: number, now: number): string {
  return duration(Math.max(0, (now - fromMs) / 1000));
}

function millis(micros: string): number {
  return Number(BigInt(micros) / 1000n);
}

const SHORT_ID = 6;
const AGENT_WIDTH = 40;
const TYPE_WIDTH = 15;
const UNITS = ['KB', 'MB', 'GB', 'TB', 'PB'];
