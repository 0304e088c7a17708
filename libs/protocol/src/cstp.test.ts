import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { CstpDecoder, encodeFrame, HEADER_BYTES, MAX_PAYLOAD_BYTES, PACKET } from './cstp.ts';
import { ProtocolError } from './errors.ts';

interface Vectors {
  frames: { name: string; type: number; payload: string; frame: string; answer?: string }[];
}
const { frames } = JSON.parse(
  readFileSync(new URL('../vectors/cstp-frames.json', import.meta.url), 'utf8'),
) as Vectors;
const stream = Buffer.concat(frames.map(({ frame }) => Buffer.from(frame, 'hex')));
const wanted = frames.map(({ type, payload }) => `${type} ${payload}`);

test('writes and reads the packets of the vectors', () => {
  for (const { type, payload, frame } of frames) {
    assert.equal(hex(encodeFrame(type, Buffer.from(payload, 'hex'))), frame);
  }
  assert.deepEqual(decode([stream]), wanted);
});

test('reads the same packets at every split into two and three chunks, and byte by byte', () => {
  for (let first = 0; first <= stream.length; first += 1) {
    assert.deepEqual(decode([stream.subarray(0, first), stream.subarray(first)]), wanted);
    for (let second = first; second <= stream.length; second += 5) {
      const chunks = [stream.subarray(0, first), stream.subarray(first, second), stream.subarray(second)];
      assert.deepEqual(decode(chunks), wanted);
    }
  }
  assert.deepEqual(decode([...stream].map((byte) => Uint8Array.of(byte))), wanted);
});

test('a packet that is whole in its chunk is not copied, and nothing is held after it', () => {
  const decoder = new CstpDecoder();
  const chunk = encodeFrame(PACKET.data, Uint8Array.of(1, 2, 3));
  let seen = new Uint8Array(0);
  decoder.push(chunk, (_, payload) => (seen = payload as Uint8Array<ArrayBuffer>));
  assert.equal(seen.buffer, chunk.buffer);
  assert.equal(decoder.pendingBytes, 0);
});

test('takes every type and every length that fits', () => {
  for (let type = 0; type < 256; type += 1) assert.deepEqual(decode([encodeFrame(type)]), [`${type} `]);
  for (const length of [0, 1, 1400, MAX_PAYLOAD_BYTES]) {
    const frame = encodeFrame(PACKET.data, new Uint8Array(length).fill(7));
    assert.deepEqual(decode([frame.subarray(0, 9), frame.subarray(9)]), [`0 ${'07'.repeat(length)}`]);
  }
  assert.throws(() => encodeFrame(PACKET.data, new Uint8Array(MAX_PAYLOAD_BYTES + 1)), RangeError);
});

test('a wrong byte in the header is an error, whole or in pieces, after the packets before it', () => {
  const good = encodeFrame(PACKET.keepalive);
  for (const at of [0, 1, 2, 3, 7]) {
    const bad = encodeFrame(PACKET.data, new Uint8Array(4));
    bad[at] = (bad[at] ?? 0) ^ 1;
    for (const chunks of [
      [bad],
      [...bad].map((byte) => Uint8Array.of(byte)),
      [bad.subarray(0, 4), bad.subarray(4)],
    ]) {
      const seen: string[] = [];
      assert.throws(() => decode([good, ...chunks], seen), ProtocolError);
      assert.deepEqual(seen, ['7 ']);
    }
    const seen: string[] = [];
    assert.throws(() => decode([Buffer.concat([good, bad])], seen), ProtocolError);
    assert.deepEqual(seen, ['7 ']);
  }
});

test('a length that no TLS record holds is an error before anything is kept for it', () => {
  for (const length of [MAX_PAYLOAD_BYTES + 1, 65_535]) {
    const header = Uint8Array.of(0x53, 0x54, 0x46, 1, length >> 8, length & 0xff, 0, 0);
    const decoder = new CstpDecoder();
    assert.throws(() => decoder.push(header, () => undefined), ProtocolError);
    assert.equal(decoder.pendingBytes, 0);
  }
});

test('what is not CSTP is noticed with its first byte', () => {
  assert.throws(() => decode([Buffer.from('G')]), ProtocolError);
  assert.throws(() => decode([Buffer.from('ST'), Buffer.from('O')]), ProtocolError);
});

test('an incomplete packet holds no more than itself', () => {
  const decoder = new CstpDecoder();
  decoder.push(encodeFrame(PACKET.data, new Uint8Array(1000)).subarray(0, 500), () => undefined);
  assert.equal(decoder.pendingBytes, 500);
  decoder.push(new Uint8Array(HEADER_BYTES + 1000 - 500), () => undefined);
  assert.equal(decoder.pendingBytes, 0);
});

function decode(chunks: readonly Uint8Array[], seen: string[] = []): string[] {
  const decoder = new CstpDecoder();
  for (const chunk of chunks) decoder.push(chunk, (type, payload) => seen.push(`${type} ${hex(payload)}`));
  return seen;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
