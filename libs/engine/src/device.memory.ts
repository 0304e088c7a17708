import type { PacketDevice } from './portable.ts';

/** A device without a kernel, for tests of routing. The host's side is `inject` and `toHost`. */
export class MemoryDevice implements PacketDevice {
  readonly name: string;
  /** Called with each packet that the engine hands to the host. */
  toHost: (packet: Uint8Array) => void = () => undefined;
  #onPacket: (packet: Uint8Array) => void = () => undefined;
  #closed = false;

  constructor(name = 'memory0') {
    this.name = name;
  }

  start(onPacket: (packet: Uint8Array) => void): void {
    this.#onPacket = onPacket;
  }

  /** A packet from the host. Afterwards its buffer is overwritten, as a real device does. */
  inject(packet: Uint8Array): void {
    if (this.#closed) return;
    const buffer = Uint8Array.from(packet);
    this.#onPacket(buffer);
    buffer.fill(0xee);
  }

  write(packet: Uint8Array): boolean {
    if (this.#closed) return false;
    this.toHost(Uint8Array.from(packet));
    return true;
  }

  queueDrops(): number {
    return 0;
  }

  close(): Promise<void> {
    this.#closed = true;
    return Promise.resolve();
  }
}
