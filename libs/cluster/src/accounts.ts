import type { Reason } from '@sallyport/protocol';

/** Users as an operator sees and changes them. */
export interface Accounts {
  list(): Promise<readonly Account[]> | readonly Account[];
  /** File first, then logins, then sessions. Rejects with an Error whose message is for the operator. */
  apply(order: AccountOrder): Promise<void>;
}

export interface Account {
  name: string;
  groups: readonly string[];
  locked: boolean;
}

export type AccountOrder =
  | { verb: 'add'; name: string; groups: readonly string[]; password: string }
  | { verb: 'passwd'; name: string; password: string }
  | { verb: 'lock' | 'unlock' | 'delete'; name: string };

/** What a user would get with a login now, and which scope of the configuration says so. */
export interface PolicyExplained {
  /** Is he in users-file, or was he added? */
  known: boolean;
  locked: boolean;
  groups: string[];
  profile: string;
  /** Why he gets nothing; '' = see values. */
  refused: Reason | '';
  values: PolicyValue[];
}

export interface PolicyValue {
  /** As in the configuration. */
  key: string;
  value: string;
  scope: string;
  /** Of the profile, group or user; '' = none. */
  name: string;
}

/** @param profile '' = the default one. */
export type ExplainPolicy = (user: string, profile: string) => Promise<PolicyExplained>;

/** For an operator on a tunnel node. */
export const ONLY_AT_AUTH =
  'a tunnel node may lock users and change nothing else: run this on a machine of auth, with -s the socket of auth';

/** As it travels. @returns undefined: the verb is none of ours. */
export function accountOrder(request: {
  verb: string;
  name: string;
  groups: readonly string[];
  password: string;
}): AccountOrder | undefined {
  const { verb, name, groups, password } = request;
  if (verb === 'add') return { verb, name, groups, password };
  if (verb === 'passwd') return { verb, name, password };
  if (verb === 'lock' || verb === 'unlock' || verb === 'delete') return { verb, name };
  return undefined;
}

export function accountRequest(order: AccountOrder) {
  return {
    verb: order.verb,
    name: order.name,
    groups: 'groups' in order ? [...order.groups] : [],
    password: 'password' in order ? order.password : '',
  };
}
