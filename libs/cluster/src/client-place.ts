import { formatAddress, fromBigint, parseAddress, toBigint } from '@sallyport/protocol';

/**
 * What a limit per client address counts by: the IPv4 address, or the /64 of an IPv6 address, because that is the least
 * that one client is given (RFC 6177) and it may use all addresses of it. A mapped IPv4 address is that one.
 * @returns text that is no address stays as it is.
 */
export function clientPlace(address: string): string {
  const bytes = parseAddress(address);
  if (bytes === undefined || bytes.length === 4) return address;
  const value = toBigint(bytes);
  if (value >> 32n === MAPPED) return formatAddress(fromBigint(value, 4));
  return `${formatAddress(fromBigint((value >> 64n) << 64n, 16))}/64`;
}

/** ::ffff:0:0/96, RFC 4291 §2.5.5.2. */
const MAPPED = 0xffffn;
