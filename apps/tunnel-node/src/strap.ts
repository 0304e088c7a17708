import { createPublicKey, verify } from 'node:crypto';
import { parseStrapKey, parseStrapSignature, strapMessage } from '@sallyport/protocol';

export type StrapMode = 'off' | 'lenient' | 'strict';

export interface StrapProof {
  /** `X-AnyConnect-STRAP-Verify` and `-Pubkey`, base64; '' = absent. */
  verify: string;
  pubkey: string;
  /** Of this TLS connection; undefined where the TLS library hides it. */
  clientFinished: Uint8Array | undefined;
}

export type StrapVerdict = { ok: true; nextKey: string; provedKey: string } | { ok: false };

/**
 * Is this the client that logged in (docs/protocol.md §5.7)? The proof may be made with any of the stored keys: a CONNECT
 * whose answer was lost has rotated the client's key already.
 * @param storedKeys of the session, base64 SPKI.
 * @returns `nextKey`: the key to store from now on, '' = keep those that are stored; `provedKey`: the stored key that the
 *   client has shown to have, '' = none.
 */
export function checkStrap(mode: StrapMode, storedKeys: readonly string[], proof: StrapProof): StrapVerdict {
  const newKey = parseStrapKey(proof.pubkey);
  const rotated: StrapVerdict = { ok: true, nextKey: newKey ? proof.pubkey : '', provedKey: '' };
  if (mode === 'off') return storedKeys.length > 0 ? rotated : KEEP;
  if (storedKeys.length === 0 || proof.verify === '') return mode === 'strict' ? FAILED : KEEP;
  if (proof.clientFinished === undefined) return mode === 'strict' ? FAILED : rotated;

  const signature = parseStrapSignature(proof.verify);
  if (signature === undefined || (proof.pubkey !== '' && newKey === undefined)) return FAILED;
  for (const stored of storedKeys) {
    const key = parseStrapKey(stored);
    // A client that does not rotate signs the key that it has.
    if (key && signedBy(key, strapMessage(proof.clientFinished, newKey ?? key), signature))
      return { ...rotated, provedKey: stored };
  }
  return FAILED;
}

function signedBy(spki: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  try {
    const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' });
    return verify('sha256', message, { key, dsaEncoding: 'der' }, signature);
  } catch {
    // Not a point of the curve, or not a signature: OpenSSL throws for both.
    return false;
  }
}

const KEEP: StrapVerdict = { ok: true, nextKey: '', provedKey: '' };
const FAILED: StrapVerdict = { ok: false };
