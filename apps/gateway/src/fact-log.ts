import type { Log } from '@sallyport/chassis';
import type { EventLog } from '@sallyport/cluster';

/**
 * Log lines for what happened to sessions, with the reason that the client and the event have. Who it was and where from
 * is in the event only: names and addresses are not logged above debug.
 * @returns how to stop.
 */
export function logFacts(events: Pick<EventLog, 'follow'>, log: Log): () => void {
  return events.follow((fact) => {
    if (fact.type === 'ended') log.info({ session: fact.sessionId, reason: fact.reason }, 'session ended');
    if (fact.type === 'connect.refused')
      log.info({ session: fact.sessionId, reason: fact.reason }, 'tunnel refused');
  });
}
