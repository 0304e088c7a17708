import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAddress } from '@sallyport/protocol';
import {
  attach,
  CLIENT_PORT,
  CONTRACT_POOLS,
  engineContract,
  HOST_PORT,
  IPV4,
  IPV6,
  ipv4Flags,
  mailbox,
  text,
  udpPacket,
  udpPayload,
} from './contract.ts';
import { ClientAddresses } from './client-addresses.ts';
import { createEngine, NATIVE_MISSING } from './create.ts';
import { MemoryDevice } from './device.memory.ts';
import { checksum, put16, u16 } from './packet.ts';
import { ERRORS_PER_SECOND, PortableEngine } from './portable.ts';

engineContract({
  name: 'portable on a device in memory',
  capabilities: ['cstp'],
  open() {
    const { engine, device } = memoryEngine();
    const arrived = mailbox<{ from: string; payload: string }>();
    device.toHost = (packet) => {
      const source = (packet[0] ?? 0) >> 4 === 4 ? packet.subarray(12, 16) : packet.subarray(8, 24);
      const udp = (packet[0] ?? 0) >> 4 === 4 ? packet[9] === 17 : packet[6] === 17;
      if (udp) arrived.put({ from: formatAddress(source), payload: udpPayload(packet) });
    };
    const host = {
      send(to: string, payload: Uint8Array) {
        const gateway = to.includes(':') ? IPV6.gateway : IPV4.gateway;
        device.inject(udpPacket(gateway, to, payload, [HOST_PORT, CLIENT_PORT]));
      },
      next: () => arrived.next(),
      close: () => Promise.resolve(),
    };
    return Promise.resolve({ engine, host });
  },
});

test('cuts an IPv4 packet that may be cut into fragments that add up', async () => {
  const { engine, device } = memoryEngine();
  const client = attach(engine, 1, IPV4.clients[0], 576);
  const payload = Uint8Array.from({ length: 1400 }, (_, at) => at & 0xff);
  const packet = allowFragments(udpPacket(IPV4.stranger, IPV4.clients[0], payload));

  device.inject(packet);

  const body = new Uint8Array(packet.length - 20);
  let last = false;
  while (!last) {
    const fragment = await client.next();
    assert.ok(fragment.length <= 576);
    assert.equal(checksum(fragment.subarray(0, 20)), 0);
    assert.equal(u16(fragment, 2), fragment.length);
    body.set(fragment.subarray(20), (ipv4Flags(fragment) & 0x1fff) * 8);
    last = (ipv4Flags(fragment) & 0x2000) === 0;
  }
  assert.deepEqual(body, packet.subarray(20));
  assert.equal(client.waiting, 0);
  assert.equal(engine.stats().drops['too-big'], 0);
});

test('cuts a fragment further and keeps its place and its "more" flag', async () => {
  const { engine, device } = memoryEngine();
  const client = attach(engine, 1, IPV4.clients[0], 576);
  const packet = udpPacket(IPV4.stranger, IPV4.clients[0], new Uint8Array(792));
  put16(packet, 6, 0x2000 | 185);
  device.inject(packet);
  assert.equal(ipv4Flags(await client.next()), 0x2000 | 185);
  assert.equal(ipv4Flags(await client.next()), 0x2000 | (185 + 69));
});

test('answers a packet that may not be cut with "packet too big", from the address of the client', () => {
  const { engine, device } = memoryEngine();
  const answers: Uint8Array[] = [];
  device.toHost = (packet) => answers.push(packet);
  attach(engine, 1, IPV4.clients[0], 1300);
  attach(engine, 2, IPV6.clients[0], 1300);

  device.inject(udpPacket(IPV4.stranger, IPV4.clients[0], new Uint8Array(1400)));
  device.inject(udpPacket(IPV6.stranger, IPV6.clients[0], new Uint8Array(1400)));

  const [four = new Uint8Array(0), six = new Uint8Array(0)] = answers;
  assert.equal(formatAddress(four.subarray(12, 16)), IPV4.clients[0]);
  assert.equal(formatAddress(four.subarray(16, 20)), IPV4.stranger);
  assert.deepEqual([four[9], four[20], four[21], u16(four, 26)], [1, 3, 4, 1300]);
  assert.ok(four.length <= 576);
  assert.equal(checksum(four.subarray(20)), 0);
  assert.equal(formatAddress(six.subarray(8, 24)), IPV6.clients[0]);
  assert.equal(formatAddress(six.subarray(24, 40)), IPV6.stranger);
  assert.deepEqual([six[6], six[40], six[41], u16(six, 46)], [58, 2, 0, 1300]);
  assert.equal(six.length, 1280);
});

test('answers a packet for an address that nobody has with "unreachable", and no ICMP error and no multicast', () => {
  const { engine, device } = memoryEngine();
  const answers: Uint8Array[] = [];
  device.toHost = (packet) => answers.push(packet);

  device.inject(udpPacket(IPV4.stranger, IPV4.clients[0], text('anybody?')));
  device.inject(udpPacket(IPV6.stranger, IPV6.clients[0], text('anybody?')));
  device.inject(answers[0] ?? assert.fail());
  device.inject(answers[1] ?? assert.fail());
  device.inject(udpPacket(IPV4.stranger, '224.0.0.9', text('all')));
  device.inject(udpPacket(IPV6.stranger, 'ff02::16', text('all')));

  const [four = new Uint8Array(0), six = new Uint8Array(0), ...more] = answers;
  assert.deepEqual([four[9], four[20], four[21]], [1, 3, 1]);
  assert.equal(formatAddress(four.subarray(16, 20)), IPV4.stranger);
  assert.equal(checksum(four.subarray(20)), 0);
  assert.deepEqual([six[6], six[40], six[41]], [58, 1, 3]);
  assert.equal(formatAddress(six.subarray(24, 40)), IPV6.stranger);
  assert.deepEqual(more, []);
  assert.equal(engine.stats().drops['no-route'], 6);
});

test('keeps clients apart where it is told so, on both sides, and lets the gateway through', async () => {
  const device = new MemoryDevice();
  const engine = new PortableEngine(device, new ClientAddresses(CONTRACT_POOLS));
  const passed: string[] = [];
  device.toHost = (packet) => passed.push(udpPayload(packet));
  for (const net of [IPV4, IPV6]) {
    const id = net === IPV4 ? 1 : 2;
    const client = attach(engine, id, net.clients[0]);
    engine.write(id, [
      udpPacket(net.clients[0], net.clients[1], text('another client')),
      udpPacket(net.clients[0], net.gateway, text('gateway')),
      udpPacket(net.clients[0], net.stranger, text('network')),
    ]);
    device.inject(udpPacket(net.clients[1], net.clients[0], text('another client')));
    device.inject(udpPacket(net.gateway, net.clients[0], text('from the gateway')));
    device.inject(udpPacket(net.stranger, net.clients[0], text('from the network')));
    assert.equal(udpPayload(await client.next()), 'from the gateway');
    assert.equal(udpPayload(await client.next()), 'from the network');
  }
  assert.deepEqual(passed, ['gateway', 'network', 'gateway', 'network']);
  assert.equal(engine.stats().drops['client-to-client'], 4);
});

test('answers no ICMP error with an error, and not more than the budget in a second', () => {
  const { engine, device } = memoryEngine();
  let answers = 0;
  device.toHost = () => (answers += 1);
  attach(engine, 1, IPV4.clients[0], 600);
  attach(engine, 2, IPV6.clients[0], 600);
  const error4 = udpPacket(IPV4.stranger, IPV4.clients[0], new Uint8Array(700));
  error4.set([1], 9);
  error4.set([3], 20);
  const error6 = udpPacket(IPV6.stranger, IPV6.clients[0], new Uint8Array(700));
  error6.set([58], 6);
  error6.set([1], 40);
  device.inject(error4);
  device.inject(error6);
  device.inject(udpPacket('224.0.0.5', IPV4.clients[0], new Uint8Array(700)));
  device.inject(udpPacket('ff02::1', IPV6.clients[0], new Uint8Array(700)));
  assert.equal(answers, 0);

  for (let i = 0; i < ERRORS_PER_SECOND * 2; i += 1) {
    device.inject(udpPacket(IPV4.stranger, IPV4.clients[0], new Uint8Array(700)));
  }
  assert.ok(answers > 0 && answers <= ERRORS_PER_SECOND);
});

test('keeps redirects from clients, and lets other ICMP and later fragments pass', () => {
  const { engine, device } = memoryEngine();
  const client4 = attach(engine, 1, IPV4.clients[0]);
  const client6 = attach(engine, 2, IPV6.clients[0]);
  const icmp = (net: typeof IPV4 | typeof IPV6, type: number, offset = 0): Uint8Array => {
    const packet = udpPacket(net.stranger, net.clients[0], new Uint8Array(40));
    if (net === IPV4) {
      packet[9] = 1;
      packet[20] = type;
      put16(packet, 6, offset);
    } else {
      packet[6] = 58;
      packet[40] = type;
    }
    return packet;
  };
  device.inject(icmp(IPV4, 5));
  device.inject(icmp(IPV6, 137));
  assert.deepEqual([client4.waiting, client6.waiting, engine.stats().drops.redirect], [0, 0, 2]);
  device.inject(icmp(IPV4, 5, 100));
  device.inject(icmp(IPV4, 3));
  device.inject(icmp(IPV6, 1));
  assert.deepEqual([client4.waiting, client6.waiting], [2, 1]);
});

test('the native engine is refused as not built yet', async () => {
  const settings = { engine: 'native', device: 'vpns0', pools: [] } as const;
  await assert.rejects(createEngine(settings), { message: NATIVE_MISSING });
});

test('a packet from a client is handed on as it came, whatever it carries', () => {
  const { engine, device } = memoryEngine();
  const seen: string[] = [];
  device.toHost = (packet) => seen.push(Buffer.from(packet).toString('hex'));
  attach(engine, 1, IPV6.clients[0]);
  const hopByHop = udpPacket(IPV6.clients[0], IPV6.stranger, text('x'.repeat(9000)));
  hopByHop.set([0], 6);
  engine.write(1, [hopByHop]);
  assert.deepEqual(seen, [Buffer.from(hopByHop).toString('hex')]);
});

function memoryEngine() {
  const device = new MemoryDevice();
  return { device, engine: new PortableEngine(device) };
}

function allowFragments(packet: Uint8Array): Uint8Array {
  put16(packet, 6, 0);
  put16(packet, 10, 0);
  put16(packet, 10, checksum(packet.subarray(0, 20)));
  return packet;
}
