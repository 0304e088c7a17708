/*
 * What scripts need of a Grant, worked out once when a session is made: lifetimes in µs, limits, and the pools as
 * ranges of blocks. A block is an address without its host bits, in hex; `lua/addresses.lua` computes with them.
 */
import { createHash } from 'node:crypto';
import {
  familyOf,
  formatAddress,
  fromBigint,
  parseAddress,
  parseCidr,
  toBigint,
  type Grant,
  type GrantOrigins,
} from '@sallyport/protocol';
import { lengthOf, parsePool } from './addresses.ts';
import { seconds, TOMBSTONE_MIN_SECONDS, type Family } from './session-decisions.ts';
import { SESSION_VERSION, type Session } from './session.ts';

/** A grant as Redis keeps it, shared by all sessions that have the same. */
export interface StoredGrant {
  /** Hash of its content. */
  key: string;
  /** JSON of `{ v, grant, origins }`. */
  grant: string;
  /** JSON for the scripts. */
  plan: string;
}

/** Remembers: most sessions share a grant. */
export function storedGrant(grant: Grant, origins: GrantOrigins): StoredGrant {
  const text = JSON.stringify({ v: SESSION_VERSION, grant, origins });
  const known = STORED.get(text);
  if (known !== undefined) return known;
  const stored = { key: contentHash(text), grant: text, plan: JSON.stringify(planOf(grant)) };
  if (STORED.size >= STORED_LIMIT) STORED.clear();
  STORED.set(text, stored);
  return stored;
}

const STORED = new Map<string, StoredGrant>();
const STORED_LIMIT = 1024;

/** Clients that fit into a pool. */
export function poolSize(cidr: string, length: number): bigint {
  return parsePool(cidr, length).size;
}

/** The client's own address in a block. @param entry block and length, in hex, as the scripts keep it; '' = none. */
export function addressOf(entry: string): string {
  if (entry === '') return '';
  const bits = (entry.length - ENTRY_LENGTH) * 4;
  const value = BigInt(`0x${entry.slice(0, -ENTRY_LENGTH)}`);
  const length = Number.parseInt(entry.slice(-ENTRY_LENGTH), 16);
  return formatAddress(fromBigint(length < bits ? value + 1n : value, bits / 8));
}

export function blocksOf({ addresses, grant }: Session): { 4: string; 6: string } {
  const block = (text: string, family: Family) =>
    text === '' ? '' : fixedOf(text, lengthOf(grant, family)).fixed;
  return { 4: block(addresses.ipv4, 'ipv4'), 6: block(addresses.ipv6, 'ipv6') };
}

/** Fixed addresses of the configuration as the scripts keep them, under a name of this list. */
export interface ReservedList {
  /** Hash of its content; '' = nothing is reserved. */
  tag: string;
  /** Family and address in hex, sorted. */
  members: string[];
}

export function reservedList(addresses: readonly string[]): ReservedList {
  const members = [...new Set(addresses.map(reservedMember))].sort();
  return { tag: members.length === 0 ? '' : contentHash(members.join(' ')), members };
}

/** The home of a node as the scripts take it, by family: first and last address of each slice, in hex. */
export type HomeRanges = Record<4 | 6, { first: string; last: string; prefix: number }[]>;

/** @param prefixes CIDRs. */
export function homeRanges(prefixes: readonly string[]): HomeRanges {
  const ranges: HomeRanges = { 4: [], 6: [] };
  for (const cidr of prefixes) {
    const block = parseCidr(cidr);
    if (block === undefined) throw new Error(`${cidr} is no block of addresses`);
    const bits = block.network.length * 8;
    const first = toBigint(block.network);
    const last = first + (1n << BigInt(bits - block.prefixLength)) - 1n;
    ranges[block.family === 'ipv4' ? 4 : 6].push({
      first: hex(first, bits),
      last: hex(last, bits),
      prefix: block.prefixLength,
    });
  }
  return ranges;
}

function reservedMember(text: string): string {
  const address = parseAddress(text);
  if (address === undefined) throw new Error(`${text} is no address`);
  return `${familyOf(address) === 'ipv4' ? 4 : 6}${hex(toBigint(address), address.length * 8)}`;
}

function contentHash(text: string): string {
  return createHash('sha256').update(text).digest('base64url').slice(0, CONTENT_KEY_LENGTH);
}

function planOf(grant: Grant) {
  return {
    v: SESSION_VERSION,
    cookie: micros(grant.cookieTimeoutSeconds),
    disconnected: micros(grant.disconnectedTimeoutSeconds),
    session: micros(grant.sessionTimeoutSeconds),
    tombstone: micros(Math.max(grant.cookieTimeoutSeconds, TOMBSTONE_MIN_SECONDS)),
    maxSame: grant.maxSameClients,
    onLimit: grant.onLimit,
    4: familyPlan(grant, 'ipv4', grant.explicitIpv4, grant.ipv4Pools),
    6: familyPlan(grant, 'ipv6', grant.explicitIpv6, grant.ipv6Pools),
  };
}

function familyPlan(grant: Grant, family: Family, fixed: string, pools: readonly string[]) {
  const length = lengthOf(grant, family);
  return {
    length,
    ...(fixed === '' ? {} : fixedOf(fixed, length)),
    pools: pools.map((cidr) => rangeOf(cidr, length)),
  };
}

function fixedOf(text: string, length: number) {
  const address = parseAddress(text);
  if (address === undefined) throw new Error(`${text} is no address`);
  const bits = address.length * 8;
  const host = BigInt(bits - length);
  return {
    fixed: hex((toBigint(address) >> host) << host, bits),
    fixedAddress: formatAddress(address),
  };
}

function rangeOf(cidr: string, length: number) {
  const block = parseCidr(cidr);
  if (block === undefined) throw new Error(`${cidr} is no block of addresses`);
  const bits = block.network.length * 8;
  const base = toBigint(block.network);
  const { first, last, size } = parsePool(cidr, length);
  const shift = BigInt(bits - length);
  return {
    cidr,
    base: hex(base, bits),
    first: hex(first << shift, bits),
    last: size === 0n ? '' : hex(last << shift, bits),
    from: Number(first - (base >> shift)),
    size: Number(size),
    bits: Math.max(0, length - block.prefixLength),
    shift: Number(shift),
  };
}

function hex(value: bigint, bits: number): string {
  return value.toString(16).padStart(bits / 4, '0');
}

function micros(length: number): number {
  return Number(seconds(length));
}

/** Hex digits of the length after a block. */
const ENTRY_LENGTH = 2;
/** Characters of a content hash: 126 bits. */
const CONTENT_KEY_LENGTH = 21;
