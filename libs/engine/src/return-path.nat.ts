import { readFileSync } from 'node:fs';
import { formatCidr, formatRange, parseRange, type AddressRange, type Cidr } from '@sallyport/protocol';
import { NO_RETURN_PATH, type ReturnPath } from './return-path.ts';

/** `nat`: one table translates all tunnels (host.ts); here is what it takes of the machine. */
export const NAT_PATH: ReturnPath = {
  ...NO_RETURN_PATH,
  stats: () => ({
    translation: {
      connections: conntrackNumber('nf_conntrack_count'),
      limit: conntrackNumber('nf_conntrack_max'),
    },
  }),
};

/**
 * The table in nftables' language. Ports are drawn at random, so that nobody outside can guess them; with a range each
 * client keeps one address of it.
 * @param table and `device` are checked names.
 * @param ranges of addresses to translate to, one per family at most; without one it is the address of the way out.
 */
export function translationTable(
  table: string,
  device: string,
  pools: readonly Cidr[],
  ranges: readonly AddressRange[] = [],
): string {
  const rules = (['ipv4', 'ipv6'] as const).map((family) => {
    const own = pools.filter((pool) => pool.family === family).map(formatCidr);
    if (own.length === 0) return '';
    const word = family === 'ipv4' ? 'ip' : 'ip6';
    const range = ranges.find((one) => one.family === family);
    const action = range
      ? `snat ${word} to ${formatRange(range)} fully-random,persistent`
      : 'masquerade fully-random';
    return `    ${word} saddr { ${own.join(', ')} } oifname != "${device}" ${action}\n`;
  });
  return (
    `table inet ${table} {\n  chain postrouting {\n    type nat hook postrouting priority 100; policy accept;\n` +
    `${rules.join('')}  }\n}\n`
  );
}

/** @throws Error if one is not an address or FIRST-LAST: they go into nftables' own language. */
export function natRanges(texts: readonly string[]): AddressRange[] {
  return texts.map((text) => {
    const range = parseRange(text);
    if (!range) throw new Error('The key nat-addresses holds what is no address and no range of addresses.');
    return range;
  });
}

function conntrackNumber(name: string): number {
  try {
    return Number(readFileSync(`/proc/sys/net/netfilter/${name}`, 'latin1'));
  } catch {
    // Without connection tracking there is no translation.
    return 0;
  }
}
