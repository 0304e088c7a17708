/*
 * Sessions by number, so that every process can make and find each of them: as real ones look, with a STRAP key, a host
 * name and a user of its own.
 */
import { createHash, randomUUID } from 'node:crypto';
import { hashToken, type ClaimRequest, type NewSession, type NodeIdentity } from '@sallyport/cluster';
import { sampleGrant, sampleOrigins } from '@sallyport/cluster/testing';

export interface Pools {
  ipv4: string;
  ipv6: string;
}

/** @param seed names this run: other runs have other tokens. */
export function tokenHashOf(seed: string, index: number): string {
  return hashToken(`${seed} ${index}`);
}

export function loginOf(seed: string, index: number, pools: Pools): NewSession {
  return {
    tokenHash: tokenHashOf(seed, index),
    user: `user${String(index).padStart(7, '0')}`,
    profile: 'staff',
    grant: sampleGrant({ ipv4Pools: [pools.ipv4], ipv6Pools: [pools.ipv6] }),
    origins: sampleOrigins(),
    client: clientOf(index),
    strapKey: strapKeyOf(index),
  };
}

export function claimOf(tokenHash: string, index: number, node: NodeIdentity, seenEpoch = 0n): ClaimRequest {
  return {
    tokenHash,
    node,
    connectionId: randomUUID(),
    wantIpv4: true,
    wantIpv6: true,
    client: clientOf(index),
    strapKey: '',
    mtuBytes: 1406,
    seenEpoch,
  };
}

/** Nodes of the fill; their incarnations are fixed, so that every process names the same. */
export function nodeOf(number: number): NodeIdentity {
  return {
    name: `vpn${number}`,
    incarnation: createHash('sha256').update(`node ${number}`).digest('hex').slice(0, 16),
  };
}

function clientOf(index: number) {
  return {
    address: `198.${51 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`,
    userAgent: 'AnyConnect Windows 5.1.6.103',
    platform: 'win',
    hostname: `LAPTOP-${index.toString(36).toUpperCase().padStart(7, '0')}`,
  };
}

/** 91 bytes, as the SPKI of a P-256 key has them, in base64. */
function strapKeyOf(index: number): string {
  const half = (name: string) => createHash('sha256').update(`${name} ${index}`).digest();
  return Buffer.concat([Buffer.alloc(27, 0x30), half('x'), half('y')]).toString('base64');
}
