import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { checkStrap, type StrapMode } from './strap.ts';

/** The vector of STRAP: docs/protocol.md §5.7. */
const OLD_KEY =
  'MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEUadYCDOJjqGxg8vXNQpAmQeMbvHB4Y6XDNdoMDXyXn0BEFInErC1p8/wgWhUhphKlOaDHtrEbnNg+p2DSnqBoQ==';
const NEW_KEY =
  'MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEWzaJDay9fJqWu3Sh7iiz0tdbcuCaIO8lz45v2KnwNQ0OFL7Y1GgqNNg1OL3/W5bommZm7A21dF0C+hIQBy33Wg==';
const SIGNATURE =
  'MEUCIQC5gFueiu7dkyFOJSQ99aEa5ukvao+sJ8cN6b2Ei8p79QIgPhW2o9MKozKukpw9cbtdNwt4I/5zp/eQnpZs574eaVc=';

describe('checkStrap', () => {
  const proof = {
    verify: SIGNATURE,
    pubkey: NEW_KEY,
    clientFinished: Buffer.from('000102030405060708090a0b', 'hex'),
  };
  const proven = { ok: true, nextKey: NEW_KEY, provedKey: OLD_KEY };
  const rotated = { ok: true, nextKey: NEW_KEY, provedKey: '' };
  const keep = { ok: true, nextKey: '', provedKey: '' };
  const failed = { ok: false };

  it('accepts the published signature with any of the stored keys and takes the new key over', () => {
    for (const mode of ['lenient', 'strict'] as const) {
      assert.deepEqual(checkStrap(mode, [OLD_KEY], proof), proven);
      assert.deepEqual(checkStrap(mode, [NEW_KEY, OLD_KEY], proof), proven);
      assert.deepEqual(checkStrap(mode, [NEW_KEY], proof), failed, 'the new key does not vouch for itself');
    }
  });

  it('refuses when one byte of Finished, key or signature differs', () => {
    const finished = Buffer.from(proof.clientFinished);
    finished[3] = 0;
    const signature = Buffer.from(proof.verify, 'base64');
    signature[20] = (signature[20] ?? 0) ^ 1;
    for (const changed of [
      { ...proof, clientFinished: finished },
      { ...proof, verify: signature.toString('base64') },
      { ...proof, pubkey: OLD_KEY },
      { ...proof, pubkey: 'AAAA' },
      { ...proof, verify: '%%%' },
    ]) {
      assert.deepEqual(checkStrap('lenient', [OLD_KEY], changed), failed);
    }
  });

  it('decides by its mode when there is no proof', () => {
    const silent = { verify: '', pubkey: '', clientFinished: proof.clientFinished };
    for (const [mode, keys, given, expected] of [
      ['lenient', [OLD_KEY], silent, keep],
      ['strict', [OLD_KEY], silent, failed],
      ['lenient', [], proof, keep],
      ['strict', [], proof, failed],
      ['off', [NEW_KEY], proof, rotated],
      ['off', [OLD_KEY], silent, keep],
      ['off', [], proof, keep],
      ['lenient', [OLD_KEY], { ...silent, pubkey: NEW_KEY }, keep],
      ['lenient', [OLD_KEY], { ...proof, clientFinished: undefined }, rotated],
      ['strict', [OLD_KEY], { ...proof, clientFinished: undefined }, failed],
    ] satisfies [
      StrapMode,
      string[],
      typeof silent | typeof proof | { clientFinished: undefined; verify: string; pubkey: string },
      object,
    ][]) {
      assert.deepEqual(checkStrap(mode, keys, given), expected, `${mode} ${keys.length}`);
    }
  });
});
