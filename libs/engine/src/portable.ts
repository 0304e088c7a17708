import type { Attachment, Capability, DropReason, Engine, EngineStats } from './engine.ts';
import type { ClientAddresses } from './client-addresses.ts';
import { fragmentIpv4, isRedirect, packetTooBig, soundVersion, unreachable } from './packet.ts';
import { Routes } from './routes.ts';

/**
 * The engine in TypeScript: CSTP only, one packet per read.
 *
 * It has no queue of its own. Towards the device a write is done when it returns. From the device a packet goes straight
 * to its tunnel, which sends or drops it (D5: a client that does not read loses its own packets and nobody else's);
 * while that happens the kernel queues at most `DEVICE_QUEUE_PACKETS` and drops the newest.
 */
export class PortableEngine implements Engine {
  readonly name = 'portable';
  readonly capabilities: ReadonlySet<Capability> = new Set<Capability>(['cstp']);
  readonly #device: PacketDevice;
  readonly #attached = new Map<number, Attachment>();
  readonly #routes = new Routes<Attachment>();
  readonly #counters = { upPackets: 0, upBytes: 0, downPackets: 0, downBytes: 0 };
  readonly #drops: Record<DropReason, number> = {
    malformed: 0,
    source: 0,
    'no-route': 0,
    'client-to-client': 0,
    redirect: 0,
    'too-big': 0,
    'queue-full': 0,
    'device-full': 0,
    'not-attached': 0,
  };
  readonly #errorBudget = new ErrorBudget();

  readonly #apart: ClientAddresses | undefined;

  /** @param apart from and to these addresses clients get nothing: they do not reach each other. */
  constructor(device: PacketDevice, apart?: ClientAddresses) {
    this.#device = device;
    this.#apart = apart;
    device.start((packet) => {
      this.#toClient(packet);
    });
  }

  get device(): string {
    return this.#device.name;
  }

  attach(attachment: Attachment): void {
    if (this.#attached.has(attachment.tunnelId)) throw new Error('the tunnel is attached already');
    this.#routes.add(attachment, attachment);
    this.#attached.set(attachment.tunnelId, attachment);
  }

  detach(tunnelId: number): void {
    const attachment = this.#attached.get(tunnelId);
    if (!attachment) return;
    this.#attached.delete(tunnelId);
    this.#routes.remove(attachment);
  }

  write(tunnelId: number, packets: readonly Uint8Array[]): void {
    const attachment = this.#attached.get(tunnelId);
    for (const packet of packets) {
      if (!attachment) this.#drops['not-attached'] += 1;
      else this.#toDevice(attachment, packet);
    }
  }

  stats(): EngineStats {
    const drops = { ...this.#drops, 'queue-full': this.#drops['queue-full'] + this.#device.queueDrops() };
    return { ...this.#counters, drops };
  }

  async close(): Promise<void> {
    await this.#device.close();
  }

  #toDevice(attachment: Attachment, packet: Uint8Array): void {
    const version = soundVersion(packet);
    if (version === 0) {
      this.#drops.malformed += 1;
      return;
    }
    const owner = version === 4 ? this.#routes.find4(packet, 12) : this.#routes.find6(packet, 8);
    if (owner !== attachment) {
      this.#drops.source += 1;
      return;
    }
    if (this.#apart?.has(packet, version === 4 ? 16 : 24, version)) {
      this.#drops['client-to-client'] += 1;
      return;
    }
    if (!this.#device.write(packet)) {
      this.#drops['device-full'] += 1;
      return;
    }
    this.#counters.upPackets += 1;
    this.#counters.upBytes += packet.length;
  }

  #toClient(packet: Uint8Array): void {
    const version = soundVersion(packet);
    if (version === 0) {
      this.#drops.malformed += 1;
      return;
    }
    const attachment = version === 4 ? this.#routes.find4(packet, 16) : this.#routes.find6(packet, 24);
    if (!attachment) this.#noRoute(packet, version);
    // Also here: the other client may be one of a node that allows it.
    else if (this.#apart?.has(packet, version === 4 ? 12 : 8, version)) this.#drops['client-to-client'] += 1;
    else if (isRedirect(packet, version)) this.#drops.redirect += 1;
    else if (packet.length > attachment.mtuBytes) this.#tooBig(attachment, packet, version);
    else this.#deliver(attachment, [packet]);
  }

  /** An aggregate or a pool is routed here, and nobody has this address of it. */
  #noRoute(packet: Uint8Array, version: 4 | 6): void {
    this.#drops['no-route'] += 1;
    if (isRedirect(packet, version) || !this.#errorBudget.take(performance.now())) return;
    const answer = unreachable(packet);
    if (answer) this.#device.write(answer);
  }

  #tooBig(attachment: Attachment, packet: Uint8Array, version: 4 | 6): void {
    const fragments = version === 4 ? fragmentIpv4(packet, attachment.mtuBytes) : undefined;
    if (fragments) {
      this.#deliver(attachment, fragments);
      return;
    }
    this.#drops['too-big'] += 1;
    if (!this.#errorBudget.take(performance.now())) return;
    const answer = packetTooBig(packet, attachment.mtuBytes);
    if (answer) this.#device.write(answer);
  }

  #deliver(attachment: Attachment, packets: readonly Uint8Array[]): void {
    this.#counters.downPackets += packets.length;
    for (const packet of packets) this.#counters.downBytes += packet.length;
    attachment.onPackets(packets);
  }
}

/** A TUN device as the portable engine needs it. Forms: `device.tuntap.ts`, `device.memory.ts`. */
export interface PacketDevice {
  readonly name: string;
  /** From now on each packet that the host sends into the device goes to `onPacket`; it is valid during the call. */
  start(onPacket: (packet: Uint8Array) => void): void;
  /** Hands one packet to the host. @returns false when the device did not take it. */
  write(packet: Uint8Array): boolean;
  /** Packets from the host that its queue had no room for, so far. */
  queueDrops(): number;
  /** Removes the device. Idempotent; writes afterwards are refused, not faults. */
  close(): Promise<void>;
}

/** Bounds the errors that we send, RFC 4443 §2.4 (f). */
class ErrorBudget {
  #left = ERRORS_PER_SECOND;
  #since = 0;

  take(now: number): boolean {
    if (now - this.#since >= 1000) {
      this.#since = now;
      this.#left = ERRORS_PER_SECOND;
    }
    if (this.#left === 0) return false;
    this.#left -= 1;
    return true;
  }
}

/** Packets that the kernel holds for us. */
export const DEVICE_QUEUE_PACKETS = 1000;
/** Errors that senders are told, for all tunnels together. */
export const ERRORS_PER_SECOND = 100;
