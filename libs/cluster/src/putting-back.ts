import { encodeStored } from './redis-records.ts';
import { blocksOf, storedGrant, type StoredGrant } from './redis-plan.ts';
import type { Session } from './session.ts';
import type { NewSession } from './sessions.ts';

/** Sessions as `lua/putting-back.lua` takes them, with the grants that they need. */
export function puttingBack(sessions: readonly Session[]) {
  const grants = new Map<string, StoredGrant>();
  const records = sessions.map((session) => {
    const stored = storedGrant(session.grant, session.origins);
    grants.set(stored.key, stored);
    return {
      id: session.id,
      record: encodeStored(session, stored.key),
      blocks: blocksOf(session),
      started: session.state === 'authed' ? startedText(session) : '',
    };
  });
  return { records, grants: [...grants.values()] };
}

/** The members of a `started` event that the scripts do not make. */
export function startedText(of: Omit<NewSession, 'strapKey'> & { strapKeys: string[] }): string {
  const { tokenHash, user, profile, grant, origins, client, strapKeys } = of;
  return JSON.stringify({ tokenHash, user, profile, grant, origins, client, strapKeys }).slice(1, -1);
}

/** Sessions that one script puts back at most: a longer one would hold up everybody else. */
export const PUT_BACK_SLICE = 25;
