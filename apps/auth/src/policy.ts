import type { Grant, GrantOrigins, Origin, Reason } from '@sallyport/protocol';
import {
  DEFAULT_GRANT,
  forGrantFields,
  POLICY_FIELDS,
  type PolicyKeys,
  type ProfileSettings,
  type Settings,
} from '@sallyport/cluster';

/*
 * PURE. Who may enter a connection profile, and what he may use then.
 *
 *   default ─▶ global ─▶ profile ─▶ group ─▶ user        the narrowest scope that sets a key wins
 *
 * A list is one value: the list of a narrower scope replaces that of a wider one wholly, nothing is joined. So an
 * operator sees at one place what a group gets, and an empty list takes away what a wider scope gave.
 */

export type Resolved = { ok: true; grant: Grant; origins: GrantOrigins } | { ok: false; reason: Reason };

/**
 * The policy of one user who has proven who he is, in one profile.
 * @param userGroups the groups of `users-file`, the first one is his own group where the profile names none.
 * @returns frozen values, fit to be shared by sessions; or `profile-unknown`, `profile-forbidden`, `policy-unreadable`.
 */
export function resolvePolicy(
  settings: Settings,
  profileName: string,
  user: string,
  userGroups: readonly string[],
): Resolved {
  const entry = mayEnter(settings, profileName, userGroups);
  if (!entry.ok) return entry;
  const { profile } = entry;
  const group = profile.group || (userGroups[0] ?? '');
  const groupKeys = own(settings.groups, group);
  // Fail closed: a profile that points to a group without settings would silently give the wider policy.
  if (profile.group && !groupKeys) return { ok: false, reason: 'policy-unreadable' };

  const groupOrigin: Origin = profile.group
    ? { scope: 'profile', name: profile.name }
    : group
      ? { scope: 'group', name: group }
      : { scope: 'default', name: '' };
  const layers: { keys: PolicyKeys | undefined; origin: Origin }[] = [
    { keys: settings.policy, origin: { scope: 'global', name: '' } },
    { keys: profile.policy, origin: { scope: 'profile', name: profile.name } },
    { keys: groupKeys, origin: { scope: 'group', name: group } },
    { keys: own(settings.users, user), origin: { scope: 'user', name: user } },
  ];
  return { ok: true, ...merge(group, groupOrigin, layers) };
}

/**
 * The same for many logins: users without policy of their own share one Grant per profile and group, so that a
 * thousand sessions do not hold a thousand copies.
 */
export class Policies {
  readonly #shared = new WeakMap<Settings, Map<string, Resolved>>();

  resolve(settings: Settings, profileName: string, user: string, userGroups: readonly string[]): Resolved {
    if (own(settings.users, user)) return resolvePolicy(settings, profileName, user, userGroups);
    let shared = this.#shared.get(settings);
    if (!shared) this.#shared.set(settings, (shared = new Map<string, Resolved>()));
    // No name holds a line feed, so no two lists of groups give the same key.
    const key = [profileName, ...userGroups].join('\n');
    const known = shared.get(key);
    if (known) return known;
    const resolved = resolvePolicy(settings, profileName, user, userGroups);
    if (shared.size < SHARED_GRANTS_MAX) shared.set(key, resolved);
    return resolved;
  }
}

/** May a user of these groups enter this profile? Asked again when his groups change. */
export function mayEnter(
  settings: Settings,
  profileName: string,
  userGroups: readonly string[],
): { ok: true; profile: ProfileSettings } | { ok: false; reason: Reason } {
  const profile = own(settings.profiles, profileName);
  if (!profile) return { ok: false, reason: 'profile-unknown' };
  const open =
    profile.allowGroups.length === 0 || profile.allowGroups.some((group) => userGroups.includes(group));
  return open ? { ok: true, profile } : { ok: false, reason: 'profile-forbidden' };
}

function merge(
  group: string,
  groupOrigin: Origin,
  layers: { keys: PolicyKeys | undefined; origin: Origin }[],
) {
  const grant: Grant = { ...DEFAULT_GRANT, group };
  const none: Origin = { scope: 'default', name: '' };
  const origins: GrantOrigins = { ...forGrantFields(() => none), group: groupOrigin };
  for (const { keys, origin } of layers) {
    for (const key of POLICY_FIELDS) {
      if (keys?.[key] === undefined) continue;
      Object.assign(grant, { [key]: keys[key] });
      origins[key] = origin;
    }
  }
  return { grant: deepFreeze(structuredClone(grant)), origins: deepFreeze(origins) };
}

/** Names from outside may be `__proto__` or `constructor`: only what was configured counts. */
function own<T>(record: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(record, name) ? record[name] : undefined;
}

function deepFreeze<T extends object>(value: T): T {
  for (const member of Object.values(value))
    if (typeof member === 'object' && member !== null) deepFreeze(member);
  return Object.freeze(value);
}

/** Combinations of profile and groups that are remembered; beyond that each session has its own copy. */
const SHARED_GRANTS_MAX = 10_000;
