import { formatAddress, parseAddress } from '@sallyport/protocol';

/**
 * Clients that a limit takes for one: an IPv4 address, or the /64 of an IPv6 address. A subscriber has at least a /64
 * (RFC 6177 §2), so single IPv6 addresses cost nothing.
 */
export function addressGroup(address: string): string {
  const bytes = address.includes(':') ? parseAddress(address) : undefined;
  if (bytes?.length !== 16) return address;
  return `${formatAddress(Uint8Array.from(bytes, (byte, at) => (at < PREFIX_BYTES ? byte : 0)))}/64`;
}

const PREFIX_BYTES = 8;
