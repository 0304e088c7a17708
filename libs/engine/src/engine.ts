/**
 * What moves IP packets between the TUN device and the tunnels of this node. One device, never one per client.
 * Packets come and go in batches; a packet array is valid only during the call that hands it over.
 */
export interface Engine {
  readonly name: 'portable' | 'native';
  /** What this engine can do beside carrying IP packets. */
  readonly capabilities: ReadonlySet<Capability>;
  /** Name of the TUN device, e.g. `tun0`. */
  readonly device: string;

  /** Packets for the route of `attachment` go to its `onPackets` from now on. Throws if an address is attached already. */
  attach(attachment: Attachment): void;
  /** Idempotent. */
  detach(tunnelId: number): void;
  /**
   * Packets from a client, towards the TUN device. Each is checked: IP version and lengths, source address of this
   * tunnel (D11). Bad ones are counted and dropped; one bad packet never stops a batch.
   */
  write(tunnelId: number, packets: readonly Uint8Array[]): void;
  stats(): EngineStats;
  /** Removes the device. Idempotent. */
  close(): Promise<void>;
}

export type Capability = 'cstp' | 'dtls' | 'acl' | 'rates' | 'offload';

export interface Attachment {
  tunnelId: number;
  /** '' = none. */
  ipv4: string;
  /** Address of the prefix, '' = none. */
  ipv6: string;
  ipv6PrefixLength: number;
  /** Larger packets towards the client are dropped, counted, and answered with "packet too big" where the rules allow. */
  mtuBytes: number;
  /** Packets for this client. */
  onPackets(packets: readonly Uint8Array[]): void;
}

export type DropReason =
  | 'malformed'
  | 'source'
  | 'no-route'
  | 'client-to-client'
  | 'redirect'
  | 'too-big'
  | 'queue-full'
  | 'device-full'
  | 'not-attached';

export interface EngineStats {
  /** From clients to the device. */
  upPackets: number;
  upBytes: number;
  /** From the device to clients. */
  downPackets: number;
  downBytes: number;
  drops: Record<DropReason, number>;
}
