/*
 * Home: with `return-path: routed` the pools are cut into slices, one for each node. A node gives addresses of its own
 * slice first and announces the slice as a whole; only a session that is away from home has a route of its own
 * (CLUSTER.md C7, docs/decisions/0009-home-slices.md).
 *
 *   slices: 3                 0     1/4    1/2    3/4     1       units: 16
 *     node 1, 5 units         |-------|                           = 1/4 + 1/16
 *     node 2, 5 units                 |-------|                   = 1/16 + 1/8 + 1/8
 *     node 3, 6 units                         |-----------|       = 1/8 + 1/4
 */
import { cidrContains, formatCidr, fromBigint, parseCidr, toBigint, type Cidr } from '@sallyport/protocol';

/**
 * The aggregates of one node's slice of each pool, as few as there can be. Of pools that lie in others only the outer one
 * is cut, so that no two nodes have the same address at home. Slices of one plan never overlap.
 * @param number of the node, from 1; one above `slices` has no home.
 * @param slices 0 = nobody has a home.
 * @returns CIDRs.
 */
export function homeOf(pools: readonly string[], number: number, slices: number): string[] {
  if (number > slices) return [];
  return outerPools(pools).flatMap((pool) => sliceOf(pool, number, slices));
}

/** What nodes must agree on, so that the slice of one is not that of another. */
export function homePlanOf(pools: readonly string[], slices: number): string {
  return slices === 0 ? '' : [`slices ${slices}`, ...outerPools(pools).map(formatCidr).sort()].join(' ');
}

/** Could clients get addresses of this slice? A smaller one lies under network, gateway or broadcast address. */
export function isUsableSlice(prefixLength: number, length: number): boolean {
  return length - prefixLength >= LEAST_SLICE_BITS;
}

function sliceOf({ family, network, prefixLength }: Cidr, number: number, slices: number): string[] {
  const bits = network.length * 8;
  const exact = Math.ceil(Math.log2(slices));
  const finer = 2 ** exact === slices ? exact : exact + FINER_BITS;
  const unitBits = Math.min(finer, bits - prefixLength);
  const units = 2 ** unitBits;
  const end = Math.floor((units * number) / slices);
  const found: string[] = [];
  for (let at = Math.floor((units * (number - 1)) / slices); at < end;) {
    let sizeBits = unitBits;
    while (at % 2 ** sizeBits !== 0 || at + 2 ** sizeBits > end) sizeBits -= 1;
    const offset = BigInt(at) << BigInt(bits - prefixLength - unitBits);
    const first = fromBigint(toBigint(network) + offset, network.length);
    found.push(formatCidr({ family, network: first, prefixLength: prefixLength + unitBits - sizeBits }));
    at += 2 ** sizeBits;
  }
  return found;
}

function outerPools(pools: readonly string[]): Cidr[] {
  const distinct = [...new Set(pools.map(parseCidr).flatMap((pool) => (pool ? [formatCidr(pool)] : [])))];
  const cidrs = distinct.map(parseCidr).filter((pool) => pool !== undefined);
  return cidrs.filter(
    (pool) =>
      !cidrs.some((other) => other.prefixLength < pool.prefixLength && cidrContains(other, pool.network)),
  );
}

/** With a number of slices that is no power of two their sizes differ by less than one unit, a quarter of the mean. */
const FINER_BITS = 2;
const LEAST_SLICE_BITS = 3;
/** Slices that a cluster may have. */
export const MAX_SLICES = 256;
