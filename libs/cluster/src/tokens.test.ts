import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { hashToken, newSessionId, newToken, TOKEN_BYTES } from './tokens.ts';

describe('tokens', () => {
  it('are 256 bits, safe in a cookie, and new each time', () => {
    const tokens = new Set(Array.from({ length: 100 }, newToken));
    assert.equal(tokens.size, 100);
    for (const token of tokens) {
      assert.match(token, /^[A-Za-z0-9_-]{43}$/);
      assert.equal(Buffer.from(token, 'base64url').length, TOKEN_BYTES);
    }
  });

  it('are stored as SHA-256 (FIPS 180-2, the "abc" vector)', () => {
    assert.equal(hashToken('abc'), 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
  });

  it('have nothing to do with the session id', () => {
    assert.match(newSessionId(), /^[0-9a-f]{32}$/);
    assert.notEqual(newSessionId(), newSessionId());
  });
});
