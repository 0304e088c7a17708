import assert from 'node:assert/strict';
import { createHash, createPublicKey, verify, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { MAX_STRAP_TEXT, parseStrapKey, parseStrapSignature, strapMessage } from './strap.ts';

const vector = JSON.parse(readFileSync(new URL('../vectors/strap.json', import.meta.url), 'utf8')) as Record<
  string,
  string
>;
const field = (name: string): string => vector[name] ?? '';

test('the signature of the vector verifies over our message, with the old key and only with it', () => {
  const newKey = parseStrapKey(field('newPubkey')) ?? new Uint8Array();
  const oldKey = parseStrapKey(field('oldPubkey')) ?? new Uint8Array();
  const signature = parseStrapSignature(field('signature')) ?? new Uint8Array();
  const message = strapMessage(Buffer.from(field('clientFinished'), 'hex'), newKey);

  assert.equal(createHash('sha256').update(message).digest('hex'), field('messageSha256'));
  const by = (spki: Uint8Array) => createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' });
  assert.equal(verify('sha256', message, by(oldKey), signature), true);
  assert.equal(verify('sha256', message, by(newKey), signature), false);
});

test('takes only what is the base64 of a P-256 key', () => {
  const good = field('newPubkey');
  assert.equal(parseStrapKey(good)?.length, 91);
  const bad = [
    good.slice(0, -4),
    `${good}AAAA`,
    good.replace('MFkw', 'MFkx'),
    good.replace('/', '_'),
    ` ${good}`,
    '',
    'A'.repeat(MAX_STRAP_TEXT + 4),
  ];
  for (const text of bad) assert.equal(parseStrapKey(text), undefined, text);
});

test('takes only what can be an ECDSA signature', () => {
  const good = field('signature');
  assert.ok(parseStrapSignature(good));
  const bad = [
    good.slice(4),
    good.slice(0, -4),
    good.replace('MEUC', 'MEQC'),
    'MAA=',
    '',
    '=',
    'A'.repeat(MAX_STRAP_TEXT + 4),
  ];
  for (const text of bad) assert.equal(parseStrapSignature(text), undefined, text);
});

test('the certificate of the vector has the hash of the vector', () => {
  const text = readFileSync(new URL('../vectors/server-cert-hash.json', import.meta.url), 'utf8');
  const { pem, sha1 } = JSON.parse(text) as { pem: string; sha1: string };
  const der = new X509Certificate(pem).raw;
  assert.equal(createHash('sha1').update(der).digest('hex').toUpperCase(), sha1);
});
