import { isDeepStrictEqual } from 'node:util';
import {
  DEFAULT_GRANT,
  policyKeyNames,
  type ExplainPolicy,
  type PolicyExplained,
  type Settings,
} from '@sallyport/cluster';
import type { Directory } from './directory.ts';
import { resolvePolicy } from './policy.ts';

/** What a user would get, value by value, with its origin. Those that nobody has set come last. */
export function policyExplainer(settings: () => Settings, directory: Pick<Directory, 'find'>): ExplainPolicy {
  return async (user, profile) => {
    const present = settings();
    const record = directory.find(user);
    const explained: PolicyExplained = {
      known: record !== undefined,
      locked: record?.locked ?? false,
      groups: [...(record?.groups ?? [])],
      profile: profile || present.defaultProfile,
      refused: '',
      values: [],
    };
    const resolved = resolvePolicy(present, explained.profile, user, explained.groups);
    if (!resolved.ok) return { ...explained, refused: resolved.reason };
    const { grant, origins } = resolved;
    const values = policyKeyNames().map(([key, field]) => ({
      key,
      // Routes that are not named are all of them.
      value: field === 'routes' && grant.routes.length === 0 ? 'default' : textOf(grant[field]),
      ...origins[field],
      isDefault: isDeepStrictEqual(grant[field], DEFAULT_GRANT[field]) && origins[field].scope === 'default',
    }));
    return {
      ...explained,
      values: [...values.filter((one) => !one.isDefault), ...values.filter((one) => one.isDefault)].map(
        ({ key, value, scope, name }) => ({ key, value, scope, name }),
      ),
    };
  };
}

function textOf(value: unknown): string {
  return Array.isArray(value) ? value.join(', ') : String(value);
}
