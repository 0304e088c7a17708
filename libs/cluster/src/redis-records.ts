/*
 * The text of a session record in Redis (lua/records.lua) and the Session that it stands for. What is read is checked
 * by the decoder of the journal's lines.
 */
import type { Checked } from './journal-lines.ts';
import { decodeObject } from './journal-lines.ts';
import { addressOf } from './redis-plan.ts';
import type { Session } from './session.ts';

/** A grant as read, unchecked. It never changes, so what was read once is kept. */
export interface GrantText {
  grant: unknown;
  origins: unknown;
}

/**
 * @param away how long the store was away in all, µs: a parked session has not aged meanwhile.
 * @throws MalformedLine, NewerVersion
 */
export function decodeStored(
  id: string,
  text: string,
  grant: GrantText,
  away: bigint,
  checked: Checked,
): Session {
  const stored = fieldsOf(text);
  const get = (name: string) => textOf(stored[name]);
  const state = STATES[get('st')];
  const gap = state === 'parked' ? positive(away - whole(stored['aw'])) : 0n;
  const line = {
    type: 'record',
    v: stored['v'],
    id,
    tokenHash: get('t'),
    user: get('u'),
    profile: get('p'),
    ...grant,
    client: { address: get('ca'), userAgent: get('cu'), platform: get('cp'), hostname: get('ch') },
    state,
    ...(stored['le'] === undefined ? {} : { lease: leaseOf(stored) }),
    addresses: { ipv4: get('a4') || addressOf(get('b4')), ipv6: get('a6') || addressOf(get('b6')) },
    strapKeys: get('k').split(' ').filter(Boolean),
    mtuBytes: Number(get('m') || 0),
    createdAt: digits(stored['c']),
    upAt: digits(stored['up']),
    parkedAt: String(whole(stored['pk']) + gap),
    activeAt: String(whole(stored['ac']) + gap),
    endedAt: digits(stored['en']),
    endReason: get('er'),
    rxBytes: digits(stored['rx']),
    txBytes: digits(stored['tx']),
    tunnelRxBytes: digits(stored['rt']),
    tunnelTxBytes: digits(stored['tt']),
    n: stored['n'],
  };
  const entry = decodeObject(line, checked);
  if (entry.type !== 'record') throw new Error('a session record is no record');
  return entry.record;
}

/** The record of a session for `lua/assert.lua`, without its addresses' blocks. */
export function encodeStored(session: Session, grantKey: string): Record<string, string | number> {
  const { client, lease, addresses, grant } = session;
  const record: Record<string, string | number> = {
    v: session.v,
    t: session.tokenHash,
    u: session.user,
    p: session.profile,
    g: grantKey,
    ca: client.address,
    cu: client.userAgent,
    cp: client.platform,
    ch: client.hostname,
    st: session.state.charAt(0),
    ln: lease?.name ?? '',
    li: lease?.incarnation ?? '',
    le: String(lease?.epoch ?? 0n),
    lc: lease?.claimId ?? '',
    a4: grant.explicitIpv4 === '' ? '' : addresses.ipv4,
    a6: grant.explicitIpv6 === '' ? '' : addresses.ipv6,
    k: session.strapKeys.join(' '),
    m: String(session.mtuBytes),
    c: String(session.createdAt),
    up: String(session.upAt),
    pk: String(session.parkedAt),
    ac: String(session.activeAt),
    en: String(session.endedAt),
    er: session.endReason,
    rx: String(session.rxBytes),
    tx: String(session.txBytes),
    rt: String(session.tunnelRxBytes),
    tt: String(session.tunnelTxBytes),
  };
  const kept = Object.entries(record).filter(([, value]) => value !== '' && value !== '0');
  return { ...Object.fromEntries(kept), n: session.n };
}

export function parseGrant(text: string): GrantText {
  const { grant, origins } = fieldsOf(text);
  return { grant, origins };
}

const STATES: Record<string, Session['state'] | undefined> = {
  a: 'authed',
  u: 'up',
  p: 'parked',
  c: 'closed',
};

function leaseOf(stored: Record<string, unknown>) {
  return {
    name: textOf(stored['ln']),
    incarnation: textOf(stored['li']),
    epoch: digits(stored['le']),
    claimId: textOf(stored['lc']),
  };
}

function fieldsOf(text: string): Record<string, unknown> {
  const value: unknown = JSON.parse(text);
  if (typeof value !== 'object' || value === null) throw new Error('a stored record is no object');
  return Object.fromEntries(Object.entries(value));
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function digits(value: unknown): string {
  return String(whole(value));
}

function whole(value: unknown): bigint {
  return typeof value === 'string' && /^\d{1,20}$/.test(value) ? BigInt(value) : 0n;
}

function positive(value: bigint): bigint {
  return value > 0n ? value : 0n;
}
