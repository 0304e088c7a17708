import { readFileSync } from 'node:fs';

/**
 * How many connections the limit of open files (RLIMIT_NOFILE) allows. When files run out, the kernel accepts nothing any
 * more, and logins, the journal and the admin socket fail without a cause: so connections stay below it.
 * @param limits text of /proc/PID/limits. @returns Infinity where there is no limit.
 */
export function connectionsAllowed(limits = readFileSync('/proc/self/limits', 'latin1')): number {
  const soft = Number(/^Max open files +(\d+)/m.exec(limits)?.[1] ?? Infinity);
  if (!Number.isFinite(soft)) return Infinity;
  const reserve = Math.min(MAX_RESERVE, Math.max(MIN_RESERVE, Math.floor(soft / 4)));
  return Math.max(1, soft - reserve);
}

/** Files that the process itself needs: libraries, journal, device, admin and health sockets, files on their way. */
export const MIN_RESERVE = 48;
export const MAX_RESERVE = 1024;
