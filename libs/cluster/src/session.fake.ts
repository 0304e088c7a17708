import type { Grant, GrantOrigins, Origin } from '@sallyport/protocol';
import type { Clock } from './clock.ts';
import { seconds } from './session-decisions.ts';
import type { SessionClient } from './session.ts';
import type { ClaimRequest, NewSession } from './sessions.ts';

/** What tests of sessions need. The defaults of the configuration, with one pool per family. */
export function sampleGrant(changes: Partial<Grant> = {}): Grant {
  return {
    group: 'staff',
    ipv4Pools: ['10.90.0.0/16'],
    ipv6Pools: ['fd00:90::/48'],
    ipv6SubnetPrefix: 128,
    explicitIpv4: '',
    explicitIpv6: '',
    routes: [],
    noRoutes: [],
    dns: ['10.90.0.1'],
    nbns: [],
    defaultDomain: 'example.org',
    splitDns: [],
    tunnelAllDns: false,
    clientBypassProtocol: false,
    mtuBytes: 0,
    dpdSeconds: 20,
    mobileDpdSeconds: 1800,
    keepaliveSeconds: 20,
    idleTimeoutSeconds: 0,
    mobileIdleTimeoutSeconds: 0,
    sessionTimeoutSeconds: 0,
    cookieTimeoutSeconds: 300,
    disconnectedTimeoutSeconds: 1800,
    rekeySeconds: 86_400,
    maxSameClients: 0,
    onLimit: 'refuse',
    banner: '',
    noUdp: false,
    profileFile: '',
    ...changes,
  };
}

export function sampleOrigins(): GrantOrigins {
  const from: Origin = { scope: 'default', name: '' };
  return {
    group: from,
    ipv4Pools: from,
    ipv6Pools: from,
    ipv6SubnetPrefix: from,
    explicitIpv4: from,
    explicitIpv6: from,
    routes: from,
    noRoutes: from,
    dns: from,
    nbns: from,
    defaultDomain: from,
    splitDns: from,
    tunnelAllDns: from,
    clientBypassProtocol: from,
    mtuBytes: from,
    dpdSeconds: from,
    mobileDpdSeconds: from,
    keepaliveSeconds: from,
    idleTimeoutSeconds: from,
    mobileIdleTimeoutSeconds: from,
    sessionTimeoutSeconds: from,
    cookieTimeoutSeconds: from,
    disconnectedTimeoutSeconds: from,
    rekeySeconds: from,
    maxSameClients: from,
    onLimit: from,
    banner: from,
    noUdp: from,
    profileFile: from,
  };
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
