import { cidrContains, formatAddress, gatewayOf, parseCidr, type Cidr } from '@sallyport/protocol';

/** The addresses that clients may have: all of the pools but the gateway's own. */
export class ClientAddresses {
  readonly #pools: Record<4 | 6, Cidr[]>;
  readonly #gateways: ReadonlySet<string>;

  /** @param pools CIDRs. */
  constructor(pools: readonly string[]) {
    const cidrs = pools.map(parseCidr).filter((pool) => pool !== undefined);
    this.#pools = {
      4: cidrs.filter(({ family }) => family === 'ipv4'),
      6: cidrs.filter(({ family }) => family === 'ipv6'),
    };
    this.#gateways = new Set(gatewayAddresses(cidrs));
  }

  /** @param at where the address starts in `packet`. */
  has(packet: Uint8Array, at: number, version: 4 | 6): boolean {
    if (!this.#pools[version].some((pool) => begins(packet, at, pool))) return false;
    return !this.#gateways.has(formatAddress(packet.subarray(at, at + (version === 4 ? 4 : 16))));
  }
}

/** The gateway's address in each pool that lies in no other. */
export function gatewayAddresses(pools: readonly Cidr[]): string[] {
  const outer = pools.filter(
    (pool, at) =>
      !pools.some(
        (other, i) => i !== at && other.prefixLength < pool.prefixLength && cidrContains(other, pool.network),
      ),
  );
  return [...new Set(outer.flatMap((pool) => gatewayOf(pool) ?? []).map(formatAddress))];
}

function begins(packet: Uint8Array, at: number, { network, prefixLength }: Cidr): boolean {
  const whole = prefixLength >>> 3;
  for (let i = 0; i < whole; i += 1) if (packet[at + i] !== network[i]) return false;
  const bits = prefixLength & 7;
  return bits === 0 || (((packet[at + whole] ?? 0) ^ (network[whole] ?? 0)) & (0xff << (8 - bits))) === 0;
}
