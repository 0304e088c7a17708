import assert from 'node:assert/strict';
import { test } from 'node:test';
import { concatBytes, decodeBase64, decodeLatin1, decodeUtf8, encodeUtf8, Reader, Writer } from './bytes.ts';
import { ProtocolError } from './errors.ts';

test('reads what was written, and not a byte more', () => {
  const bytes = new Writer(10)
    .u8(0x01)
    .u16(0xfffe)
    .u32(0xdeadbeef)
    .put(Uint8Array.of(7, 8, 9))
    .finish();
  const reader = new Reader(bytes);
  assert.deepEqual(
    [reader.u8(), reader.u16(), reader.u32(), [...reader.take(2)]],
    [1, 0xfffe, 0xdeadbeef, [7, 8]],
  );
  assert.throws(() => reader.u16(), ProtocolError);
  assert.throws(() => new Reader(bytes).take(11), ProtocolError);
  assert.deepEqual([...new Reader(bytes.subarray(8)).rest()], [8, 9]);
  assert.throws(() => new Writer(1).u16(1), RangeError);
  assert.throws(() => new Writer(1).put(new Uint8Array(2)), RangeError);
});

test('decodes and encodes UTF-8 as the platform does', () => {
  for (const text of ['', 'plain', 'ÄÖü߀', 'Привет, мир', '漢字', '😀 mixed é', '\u{10ffff}\u0000']) {
    assert.deepEqual(encodeUtf8(text), new Uint8Array(Buffer.from(text)));
    assert.equal(decodeUtf8(Buffer.from(text)), text);
  }
  assert.equal(decodeUtf8(encodeUtf8('\ud800x')), '\ufffdx');
});

test('replaces broken UTF-8 and never reads past the end', () => {
  for (const hex of [
    '80',
    'c0af',
    'c1bf',
    'e08080',
    'eda080',
    'f4908080',
    'f5808080',
    'ff',
    'c3',
    'e282',
    'f09f98',
  ]) {
    const text = decodeUtf8(Buffer.from(`41${hex}`, 'hex'));
    assert.match(text, /^A\ufffd+$/, hex);
  }
  assert.equal(decodeUtf8(Buffer.from('c341', 'hex')), '\ufffdA');
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
