import type { Reason } from '@sallyport/protocol';
import type { ProfileOption, ProfileSettings, Settings } from '@sallyport/cluster';

/*
 * PURE. Which connection profile a login starts with. In this order (docs/protocol.md §4):
 *
 *   1. the name in the URL: it must exist, and no list is shown
 *   2. what the client selected: name, or label in any case
 *   3. nothing selected, or something unknown: the default (clients send what they remember of other gateways)
 *
 * Under a name of `vhosts` with a list, only the profiles of that list exist.
 */

export interface ProfileWish {
  profile: string;
  urlProfile: string;
  serverName: string;
  /** The client has no certificate that we take. */
  withoutCertificate: boolean;
}

export type ProfileChoice =
  { ok: true; profile: ProfileSettings; fixed: boolean } | { ok: false; reason: Reason };

export function chooseProfile(settings: Settings, wish: ProfileWish): ProfileChoice {
  const offered = offeredProfiles(settings, wish.serverName);
  if (wish.urlProfile !== '') {
    const profile = matching(offered, wish.urlProfile);
    return profile ? { ok: true, profile, fixed: true } : { ok: false, reason: 'profile-unknown' };
  }
  const selected = matching(offered, wish.profile);
  if (selected) return { ok: true, profile: selected, fixed: false };
  const fallback = offered.find((profile) => profile.name === settings.defaultProfile) ?? offered[0];
  if (!fallback) return { ok: false, reason: 'profile-unknown' };
  // Nobody chose it: who has no certificate gets a form, or he would never see the list.
  const open = offered.find((profile) => !profile.methods.includes('certificate'));
  const barred = wish.withoutCertificate && fallback.methods.includes('certificate');
  return { ok: true, profile: barred && open ? open : fallback, fixed: false };
}

/** The profile that a reply selects; undefined = none, or an unknown one: the login keeps its own. */
export function selectedProfile(
  settings: Settings,
  serverName: string,
  wish: string,
): ProfileSettings | undefined {
  return matching(offeredProfiles(settings, serverName), wish);
}

/** The list of the form, chosen one first (some clients take the first one as selected); empty = nothing to choose. */
export function profileOptions(settings: Settings, serverName: string, chosen: string): ProfileOption[] {
  const offered = offeredProfiles(settings, serverName);
  if (offered.length < 2) return [];
  const first = offered.filter((profile) => profile.name === chosen);
  return [...first, ...offered.filter((profile) => profile.name !== chosen)].map(profileOption);
}

export function profileOption(profile: ProfileSettings): ProfileOption {
  return { name: profile.name, label: profile.label || profile.name };
}

function offeredProfiles(settings: Settings, serverName: string): ProfileSettings[] {
  const host = serverName.toLowerCase().replace(/\.$/, '');
  const names = Object.hasOwn(settings.vhosts, host) ? (settings.vhosts[host]?.profiles ?? []) : [];
  const all = Object.values(settings.profiles);
  return names.length === 0 ? all : all.filter((profile) => names.includes(profile.name));
}

function matching(offered: readonly ProfileSettings[], wish: string): ProfileSettings | undefined {
  if (wish === '') return undefined;
  const label = wish.toLowerCase();
  return (
    offered.find((profile) => profile.name === wish) ??
    offered.find((profile) => profile.label.toLowerCase() === label) ??
    offered.find((profile) => profile.name.toLowerCase() === label)
  );
}
