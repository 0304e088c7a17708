/**
 * Why something was refused or ended: one list for the client's text, the log, the event and the metric label.
 * The first group is ocserv's, unchanged (operators' scripts know it).
 */
export const REASONS = {
  unspecified: 'The connection ended.',
  'user-disconnect': 'You disconnected.',
  'server-disconnect': 'An administrator disconnected this session.',
  'idle-timeout': 'The session was idle for too long.',
  'dpd-timeout': 'The client did not answer any more.',
  error: 'The connection failed.',
  'session-timeout': 'The session has reached its time limit.',
  'temp-disconnect': 'The client will be back.',
  'health-probe': 'Health probe.',

  // Logins
  'login-failed': 'Login failed.',
  'login-tries-exhausted': 'Too many failed tries. Start again.',
  'login-expired': 'The login took too long. Start again.',
  'login-limit': 'Too many logins are pending. Try again later.',
  'profile-unknown': 'This connection profile does not exist.',
  'profile-forbidden': 'You may not use this connection profile.',
  'certificate-required': 'A client certificate is required.',
  'certificate-invalid': 'The client certificate was not accepted.',
  'certificate-user-missing': 'The client certificate names no user.',
  'certificate-user-mismatch': 'The client certificate belongs to another user.',
  'policy-unreadable': 'The policy for this user could not be read.',

  // CONNECT
  'token-missing': 'No session cookie.',
  'token-unknown': 'The session does not exist or has ended.',
  'cookie-timeout': 'The login was not used in time.',
  'disconnected-timeout': 'The session was disconnected for too long.',
  'strap-failed': 'The session is bound to another client.',
  'pool-empty': 'No address is free.',
  'address-taken': 'The fixed address of this user is in use.',
  'no-address-family': 'The client asked for no address family that is offered.',
  'max-clients': 'The gateway is full.',
  'max-same-clients': 'You have too many sessions.',
  'connect-rate': 'Too many connection attempts.',
  'not-ready': 'The gateway is starting.',
  'store-unavailable': 'The session store cannot be reached.',
  isolated: 'This node cannot reach the session store. Try again.',
  draining: 'This node takes no new logins. Try again.',
  'service-unavailable': 'The gateway cannot do this now. Try again later.',

  // Ends of sessions and tunnels
  superseded: 'The session was continued on another connection.',
  replaced: 'The session was replaced by a newer one.',
  logout: 'You logged out.',
  terminated: 'An administrator ended this session.',
  'user-locked': 'This account is locked.',
  'user-deleted': 'This account was deleted.',
  'password-changed': 'The password of this account was changed.',
  'connection-lost': 'The connection was lost.',
  'protocol-error': 'The client broke the protocol.',
  'server-shutdown': 'The gateway is stopping.',
  'node-restarted': 'The gateway was started again.',
} as const;

export type Reason = keyof typeof REASONS;

/** Of a refused CONNECT: 401 = log in again, 503 = come back with the same token. docs/protocol.md §5.2 */
export function statusOf(reason: Reason): 401 | 503 {
  return LOG_IN_AGAIN.has(reason) ? 401 : 503;
}

/** Ends that nobody asked for and no limit brought. */
export function isFault(reason: string): boolean {
  return FAULTS.has(reason);
}

export function reasonText(reason: Reason): string {
  return REASONS[reason];
}

const LOG_IN_AGAIN: ReadonlySet<Reason> = new Set<Reason>([
  'token-missing',
  'token-unknown',
  'cookie-timeout',
  'disconnected-timeout',
  'session-timeout',
  'idle-timeout',
  'strap-failed',
  'user-disconnect',
  'server-disconnect',
  'logout',
  'terminated',
  'replaced',
  'user-locked',
  'user-deleted',
  'password-changed',
]);

const FAULTS: ReadonlySet<string> = new Set<Reason>([
  'error',
  'dpd-timeout',
  'protocol-error',
  'connection-lost',
]);
