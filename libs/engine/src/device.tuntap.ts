import { closeSync, read, readFileSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { setTimeout as delay } from 'node:timers/promises';
import { formatCidr, parseCidr } from '@sallyport/protocol';
import { gatewayAddresses } from './client-addresses.ts';
import { CommandFailed, run } from './commands.ts';
import { hostRoutes, isRecord, upAddresses } from './ip-command.ts';
import { DEVICE_QUEUE_PACKETS, type PacketDevice } from './portable.ts';

/**
 * The TUN device by the package `tuntap2`; the only file on it.
 *
 * 1. The package opens /dev/net/tun; the kernel names the device.
 * 2. It gets our name, MTU and queue, the gateway's address in each pool, and a route for each pool if these are wanted.
 * 3. One read at a time, into one buffer. It sits in a thread of libuv's pool all the time: UV_THREADPOOL_SIZE ≥ 8.
 * 4. Deleting the device ends the waiting read; then the descriptor is closed. When the process dies the kernel does
 *    both, and its addresses and routes go with it.
 *
 * While it is open it is looked at: somebody who sets it down and up takes its routes away (`keepConfigured`).
 *
 * The streams of the package are not used: they allocate 64 KiB per packet, and a write after their end is a fault.
 */
export async function openTun(settings: TunSettings): Promise<PacketDevice> {
  const tun = openDevice();
  try {
    await nameDevice(tun.name, settings.device);
    await configureDevice(settings);
  } catch (error) {
    closeSync(tun.fd);
    throw error;
  }
  return new TunDevice(settings, tun.fd);
}

export interface TunSettings {
  /** Name of the device, at most 15 characters. */
  device: string;
  mtuBytes: number;
  /** CIDRs of all pools, IPv4 and IPv6. */
  pools: readonly string[];
  /** Whether the device takes all packets for the pools; else whoever sets routes of tunnels says which. */
  poolRoutes: boolean;
  /** Somebody took the device away, for example by `ip link delete`: no packet passes any more. */
  onLost?: (() => void) | undefined;
  /** Somebody set it down or took routes away: it is as it was again. */
  onRestored?: (() => void) | undefined;
}

class TunDevice implements PacketDevice {
  readonly name: string;
  readonly #fd: number;
  readonly #settings: TunSettings;
  readonly #watch: NodeJS.Timeout;
  readonly #buffer = Buffer.allocUnsafeSlow(MAX_PACKET_BYTES);
  #queueDrops = 0;
  #closing: Promise<void> | undefined;
  #checking: Promise<void> | undefined;
  /** Ends when the last read has come back. */
  #reading: Promise<void> = Promise.resolve();

  constructor(settings: TunSettings, fd: number) {
    this.name = settings.device;
    this.#fd = fd;
    this.#settings = settings;
    this.#watch = setInterval(() => {
      this.#checking ??= this.#keepConfigured();
    }, WATCH_MS);
    this.#watch.unref();
  }

  start(onPacket: (packet: Uint8Array) => void): void {
    this.#reading = new Promise((stopped) => {
      const next = () => {
        read(this.#fd, this.#buffer, 0, MAX_PACKET_BYTES, null, (error, length) => {
          if (this.#closing || (error && !TRANSIENT.has(error.code ?? ''))) {
            stopped();
            if (!this.#closing) this.#settings.onLost?.();
            return;
          }
          try {
            if (!error && length > 0) onPacket(this.#buffer.subarray(0, length));
          } finally {
            // The buffer is free again; a fault in one tunnel does not stop the others.
            next();
          }
        });
      };
      next();
    });
  }

  write(packet: Uint8Array): boolean {
    if (this.#closing) return false;
    try {
      writeSync(this.#fd, packet);
      return true;
    } catch {
      // The kernel refuses single packets (EINVAL) and all of them while the device is down (EIO).
      return false;
    }
  }

  queueDrops(): number {
    if (this.#closing) return this.#queueDrops;
    const line = readFileSync('/proc/net/dev', 'latin1')
      .split('\n')
      .find((text) => text.trimStart().startsWith(`${this.name}:`));
    // Counters after the colon: 8 of reception, then bytes, packets, errors, drops of transmission.
    const drops = Number(line?.split(':')[1]?.trim().split(/\s+/)[11]);
    if (Number.isFinite(drops)) this.#queueDrops = drops;
    return this.#queueDrops;
  }

  close(): Promise<void> {
    this.#closing ??= this.#remove();
    return this.#closing;
  }

  async #keepConfigured(): Promise<void> {
    try {
      if (await isConfigured(this.#settings)) return;
      if (this.#closing) return;
      await configureDevice(this.#settings);
      this.#settings.onRestored?.();
    } catch (error) {
      // A device that is gone ends the read, and that is told; anything else is tried again.
      if (!(error instanceof CommandFailed)) throw error;
    } finally {
      this.#checking = undefined;
    }
  }

  async #remove(): Promise<void> {
    clearInterval(this.#watch);
    await this.#checking;
    await run('ip', ['link', 'delete', 'dev', this.name]).catch((error: unknown) => {
      // Somebody else deleted it: that ends the read as well.
      if (!(error instanceof CommandFailed)) throw error;
    });
    await this.#reading;
    closeSync(this.#fd);
  }
}

interface OpenedDevice {
  name: string;
  fd: number;
}

function openDevice(): OpenedDevice {
  let loaded: unknown;
  try {
    // Not import(): the compiler would take the package's sources for its types, which are not where it says.
    loaded = require('tuntap2');
  } catch (error) {
    const text =
      'The package tuntap2 could not be loaded: install python3, make, g++ and the headers of Node.js, then run `npm ci` again.';
    throw new Error(text, { cause: error });
  }
  const LinuxTun = isRecord(loaded)
    ? (loaded['LinuxTun'] ?? (isRecord(loaded['default']) ? loaded['default']['LinuxTun'] : undefined))
    : undefined;
  if (!isConstructor(LinuxTun)) throw new Error('The package tuntap2 has no LinuxTun.');
  try {
    const tun: unknown = new LinuxTun();
    if (isRecord(tun) && typeof tun['_ifName'] === 'string' && typeof tun['_fd'] === 'number') {
      return { name: tun['_ifName'].split('\0')[0] ?? '', fd: tun['_fd'] };
    }
  } catch (error) {
    // It throws strings, too.
    const said = error instanceof Error ? error.message : String(error);
    throw new Error(`The TUN device could not be made: ${said}.`, { cause: error });
  }
  throw new Error('The package tuntap2 gave no descriptor.');
}

/** After a kill the kernel takes a moment to remove the old device: its name is free a little later. */
async function nameDevice(given: string, wanted: string): Promise<void> {
  if (given === wanted) return;
  for (let tries = NAME_TRIES; ; tries -= 1) {
    try {
      await run('ip', ['link', 'set', 'dev', given, 'name', wanted]);
      return;
    } catch (error) {
      if (!(error instanceof CommandFailed) || !/exists/i.test(error.message)) throw error;
      if (tries <= 1) {
        const text = `The network interface ${wanted} exists already: stop the other gateway, or choose another name with the key device.`;
        throw new Error(text, { cause: error });
      }
      await delay(NAME_RETRY_MS);
    }
  }
}

async function configureDevice(settings: TunSettings): Promise<void> {
  const { device } = settings;
  const pools = settings.pools.map(parseCidr).filter((pool) => pool !== undefined);
  const up = ['mtu', String(settings.mtuBytes), 'txqueuelen', String(DEVICE_QUEUE_PACKETS), 'up'];
  // No link-local address: nobody is there to hear its announcements.
  await run('ip', ['link', 'set', 'dev', device, 'alias', DEVICE_ALIAS, 'addrgenmode', 'none']);
  await run('ip', ['link', 'set', 'dev', device, ...up]);
  for (const address of gatewayAddresses(pools)) {
    const length = address.includes(':') ? '128' : '32';
    await run('ip', [
      'address',
      'replace',
      `${address}/${length}`,
      'dev',
      device,
      ...(length === '128' ? ['nodad'] : []),
    ]);
  }
  if (!settings.poolRoutes) return;
  for (const pool of new Set(pools.map(formatCidr))) {
    const family = pool.includes(':') ? '-6' : '-4';
    await run('ip', [family, 'route', 'replace', pool, 'dev', device, 'proto', String(ROUTE_PROTOCOL)]);
  }
}

/** Without these no packet comes to it; the kernel drops routes and IPv6 addresses when the device is set down. */
async function isConfigured({ device, pools, poolRoutes }: TunSettings): Promise<boolean> {
  const wanted = pools.map(parseCidr).filter((pool) => pool !== undefined);
  if (!poolRoutes) {
    // The routes of tunnels are the return path's.
    const present = new Set(await upAddresses(device));
    return gatewayAddresses(wanted).every((address) => present.has(address));
  }
  const present = new Set<string>();
  for (const family of new Set(wanted.map((pool) => pool.family)))
    for (const { destination } of await hostRoutes(family, device)) present.add(formatCidr(destination));
  return wanted.every((pool) => present.has(formatCidr(pool)));
}

function isConstructor(value: unknown): value is new () => unknown {
  return typeof value === 'function';
}

/** By which a gateway knows the devices of others on its host. */
export const DEVICE_ALIAS = 'sallyport';
/** Our number in `ip route … proto`, so that we know our own routes. Not one of rtnetlink(7) or of a routing daemon. */
export const ROUTE_PROTOCOL = 183;
/** Largest IP packet. */
const MAX_PACKET_BYTES = 65_535;
const TRANSIENT = new Set(['EAGAIN', 'EINTR']);
/** How long it may be down or lack its routes, at most, before that is noticed. */
export const WATCH_MS = 3000;
const NAME_TRIES = 20;
const NAME_RETRY_MS = 100;

const require = createRequire(import.meta.url);
