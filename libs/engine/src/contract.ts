import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { parseAddress } from '@sallyport/protocol';
import type { Attachment, Capability, Engine } from './engine.ts';
import { checksum, put16, u16 } from './packet.ts';

/**
 * What every engine must do, on every device. `host` is the machine behind the TUN device: it owns the gateway's
 * addresses and one UDP port on each.
 */
export function engineContract(form: EngineForm): void {
  describe(`engine: ${form.name}`, () => {
    let engine: Engine;
    let host: ContractHost;

    beforeEach(async () => {
      ({ engine, host } = await form.open());
    });

    afterEach(async () => {
      await host.close();
      await engine.close();
    });

    it('says what it can do', () => {
      assert.deepEqual([...engine.capabilities].sort(), [...form.capabilities].sort());
      assert.ok(engine.device.length > 0);
    });

    for (const net of [IPV4, IPV6]) {
      it(`carries a packet of a client to the host, and back (${net.name})`, async () => {
        const client = attach(engine, 1, net.clients[0]);
        engine.write(1, [udpPacket(net.clients[0], net.gateway, text('up'))]);
        assert.deepEqual(await host.next(), { from: net.clients[0], payload: 'up' });

        host.send(net.clients[0], text('down'));
        assert.deepEqual(udpPayload(await client.next()), 'down');
        const { upPackets, downPackets } = engine.stats();
        assert.deepEqual({ upPackets, downPackets }, { upPackets: 1, downPackets: 1 });
      });

      it(`gives each client its own packets (${net.name})`, async () => {
        const first = attach(engine, 1, net.clients[0]);
        const second = attach(engine, 2, net.clients[1]);
        host.send(net.clients[1], text('two'));
        host.send(net.clients[0], text('one'));
        assert.equal(udpPayload(await first.next()), 'one');
        assert.equal(udpPayload(await second.next()), 'two');
        assert.equal(first.waiting + second.waiting, 0);
      });

      it(`drops and counts a packet with a source that is not the client's (${net.name})`, async () => {
        attach(engine, 1, net.clients[0]);
        attach(engine, 2, net.clients[1]);
        engine.write(1, [
          udpPacket(net.clients[1], net.gateway, text('forged')),
          udpPacket(net.stranger, net.gateway, text('forged')),
          udpPacket(net.clients[0], net.gateway, text('good')),
        ]);
        assert.equal((await host.next()).payload, 'good');
        assert.equal(engine.stats().drops.source, 2);
      });

      it(`drops and counts what has no route (${net.name})`, async () => {
        const client = attach(engine, 1, net.clients[0]);
        host.send(net.clients[1], text('nobody'));
        host.send(net.clients[0], text('somebody'));
        assert.equal(udpPayload(await client.next()), 'somebody');
        assert.equal(engine.stats().drops['no-route'], 1);
      });

      it(`drops and counts a packet above the tunnel's MTU (${net.name})`, async () => {
        const client = attach(engine, 1, net.clients[0], 1300);
        const headers = net.headerBytes + 8;
        host.send(net.clients[0], new Uint8Array(1301 - headers).fill(0x61));
        host.send(net.clients[0], text('small'));
        const fits = await client.next();
        assert.equal(udpPayload(fits), 'small');
        assert.equal(engine.stats().drops['too-big'], 1);
      });

      it(`carries a packet of exactly the tunnel's MTU (${net.name})`, async () => {
        const client = attach(engine, 1, net.clients[0], 1300);
        host.send(net.clients[0], new Uint8Array(1300 - net.headerBytes - 8).fill(0x61));
        assert.equal((await client.next()).length, 1300);
      });
    }

    it('one malformed packet does not stop its batch', async () => {
      attach(engine, 1, IPV4.clients[0]);
      const good = udpPacket(IPV4.clients[0], IPV4.gateway, text('good'));
      const good6 = udpPacket(IPV6.clients[0], IPV6.gateway, text('good'));
      const malformed = [
        new Uint8Array(0),
        Uint8Array.of(0x45),
        good.subarray(0, 19),
        good.subarray(0, good.length - 1),
        good6.subarray(0, good6.length - 1),
        change(good, 0, 0x44),
        change(good, 0, 0x75),
        change(good, 3, 19),
      ];
      engine.write(1, [...malformed, good]);
      assert.equal((await host.next()).payload, 'good');
      assert.equal(engine.stats().drops.malformed, malformed.length);
    });

    it('gives a client its whole IPv6 prefix', async () => {
      const client = collect();
      engine.attach({
        ...attachment(1),
        ipv6: 'fd00:90::1:0',
        ipv6PrefixLength: 112,
        onPackets: client.take,
      });
      engine.write(1, [udpPacket('fd00:90::1:beef', IPV6.gateway, text('in the prefix'))]);
      assert.deepEqual(await host.next(), { from: 'fd00:90::1:beef', payload: 'in the prefix' });
      host.send('fd00:90::1:77', text('any of it'));
      assert.equal(udpPayload(await client.next()), 'any of it');
      engine.write(1, [udpPacket('fd00:90::2:1', IPV6.gateway, text('beside it'))]);
      assert.equal(engine.stats().drops.source, 1);
    });

    it('refuses an address that is attached, and changes nothing', async () => {
      const client = attach(engine, 1, IPV4.clients[0]);
      assert.throws(() => attach(engine, 2, IPV4.clients[0]), /attached/);
      assert.throws(() => engine.attach({ ...attachment(1), ipv4: IPV4.clients[1] }), /attached/);
      engine.attach({ ...attachment(3), ipv6: 'fd00:90::1:0', ipv6PrefixLength: 112 });
      assert.throws(() => attach(engine, 4, 'fd00:90::1:5'), /attached/);
      assert.throws(
        () => engine.attach({ ...attachment(5), ipv6: 'fd00:90::', ipv6PrefixLength: 64 }),
        /attached/,
      );
      host.send(IPV4.clients[0], text('still the first'));
      assert.equal(udpPayload(await client.next()), 'still the first');
    });

    it('stops both ways at detach, and the address is free again', async () => {
      const before = attach(engine, 1, IPV4.clients[0]);
      engine.detach(1);
      engine.detach(1);
      engine.write(1, [udpPacket(IPV4.clients[0], IPV4.gateway, text('late'))]);
      assert.equal(engine.stats().drops['not-attached'], 1);
      const after = attach(engine, 2, IPV4.clients[0]);
      host.send(IPV4.clients[0], text('new owner'));
      assert.equal(udpPayload(await after.next()), 'new owner');
      assert.equal(before.waiting, 0);
    });

    it('lets a tunnel detach from its own packet', async () => {
      const seen = collect();
      engine.attach({
        ...attachment(1),
        ipv4: IPV4.clients[0],
        onPackets: (packets) => {
          engine.detach(1);
          seen.take(packets);
        },
      });
      host.send(IPV4.clients[0], text('last'));
      assert.equal(udpPayload(await seen.next()), 'last');
    });

    it('closes twice and takes no packet afterwards', async () => {
      attach(engine, 1, IPV4.clients[0]);
      await Promise.all([engine.close(), engine.close()]);
      engine.write(1, [udpPacket(IPV4.clients[0], IPV4.gateway, text('too late'))]);
      assert.equal(engine.stats().upPackets, 0);
      assert.equal(engine.stats().drops['device-full'], 1);
    });
  });
}

export interface EngineForm {
  name: string;
  capabilities: readonly Capability[];
  /** An engine on a device with `CONTRACT_POOLS`. The suite closes both. */
  open(): Promise<{ engine: Engine; host: ContractHost }>;
}

/** The host's UDP sockets at the gateway's addresses, port `HOST_PORT`. */
export interface ContractHost {
  /** To `CLIENT_PORT` of a client; not to be fragmented. */
  send(to: string, payload: Uint8Array): void;
  /** The next datagram that arrived. */
  next(): Promise<{ from: string; payload: string }>;
  close(): Promise<void>;
}

/** UDP from `CLIENT_PORT` to `HOST_PORT` or the other way round, in an IP packet with DF. */
export function udpPacket(
  from: string,
  to: string,
  payload: Uint8Array,
  ports: readonly [number, number] = [CLIENT_PORT, HOST_PORT],
): Uint8Array {
  const source = parseAddress(from) ?? new Uint8Array(4);
  const target = parseAddress(to) ?? new Uint8Array(4);
  const udp = new Uint8Array(8 + payload.length);
  put16(udp, 0, ports[0]);
  put16(udp, 2, ports[1]);
  put16(udp, 4, udp.length);
  udp.set(payload, 8);
  const pseudo = new Uint8Array([...source, ...target, 0, 17, udp.length >>> 8, udp.length & 0xff, ...udp]);
  put16(udp, 6, checksum(pseudo) || 0xffff);
  const size = source.length === 4 ? 20 : 40;
  const packet = new Uint8Array(size + udp.length);
  if (size === 20) {
    packet.set([
      0x45,
      0,
      packet.length >>> 8,
      packet.length & 0xff,
      0,
      0,
      0x40,
      0,
      64,
      17,
      0,
      0,
      ...source,
      ...target,
    ]);
    put16(packet, 10, checksum(packet.subarray(0, 20)));
  } else {
    packet.set([0x60, 0, 0, 0, udp.length >>> 8, udp.length & 0xff, 17, 64, ...source, ...target]);
  }
  packet.set(udp, size);
  return packet;
}

export function udpPayload(packet: Uint8Array): string {
  return Buffer.from(packet.subarray((packet[0] ?? 0) >> 4 === 4 ? 28 : 48)).toString();
}

export function attach(engine: Engine, tunnelId: number, address: string, mtuBytes = 1400): Collected {
  const collected = collect();
  const families = address.includes(':') ? { ipv6: address } : { ipv4: address };
  engine.attach({ ...attachment(tunnelId), ...families, mtuBytes, onPackets: collected.take });
  return collected;
}

/** What arrives, copied, in order. */
export interface Collected {
  take: (packets: readonly Uint8Array[]) => void;
  /** Waits for at most `PATIENCE_MS`. */
  next(): Promise<Uint8Array>;
  readonly waiting: number;
}

export function collect(): Collected {
  const queue = mailbox<Uint8Array>();
  return {
    take: (packets) => {
      for (const packet of packets) queue.put(Uint8Array.from(packet));
    },
    next: () => queue.next(),
    get waiting() {
      return queue.waiting;
    },
  };
}

export function mailbox<T>() {
  const items: T[] = [];
  const readers: ((item: T) => void)[] = [];
  return {
    put(item: T): void {
      const reader = readers.shift();
      if (reader) reader(item);
      else items.push(item);
    },
    next(): Promise<T> {
      const item = items.shift();
      if (item !== undefined) return Promise.resolve(item);
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          reject(new Error('nothing arrived'));
        }, PATIENCE_MS);
        readers.push((arrived) => {
          clearTimeout(timer);
          resolve(arrived);
        });
      });
    },
    get waiting(): number {
      return items.length;
    },
  };
}

export function text(value: string): Uint8Array {
  return Buffer.from(value);
}

export function ipv4Flags(packet: Uint8Array): number {
  return u16(packet, 6);
}

function attachment(tunnelId: number): Attachment {
  return { tunnelId, ipv4: '', ipv6: '', ipv6PrefixLength: 128, mtuBytes: 1400, onPackets: () => undefined };
}

function change(packet: Uint8Array, at: number, value: number): Uint8Array {
  const changed = Uint8Array.from(packet);
  changed[at] = value;
  return changed;
}

export const CONTRACT_POOLS = ['10.90.0.0/24', 'fd00:90::/64'];
export const IPV4 = {
  name: 'IPv4',
  gateway: '10.90.0.1',
  clients: ['10.90.0.7', '10.90.0.8'],
  stranger: '192.0.2.9',
  headerBytes: 20,
} as const;
export const IPV6 = {
  name: 'IPv6',
  gateway: 'fd00:90::1',
  clients: ['fd00:90::7', 'fd00:90::8'],
  stranger: '2001:db8::9',
  headerBytes: 40,
} as const;
export const HOST_PORT = 7000;
export const CLIENT_PORT = 5000;
export const PATIENCE_MS = 5000;
