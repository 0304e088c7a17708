/*
 * Which addresses a session gets, in this order:
 *   1. those that it has: they stay until it ends, whatever the configuration says now
 *   2. the fixed one of its user
 *   3. the last one of its user and profile, when it is free: a hint, not a reservation
 *   4. a free one, pool after pool: at random among those never used (CLUSTER.md C1: never "the first"), then the one
 *      that rests longest; one that another user had less than REUSE_DELAY_SECONDS ago only when nothing else is left.
 *      3 and 4 never give a reserved one: it is the fixed address of somebody who may come
 * A node that has a home (home-slices.ts) looks there first, with 3 and with 4.
 *
 * Of a pool clients never get the network address, the IPv4 broadcast address and the first host, which is the
 * gateway's (`gatewayOf`). In a /31 and a /127 that is the lower one. A pool of one address gives it to a client.
 * With IPv6 each client gets a prefix (64 to 128 bits), and the first of the pool stays free, because network and
 * gateway address lie in it; the client's own address is the first host of its prefix.
 *
 * Inside, an address is a bigint and a block is an address without its host bits.
 */
import { randomBytes, randomInt } from 'node:crypto';
import {
  familyOf,
  formatAddress,
  fromBigint,
  parseAddress as parseBytes,
  parseCidr as parseBlock,
  toBigint,
  type Grant,
  type Reason,
} from '@sallyport/protocol';
import { isUsableSlice } from './home-slices.ts';
import type { Families, Family } from './session-decisions.ts';
import { FAMILIES, seconds } from './session-decisions.ts';
import type { Micros, Session, SessionAddresses } from './session.ts';
import type { PoolUse } from './sessions.ts';

/** All addresses that sessions hold, and those that rest. */
export class AddressBook {
  readonly #spaces: Record<Family, AddressSpace>;

  /** @param random a number from 0 to below `limit`. */
  constructor(random: (limit: bigint) => bigint = randomBelow) {
    this.#spaces = {
      ipv4: new AddressSpace(32, random),
      ipv6: new AddressSpace(128, random),
    };
  }

  /** @returns what the session has afterwards: both families that it holds, also one that is not asked for now. */
  choose(session: Session, families: Families, now: Micros): SessionAddresses | Reason {
    const chosen = { ...session.addresses };
    for (const family of FAMILIES) {
      if (!families[family] || chosen[family] !== '') continue;
      const picked = this.#spaces[family].choose(wishOf(session, family), now);
      if (!picked.ok) return picked.reason;
      chosen[family] = picked.address;
    }
    return chosen;
  }

  /** @throws Error when another session holds them: two of them in one table are a fault. */
  hold(session: Session): void {
    for (const family of FAMILIES) {
      const address = session.addresses[family];
      if (address !== '') this.#spaces[family].hold(address, lengthOf(session.grant, family), session);
    }
  }

  release(session: Session, now: Micros): void {
    for (const family of FAMILIES) {
      const address = session.addresses[family];
      if (address !== '')
        this.#spaces[family].release(address, lengthOf(session.grant, family), session, now);
    }
  }

  /** @returns the id of the session that holds the fixed address of this grant. */
  fixedHolder(grant: Grant, family: Family): string | undefined {
    const address = family === 'ipv4' ? grant.explicitIpv4 : grant.explicitIpv6;
    return address === '' ? undefined : this.#spaces[family].holder(address, lengthOf(grant, family));
  }

  /** Could the pools of this grant give the address of `holder`, if it were free? */
  mayPass(holder: Session, to: Grant, family: Family): boolean {
    const address = holder.addresses[family];
    const pools = family === 'ipv4' ? to.ipv4Pools : to.ipv6Pools;
    return address !== '' && this.#spaces[family].mayGive(address, lengthOf(to, family), pools);
  }

  /** @param addresses fixed ones of the configuration: pools give them to nobody. Who holds one keeps it. */
  reserve(addresses: readonly string[]): void {
    const values = { ipv4: new Set<bigint>(), ipv6: new Set<bigint>() };
    for (const address of addresses) values[familyOf(bytesOf(address))].add(parseAddress(address));
    for (const family of FAMILIES) this.#spaces[family].reserve(values[family]);
  }

  /** @param prefixes CIDRs: the home of the node that claims. */
  settle(prefixes: readonly string[]): void {
    const blocks = prefixes.map(parseCidr);
    this.#spaces.ipv4.settle(blocks.filter((block) => block.bits === 32));
    this.#spaces.ipv6.settle(blocks.filter((block) => block.bits === 128));
  }

  /** The pools of these grants. */
  use(grants: Iterable<PoolChoice>): PoolUse[] {
    const pools = new Map<string, PoolUse>();
    for (const grant of grants) {
      for (const family of FAMILIES) {
        const length = lengthOf(grant, family);
        for (const cidr of family === 'ipv4' ? grant.ipv4Pools : grant.ipv6Pools) {
          const key = `${cidr} ${length}`;
          if (pools.has(key)) continue;
          const pool = this.#spaces[family].pool(cidr, length);
          pools.set(key, { pool: cidr, family, size: pool.size, used: pool.used });
        }
      }
    }
    return [...pools.values()];
  }

  /** What rests, longest first: the hints, for a journal. */
  hints(): Hint[] {
    return [...this.#spaces.ipv4.hints('ipv4'), ...this.#spaces.ipv6.hints('ipv6')];
  }

  /** Puts a hint back, in the order of `hints`. */
  hint(hint: Hint): void {
    this.#spaces[hint.family].rest(hint);
  }
}

/** These pools as they are when nobody has an address yet. */
export function unusedPools(grants: Iterable<PoolChoice>): PoolUse[] {
  return new AddressBook().use(grants);
}

export type PoolChoice = Pick<Grant, 'ipv4Pools' | 'ipv6Pools' | 'ipv6SubnetPrefix'>;

/** An address that rests: who had it last, and until when. */
export interface Hint {
  family: Family;
  address: string;
  /** Bits of the client's prefix. */
  length: number;
  user: string;
  profile: string;
  freedAt: Micros;
}

/** Longer than a cut-off node may go on with an address (CLUSTER.md C3: 10 s) and a minute on top (C13). */
export const REUSE_DELAY_SECONDS = 70;
/** Resting addresses that are remembered per family; above it the longest resting is forgotten. */
export const RESTING_LIMIT = 65_536;
/** Random draws before the search goes from place to place. */
export const RANDOM_DRAWS = 64;

interface Wish {
  fixed: string;
  pools: readonly string[];
  length: number;
  user: string;
  profile: string;
}

export interface Pool {
  /** First and last block that a client may get; none when last < first. */
  first: bigint;
  last: bigint;
  length: number;
  size: bigint;
  used: number;
  resting: number;
}

interface Resting {
  address: string;
  block: bigint;
  length: number;
  user: string;
  profile: string;
  freedAt: Micros;
}

type Picked = { ok: true; address: string } | { ok: false; reason: Reason };

/** One family: which blocks are taken, which rest. */
class AddressSpace {
  readonly #bits: number;
  readonly #random: (limit: bigint) => bigint;
  /** By length of the client's prefix: block to session id. */
  readonly #taken = new Map<number, Map<bigint, string>>();
  /** By length: block to number of taken blocks inside it that are smaller. Only IPv6 has several lengths. */
  readonly #inside = new Map<number, Map<bigint, number>>();
  readonly #pools = new Map<string, Pool>();
  #home: readonly AddressBlock[] = [];
  /** By pool and length: its parts that are at home. Filled when asked for. */
  readonly #homeParts = new Map<string, readonly Pool[]>();
  #reserved: ReadonlySet<bigint> = new Set();
  /** By length: the blocks that reserved addresses lie in. Filled when asked for. */
  readonly #reservedBlocks = new Map<number, Set<bigint>>();
  /** Free addresses that somebody had, longest resting first; key of `blockKey`. */
  readonly #resting = new Map<string, Resting>();
  /** The newest resting address of a user and profile. */
  readonly #lastOf = new Map<string, Resting>();

  constructor(bits: number, random: (limit: bigint) => bigint) {
    this.#bits = bits;
    this.#random = random;
  }

  choose(wish: Wish, now: Micros): Picked {
    if (wish.fixed !== '') {
      const block = this.#block(wish.fixed, wish.length);
      return this.#isFree(block, wish.length)
        ? { ok: true, address: canonical(wish.fixed) }
        : { ok: false, reason: 'address-taken' };
    }
    const pools = wish.pools.map((cidr) => this.pool(cidr, wish.length));
    const home = wish.pools.flatMap((cidr) => this.#partsAtHome(cidr, wish.length));
    const block =
      this.#sticky(wish, home) ??
      this.#unhurried(home, wish, now) ??
      this.#sticky(wish, pools) ??
      this.#unhurried(pools, wish, now) ??
      firstOf(pools, (pool) => this.#rested(pool, wish, now));
    if (block === undefined) return { ok: false, reason: 'pool-empty' };
    return { ok: true, address: this.#address(block, wish.length) };
  }

  settle(home: readonly AddressBlock[]): void {
    this.#home = home;
    this.#homeParts.clear();
  }

  reserve(addresses: ReadonlySet<bigint>): void {
    this.#reserved = addresses;
    this.#reservedBlocks.clear();
  }

  mayGive(address: string, length: number, pools: readonly string[]): boolean {
    const block = this.#block(address, length);
    return !this.#isReserved(block, length) && pools.some((cidr) => holds(this.pool(cidr, length), block));
  }

  hold(address: string, length: number, session: Session): void {
    const block = this.#block(address, length);
    if (!this.#isFree(block, length))
      throw new Error(`session ${session.id}: its address is held by another session`);
    this.#ofLength(length).set(block, session.id);
    this.#count(block, length, 1);
    const resting = this.#resting.get(blockKey(block, length));
    if (resting !== undefined) this.#forget(resting);
  }

  release(address: string, length: number, session: Session, now: Micros): void {
    const block = this.#block(address, length);
    if (this.#taken.get(length)?.get(block) !== session.id) return;
    this.#ofLength(length).delete(block);
    this.#count(block, length, -1);
    this.rest({ address, length, user: session.user, profile: session.profile, freedAt: now });
  }

  rest(hint: Omit<Hint, 'family'>): void {
    const block = this.#block(hint.address, hint.length);
    const key = blockKey(block, hint.length);
    if (this.#resting.has(key) || !this.#isFree(block, hint.length)) return;
    const resting = { ...hint, block };
    this.#resting.set(key, resting);
    this.#lastOf.set(userKey(hint), resting);
    this.#forPools(block, hint.length, (pool) => pool.resting++);
    if (this.#resting.size <= RESTING_LIMIT) return;
    for (const oldest of this.#resting.values()) return this.#forget(oldest);
  }

  holder(address: string, length: number): string | undefined {
    return this.#taken.get(length)?.get(this.#block(address, length));
  }

  hints(family: Family): Hint[] {
    return Array.from(this.#resting.values(), ({ block: _block, ...hint }) => ({ family, ...hint }));
  }

  pool(cidr: string, length: number): Pool {
    const key = `${cidr} ${length}`;
    const known = this.#pools.get(key);
    if (known !== undefined) return known;
    const pool = this.#counted(parsePool(cidr, length));
    this.#pools.set(key, pool);
    return pool;
  }

  #counted(pool: Pool): Pool {
    for (const block of this.#taken.get(pool.length)?.keys() ?? []) if (holds(pool, block)) pool.used++;
    for (const resting of this.#resting.values()) {
      if (resting.length === pool.length && holds(pool, resting.block)) pool.resting++;
    }
    return pool;
  }

  #partsAtHome(cidr: string, length: number): readonly Pool[] {
    const key = `${cidr} ${length}`;
    const known = this.#homeParts.get(key);
    if (known !== undefined) return known;
    const parts = partsAtHome(cidr, length, this.#home).map((part) => this.#counted(part));
    this.#homeParts.set(key, parts);
    return parts;
  }

  /** The last one of the user and profile. */
  #sticky(wish: Wish, pools: readonly Pool[]): bigint | undefined {
    const last = this.#lastOf.get(userKey(wish));
    if (last?.length !== wish.length || !pools.some((pool) => holds(pool, last.block))) return undefined;
    return this.#isOpen(last.block, last.length) ? last.block : undefined;
  }

  /** One that no other user had lately. */
  #unhurried(pools: readonly Pool[], wish: Wish, now: Micros): bigint | undefined {
    const until = now - seconds(REUSE_DELAY_SECONDS);
    return firstOf(pools, (pool) => this.#neverUsed(pool) ?? this.#rested(pool, wish, until));
  }

  #neverUsed(pool: Pool): bigint | undefined {
    if (pool.size <= BigInt(pool.used + pool.resting)) return undefined;
    const free = (block: bigint) =>
      this.#isOpen(block, pool.length) && !this.#resting.has(blockKey(block, pool.length));
    for (let draw = 0; draw < RANDOM_DRAWS; draw++) {
      const block = pool.first + this.#random(pool.size);
      if (free(block)) return block;
    }
    // Nearly full: from a random place on. As many steps as there are busy blocks, and one more, must find a free one
    // (except under a taken block that is larger; there the draws are the search).
    const start = this.#random(pool.size);
    let busy = BigInt(pool.used + pool.resting + this.#reserved.size);
    for (const [length, taken] of this.#taken) if (length > pool.length) busy += BigInt(taken.size);
    for (let step = 0n; step < pool.size && step <= busy; step++) {
      const block = pool.first + ((start + step) % pool.size);
      if (free(block)) return block;
    }
    return undefined;
  }

  /** The longest resting of the pool that is free since `until`, or was this user's own. */
  #rested(pool: Pool, wish: Wish, until: Micros): bigint | undefined {
    if (pool.resting === 0) return undefined;
    for (const resting of this.#resting.values()) {
      if (resting.length !== pool.length || !holds(pool, resting.block)) continue;
      if (resting.freedAt > until && resting.user !== wish.user) continue;
      if (this.#isOpen(resting.block, resting.length)) return resting.block;
    }
    return undefined;
  }

  /** Free for whom it is not the fixed one. */
  #isOpen(block: bigint, length: number): boolean {
    return !this.#isReserved(block, length) && this.#isFree(block, length);
  }

  #isReserved(block: bigint, length: number): boolean {
    let reserved = this.#reservedBlocks.get(length);
    if (reserved === undefined) {
      reserved = new Set(Array.from(this.#reserved, (address) => address >> BigInt(this.#bits - length)));
      this.#reservedBlocks.set(length, reserved);
    }
    return reserved.has(block);
  }

  #isFree(block: bigint, length: number): boolean {
    this.#ofLength(length); // counts what lies inside blocks of this length, from now on
    for (const [other, taken] of this.#taken) {
      if (other <= length && taken.has(block >> BigInt(length - other))) return false;
    }
    return !this.#inside.get(length)?.has(block);
  }

  #ofLength(length: number): Map<bigint, string> {
    const known = this.#taken.get(length);
    if (known !== undefined) return known;
    const inside = new Map<bigint, number>();
    for (const [other, taken] of this.#taken) {
      if (other > length) for (const block of taken.keys()) add(inside, block >> BigInt(other - length), 1);
    }
    const taken = new Map<bigint, string>();
    this.#taken.set(length, taken);
    this.#inside.set(length, inside);
    return taken;
  }

  #count(block: bigint, length: number, by: 1 | -1): void {
    for (const [other, inside] of this.#inside) {
      if (other < length) add(inside, block >> BigInt(length - other), by);
    }
    this.#forPools(block, length, (pool) => (pool.used += by));
  }

  #forget(resting: Resting): void {
    this.#resting.delete(blockKey(resting.block, resting.length));
    if (this.#lastOf.get(userKey(resting)) === resting) this.#lastOf.delete(userKey(resting));
    this.#forPools(resting.block, resting.length, (pool) => pool.resting--);
  }

  #forPools(block: bigint, length: number, change: (pool: Pool) => void): void {
    for (const pool of this.#pools.values()) if (pool.length === length && holds(pool, block)) change(pool);
    for (const parts of this.#homeParts.values())
      for (const part of parts) if (part.length === length && holds(part, block)) change(part);
  }

  #block(address: string, length: number): bigint {
    return parseAddress(address) >> BigInt(this.#bits - length);
  }

  #address(block: bigint, length: number): string {
    const network = block << BigInt(this.#bits - length);
    return format(length === this.#bits ? network : network + 1n, this.#bits);
  }
}

function wishOf(session: Session, family: Family): Wish {
  const { grant, user, profile } = session;
  return {
    fixed: family === 'ipv4' ? grant.explicitIpv4 : grant.explicitIpv6,
    pools: family === 'ipv4' ? grant.ipv4Pools : grant.ipv6Pools,
    length: lengthOf(grant, family),
    user,
    profile,
  };
}

export function lengthOf(grant: PoolChoice, family: Family): number {
  return family === 'ipv4' ? 32 : grant.ipv6SubnetPrefix;
}

export function parsePool(cidr: string, length: number): Pool {
  const { bits, base, prefix } = parseCidr(cidr);
  const from = base >> BigInt(bits - length);
  const count = length < prefix ? 0n : 1n << BigInt(length - prefix);
  let first = from;
  let last = from + count - 1n;
  if (length < bits) {
    first += 1n;
  } else if (count === 2n) {
    first += 1n; // RFC 3021, RFC 6164: no network and no broadcast address
  } else if (count > 2n) {
    first += 2n;
    if (bits === 32) last -= 1n;
  }
  const size = last < first ? 0n : last - first + 1n;
  return { first, last, length, size, used: 0, resting: 0 };
}

/** Of a pool what is at home: all of it, or the slices that lie in it. */
function partsAtHome(cidr: string, length: number, home: readonly AddressBlock[]): Pool[] {
  const whole = parseCidr(cidr);
  const pool = parsePool(cidr, length);
  if (home.some((slice) => slice.prefix <= whole.prefix && covers(slice, whole.base))) return [pool];
  const host = BigInt(whole.bits - length);
  return home
    .filter((slice) => isUsableSlice(slice.prefix, length) && covers(whole, slice.base))
    .map((slice) => {
      const from = slice.base >> host;
      const to = from + (1n << BigInt(length - slice.prefix)) - 1n;
      const first = from > pool.first ? from : pool.first;
      const last = to < pool.last ? to : pool.last;
      return { first, last, length, size: last < first ? 0n : last - first + 1n, used: 0, resting: 0 };
    });
}

function covers(block: AddressBlock, address: bigint): boolean {
  const host = BigInt(block.bits - block.prefix);
  return block.base >> host === address >> host;
}

function firstOf<T>(pools: readonly Pool[], find: (pool: Pool) => T | undefined): T | undefined {
  for (const pool of pools) {
    const found = find(pool);
    if (found !== undefined) return found;
  }
  return undefined;
}

function holds(pool: Pool, block: bigint): boolean {
  return block >= pool.first && block <= pool.last;
}

interface AddressBlock {
  /** Of an address. */
  bits: number;
  base: bigint;
  prefix: number;
}

function parseCidr(cidr: string): AddressBlock {
  const block = parseBlock(cidr);
  if (!block) throw new Error(`${cidr} is no block of addresses`);
  return { bits: block.network.length * 8, base: toBigint(block.network), prefix: block.prefixLength };
}

function parseAddress(address: string): bigint {
  return toBigint(bytesOf(address));
}

function canonical(address: string): string {
  return formatAddress(bytesOf(address));
}

function format(value: bigint, bits: number): string {
  return formatAddress(fromBigint(value, bits / 8));
}

function bytesOf(address: string): Uint8Array {
  const bytes = parseBytes(address);
  if (!bytes) throw new Error(`${address} is no address`);
  return bytes;
}

function add(counts: Map<bigint, number>, block: bigint, by: number): void {
  const count = (counts.get(block) ?? 0) + by;
  if (count === 0) counts.delete(block);
  else counts.set(block, count);
}

function blockKey(block: bigint, length: number): string {
  return `${block}/${length}`;
}

function userKey(of: { user: string; profile: string }): string {
  return JSON.stringify([of.user, of.profile]);
}

function randomBelow(limit: bigint): bigint {
  if (limit <= RANDOM_INT_LIMIT) return limit < 2n ? 0n : BigInt(randomInt(Number(limit)));
  // At most 2^-64 away from even: the number has 64 bits more than the limit.
  const bytes = Math.ceil(limit.toString(2).length / 8) + 8;
  return BigInt(`0x${randomBytes(bytes).toString('hex')}`) % limit;
}

/** What `randomInt` takes. */
const RANDOM_INT_LIMIT = 2n ** 48n - 1n;
