/** Messages of proto/node.proto to and from the shapes of node-service.ts: 64-bit numbers travel as decimal texts. */
import { reasonFrom, WireError } from './auth-wire.ts';
import type { NodeStatus, Release, TunnelInfo } from './node-service.ts';
import { isEpoch, type Micros } from './session.ts';

type WideField = 'epoch' | 'connectedAt' | 'sessionStartedAt' | 'rxBytes' | 'txBytes';
export type TunnelMessage = Omit<TunnelInfo, WideField> & Record<WideField, string>;

export function tunnelMessage(tunnel: TunnelInfo): TunnelMessage {
  return {
    ...tunnel,
    epoch: String(tunnel.epoch),
    connectedAt: String(tunnel.connectedAt),
    sessionStartedAt: String(tunnel.sessionStartedAt),
    rxBytes: String(tunnel.rxBytes),
    txBytes: String(tunnel.txBytes),
  };
}

export function tunnelsFrom(page: unknown): TunnelInfo[] {
  return list(page, 'tunnels').map((item) => {
    const tunnel = item as unknown as TunnelMessage; // the loader made it by the contract
    return {
      ...tunnel,
      epoch: BigInt(tunnel.epoch),
      connectedAt: BigInt(tunnel.connectedAt),
      sessionStartedAt: BigInt(tunnel.sessionStartedAt),
      rxBytes: Number(tunnel.rxBytes),
      txBytes: Number(tunnel.txBytes),
    };
  });
}

export function releasesMessage(releases: readonly Release[]): object {
  return {
    releases: releases.map(({ sessionId, upToEpoch }) => ({ sessionId, upToEpoch: String(upToEpoch) })),
  };
}

/** @param now µs. @throws WireError: also for an epoch that no claim can have given. */
export function releasesFrom(message: unknown, now: Micros): Release[] {
  return list(message, 'releases').map((release) => {
    const upToEpoch = BigInt(String(release['upToEpoch']));
    if (!isEpoch(upToEpoch, now)) throw new WireError('an epoch is far in the future');
    return { sessionId: String(release['sessionId']), upToEpoch };
  });
}

export function disconnectFrom(message: unknown) {
  const { sessionIds, reason } = record(message);
  if (!Array.isArray(sessionIds)) throw new WireError('session ids are missing');
  const known = reasonFrom(reason);
  if (known !== reason) throw new WireError('unknown reason');
  return { sessionIds: sessionIds.map(String), reason: known };
}

export function countFrom(message: unknown): number {
  return Number(record(message)['count']);
}

export function drainingFrom(message: unknown): boolean {
  return record(message)['draining'] === true;
}

export function statusMessage(status: NodeStatus): object {
  return { ...status, startedAt: String(status.startedAt) };
}

export function statusFrom(message: unknown): NodeStatus {
  const status = record(message) as unknown as NodeStatus & { startedAt: string }; // by the contract
  const state = STATES.find((known) => known === status.state);
  if (!state) throw new WireError('a node is in a state that nobody knows');
  return { ...status, state, startedAt: BigInt(status.startedAt) };
}

export function silenceMessage(silentMs: number | undefined): object {
  return { answered: silentMs !== undefined, silentMillis: String(Math.ceil(silentMs ?? 0)) };
}

export function silenceFrom(message: unknown): number | undefined {
  const { answered, silentMillis } = record(message);
  return answered === true ? Number(silentMillis) : undefined;
}

function list(message: unknown, name: string): Record<string, unknown>[] {
  const items = record(message)[name];
  if (!Array.isArray(items)) throw new WireError(`${name} are missing`);
  return items.map(record);
}

function record(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null) throw new WireError('a message is missing');
  return value as Record<string, unknown>;
}

const STATES: readonly NodeStatus['state'][] = ['starting', 'online', 'draining', 'stopping'];
