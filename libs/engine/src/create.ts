import { ClientAddresses } from './client-addresses.ts';
import { openTun } from './device.tuntap.ts';
import type { Engine } from './engine.ts';
import { PortableEngine } from './portable.ts';

export interface EngineSettings {
  engine: 'auto' | 'portable' | 'native';
  /** Name of the TUN device. */
  device: string;
  /** CIDRs of all pools, IPv4 and IPv6: the device gets the first host of each. */
  pools: readonly string[];
  /** Whether the device gets the routes of the pools; default yes. With `return-path: routed` each tunnel has its own. */
  poolRoutes?: boolean;
  /** Whether clients reach each other; default yes. */
  clientToClient?: boolean;
  /** MTU of the device; default `DEVICE_MTU_BYTES`. Smaller tunnels have their own. */
  mtuBytes?: number;
  /** Somebody took the device away: no packet passes any more, and the process should end with an error. */
  onLost?: () => void;
  /** Somebody had set the device down or taken its routes away; they are there again. */
  onRestored?: () => void;
}

/** Opens the device. @throws Error with one sentence for the operator. */
export async function createEngine(settings: EngineSettings): Promise<Engine> {
  if (settings.engine === 'native') throw new Error(NATIVE_MISSING);
  const { device, pools, poolRoutes = true, mtuBytes = DEVICE_MTU_BYTES, onLost, onRestored } = settings;
  const tun = await openTun({ device, pools, poolRoutes, mtuBytes, onLost, onRestored });
  return new PortableEngine(tun, settings.clientToClient === false ? new ClientAddresses(pools) : undefined);
}

export const NATIVE_MISSING = 'The native engine is not built yet: set engine to auto or portable.';

export const DEVICE_MTU_BYTES = 1500;
