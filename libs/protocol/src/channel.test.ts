import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Channel, type ChannelSettings } from './channel.ts';
import { encodeFrame, PACKET } from './cstp.ts';
import { reasonText } from './reasons.ts';

const SECOND = 1000;

test('hands on DATA and answers a DPD request with its own payload, in order', () => {
  const channel = open();
  const probe = new Uint8Array(1400).map((_, at) => at & 0xff);
  const output = channel.handleChunk(
    join(data(UDP4), frame(PACKET.dpdRequest, probe), data(UDP6), frame(PACKET.keepalive)),
    0,
  );
  assert.deepEqual(output, { packets: [UDP4, UDP6], replies: [frame(PACKET.dpdResponse, probe)] });
  const { rxPackets, rxBytes } = channel.counters;
  assert.deepEqual({ rxPackets, rxBytes }, { rxPackets: 2, rxBytes: UDP4.length + UDP6.length });
});

test('every type but those that end it leaves the channel open', () => {
  for (let type = 0; type < 256; type += 1) {
    const { close, replies } = open().handleChunk(frame(type, Uint8Array.of(1)), 0);
    if (type === PACKET.compressed) assert.deepEqual(close, { kind: 'error', reason: 'protocol-error' });
    else if (type === PACKET.disconnect) assert.equal(close?.kind, 'park');
    else assert.equal(close, undefined);
    assert.equal(replies.length, type === PACKET.dpdRequest ? 1 : 0);
  }
});

test('unknown types and empty DATA are counted or passed over, never answered', () => {
  const channel = open();
  assert.deepEqual(channel.handleChunk(join(frame(1), frame(200), data(new Uint8Array(0))), 0), {
    packets: [],
    replies: [],
  });
  assert.equal(channel.counters.unknownPackets, 2);
  assert.equal(channel.counters.rxPackets, 0);
});

test('a BYE ends the session only when the user meant it', () => {
  const bye = (...payload: number[]) =>
    open().handleChunk(frame(PACKET.disconnect, Uint8Array.of(...payload)), 0).close;
  assert.deepEqual(bye(0xb0, 0x41), { kind: 'end', reason: 'user-disconnect' });
  for (const payload of [[0x70], [0x91], [0xd1, 0x41], [0], [0xff], []]) {
    assert.deepEqual(bye(...payload), { kind: 'park', reason: 'temp-disconnect' });
  }
});

test('what comes after a BYE is ignored, in the same chunk and later', () => {
  const channel = open();
  const output = channel.handleChunk(
    join(data(UDP4), frame(PACKET.disconnect, Uint8Array.of(0xb0)), data(UDP4), Buffer.from('junk')),
    0,
  );
  assert.deepEqual(output, {
    packets: [UDP4],
    replies: [],
    close: { kind: 'end', reason: 'user-disconnect' },
  });
  assert.deepEqual(channel.handleChunk(data(UDP4), 1), { packets: [], replies: [] });
  assert.deepEqual(channel.handleTimeout(1e9), { packets: [], replies: [] });
  assert.equal(channel.nextTimeout(), Infinity);
});

test('a broken frame closes without a packet, after what was good before it', () => {
  const output = open().handleChunk(join(data(UDP4), Buffer.from('GET / HTTP/1.1')), 0);
  assert.deepEqual(output, {
    packets: [UDP4],
    replies: [],
    close: { kind: 'error', reason: 'protocol-error' },
  });
});

test('asks after one and two intervals of silence and parks after three', () => {
  const channel = open({ dpdSeconds: 20 });
  channel.handleChunk(frame(PACKET.keepalive), 5 * SECOND);
  assert.deepEqual(timeline(channel, 5 * SECOND, 200 * SECOND), [
    [25 * SECOND, 'ask'],
    [45 * SECOND, 'ask'],
    [65 * SECOND, 'park dpd-timeout'],
  ]);
});

test('any packet from the client is a sign of life; what is sent to it is none', () => {
  const channel = open({ dpdSeconds: 20 });
  for (const type of [PACKET.dpdResponse, PACKET.keepalive, PACKET.data, 100]) {
    channel.handleTimeout(20 * SECOND);
    channel.handleTimeout(40 * SECOND);
    channel.handleChunk(frame(type, UDP4), 59 * SECOND);
    assert.equal(channel.nextTimeout(), 79 * SECOND);
    channel.handleChunk(frame(PACKET.keepalive), 0);
  }
  channel.dataSent(UDP4, 10 * SECOND);
  assert.equal(channel.nextTimeout(), 20 * SECOND);
});

test('ends the session when only housekeeping went through for the idle timeout', () => {
  const channel = open({ idleTimeoutSeconds: 60 });
  channel.handleChunk(data(UDP4), 1 * SECOND);
  channel.dataSent(UDP6, 10 * SECOND);
  for (const noise of [
    ICMP4,
    IGMP4,
    ICMP6,
    MLD6,
    Uint8Array.of(0x45),
    Uint8Array.of(0x60),
    Uint8Array.of(0xff, 0xff),
  ]) {
    channel.handleChunk(data(noise), 50 * SECOND);
    channel.dataSent(noise, 50 * SECOND);
  }
  channel.handleChunk(join(frame(PACKET.keepalive), frame(PACKET.dpdRequest)), 60 * SECOND);
  assert.equal(channel.activeAt, 10 * SECOND);
  assert.equal(channel.nextTimeout(), 70 * SECOND);
  assert.deepEqual(channel.handleTimeout(69 * SECOND), { packets: [], replies: [] });
  assert.deepEqual(channel.handleTimeout(70 * SECOND).close, ended('idle-timeout'));
});

test('ends the session at its limit, whatever goes on', () => {
  const channel = open({ sessionRemainingSeconds: 100, dpdSeconds: 20, idleTimeoutSeconds: 60 });
  for (let now = 0; now < 100 * SECOND; now += 10 * SECOND) {
    channel.handleChunk(data(UDP4), now);
    assert.equal(channel.handleTimeout(now).close, undefined);
  }
  channel.handleChunk(data(UDP4), 99_999);
  assert.equal(channel.nextTimeout(), 100 * SECOND);
  assert.deepEqual(channel.handleTimeout(100 * SECOND).close, ended('session-timeout'));
});

test('a timeout that is handled late does what is due, once', () => {
  const channel = open({ dpdSeconds: 20 });
  assert.equal(channel.handleTimeout(39 * SECOND).replies.length, 1);
  assert.equal(channel.handleTimeout(39 * SECOND).replies.length, 0);
  assert.equal(channel.nextTimeout(), 40 * SECOND);
});

test('0 switches each timer off', () => {
  assert.equal(open().nextTimeout(), Infinity);
  assert.deepEqual(open().handleTimeout(1e12), { packets: [], replies: [] });
});

test('an end from outside tells the client why', () => {
  const channel = open();
  const bye = channel.end('terminated');
  assert.equal(Buffer.from(bye).toString('latin1', 8), `\xb0${reasonText('terminated')}`);
  assert.equal(bye[6], PACKET.disconnect);
  assert.ok(channel.closed);
});

function open(settings: Partial<ChannelSettings> = {}): Channel {
  return new Channel({ dpdSeconds: 0, idleTimeoutSeconds: 0, sessionRemainingSeconds: 0, ...settings }, 0);
}

/** Handles each timeout at its time. */
function timeline(channel: Channel, from: number, until: number): [number, string][] {
  const events: [number, string][] = [];
  for (let now = from; channel.nextTimeout() <= until;) {
    assert.ok(channel.nextTimeout() > now);
    now = channel.nextTimeout();
    const { replies, close } = channel.handleTimeout(now);
    for (const reply of replies) {
      assert.deepEqual(reply, frame(PACKET.dpdRequest));
      events.push([now, 'ask']);
    }
    if (close) events.push([now, `${close.kind} ${close.reason}`]);
    if (close) assert.equal(close.frame, undefined);
  }
  return events;
}

function ended(reason: 'idle-timeout' | 'session-timeout') {
  const payload = Buffer.concat([Uint8Array.of(0xb0), Buffer.from(reasonText(reason))]);
  return { kind: 'end', reason, frame: frame(PACKET.disconnect, payload) };
}

function frame(type: number, payload?: Uint8Array): Uint8Array {
  return encodeFrame(type, payload);
}

function data(packet: Uint8Array): Uint8Array {
  return encodeFrame(PACKET.data, packet);
}

function join(...parts: Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts));
}

function ipv4(protocol: number): Uint8Array {
  return Uint8Array.of(0x45, 0, 0, 20, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2);
}

function ipv6(next: number, inner = 59): Uint8Array {
  const packet = new Uint8Array(48);
  packet.set([0x60, 0, 0, 0, 0, 8, next, 64]);
  packet[40] = inner;
  return packet;
}

const UDP4 = ipv4(17);
const ICMP4 = ipv4(1);
const IGMP4 = ipv4(2);
const UDP6 = ipv6(17);
const ICMP6 = ipv6(58);
const MLD6 = ipv6(0, 58);
