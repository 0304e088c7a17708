import type { Grant, GrantOrigins, Origin } from '@sallyport/protocol';
import type { Clock } from './clock.ts';
import { DEFAULT_GRANT, forGrantFields } from './grant-fields.ts';
import { seconds } from './session-decisions.ts';
import type { SessionClient } from './session.ts';
import type { ClaimRequest, NewSession } from './sessions.ts';

/** The defaults of the configuration, with one pool per family and no limit. */
export function sampleGrant(changes: Partial<Grant> = {}): Grant {
  return {
    ...DEFAULT_GRANT,
    group: 'staff',
    ipv4Pools: ['10.90.0.0/16'],
    ipv6Pools: ['fd00:90::/48'],
    dns: ['10.90.0.1'],
    defaultDomain: 'example.org',
    maxSameClients: 0,
    ...changes,
  };
}

export function sampleOrigins(): GrantOrigins {
  return forGrantFields((): Origin => ({ scope: 'default', name: '' }));
}

export const sampleClient: SessionClient = {
  address: '192.0.2.7',
  userAgent: 'AnyConnect Windows 4.10',
  platform: 'win',
  hostname: 'laptop',
};

export function sampleLogin(tokenHash: string, user = 'alice', grant: Partial<Grant> = {}): NewSession {
  return {
    tokenHash,
    user,
    profile: 'staff',
    grant: sampleGrant(grant),
    origins: sampleOrigins(),
    client: sampleClient,
    strapKey: '',
  };
}

export function sampleClaim(
  tokenHash: string,
  connectionId: string,
  changes: Partial<ClaimRequest> = {},
): ClaimRequest {
  return {
    tokenHash,
    node: { name: 'n1', incarnation: 'i1' },
    connectionId,
    wantIpv4: true,
    wantIpv6: true,
    client: sampleClient,
    strapKey: '',
    mtuBytes: 1400,
    seenEpoch: 0n,
    ...changes,
  };
}

/** A clock that stands still until it is moved. */
export class TestClock {
  #now: bigint;

  constructor(now = 1_800_000_000_000_000n) {
    this.#now = now;
  }

  get read(): Clock {
    return () => this.#now;
  }

  get now(): bigint {
    return this.#now;
  }

  pass(span: number): void {
    this.#now += seconds(span);
  }
}
