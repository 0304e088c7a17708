import assert from 'node:assert/strict';
import { test } from 'node:test';
import { concatBytes, decodeBase64, decodeLatin1, encodeUtf8, Reader } from './bytes.ts';
import { ProtocolError } from './errors.ts';

test('reads big-endian values, and not a byte more than there is', () => {
  const bytes = Uint8Array.of(0x01, 0xff, 0xfe, 0xde, 0xad, 0xbe, 0xef, 7, 8, 9);
  const reader = new Reader(bytes);
  assert.deepEqual(
    [reader.u8(), reader.u16(), reader.u32(), [...reader.take(2)]],
    [1, 0xfffe, 0xdeadbeef, [7, 8]],
  );
  assert.throws(() => reader.u16(), ProtocolError);
  assert.throws(() => new Reader(bytes).take(11), ProtocolError);
  assert.deepEqual([...new Reader(bytes.subarray(8)).rest()], [8, 9]);
});

test('encodes UTF-8 as the platform does', () => {
  for (const text of ['', 'plain', 'ÄÖü߀', 'Привет, мир', '漢字', '😀 mixed é', '\u{10ffff}\u0000']) {
    assert.deepEqual(encodeUtf8(text), new Uint8Array(Buffer.from(text)));
  }
  assert.deepEqual(encodeUtf8('\ud800x'), new Uint8Array(Buffer.from('\ufffdx')));
});

test('decodes base64 as the platform does, and refuses what is none', () => {
  for (let length = 0; length < 40; length += 1) {
    const bytes = Uint8Array.from({ length }, (_, at) => (at * 89 + length) & 0xff);
    assert.deepEqual(decodeBase64(Buffer.from(bytes).toString('base64')), bytes);
  }
  for (const text of ['A', 'AAA', '====', 'A===', 'AA=A', 'AA-_', 'AAAA\n', ' AAA']) {
    assert.equal(decodeBase64(text), undefined, text);
  }
});

test('latin1 and concat keep every byte', () => {
  const all = Uint8Array.from({ length: 256 }, (_, at) => at);
  assert.equal(decodeLatin1(all), Buffer.from(all).toString('latin1'));
  assert.deepEqual(concatBytes(all.subarray(0, 100), all.subarray(100)), all);
});
