import { concatBytes, decodeBase64 } from './bytes.ts';

/**
 * STRAP binds a session to a key of the client (docs/protocol.md §5.7): at CONNECT the client signs, with the key known
 * so far, its own TLS Finished and the key that it uses from then on.
 */

/** The bytes under `X-AnyConnect-STRAP-Verify`: client Finished verify_data (12 or 48 bytes) ‖ SPKI of the new key. */
export function strapMessage(clientFinished: Uint8Array, newSpki: Uint8Array): Uint8Array {
  return concatBytes(clientFinished, newSpki);
}

/** `X-AnyConnect-STRAP-Pubkey`: DER of the SPKI. @returns undefined if it is not base64, or not the SPKI of a P-256 key. */
export function parseStrapKey(text: string): Uint8Array | undefined {
  if (text.length > MAX_STRAP_TEXT) return undefined;
  const spki = decodeBase64(text);
  if (spki?.length !== P256_SPKI_BYTES) return undefined;
  return P256_SPKI_HEAD.every((byte, at) => spki[at] === byte) ? spki : undefined;
}

/** `X-AnyConnect-STRAP-Verify`: DER of the ECDSA-SHA256 signature. @returns undefined if it cannot be one. */
export function parseStrapSignature(text: string): Uint8Array | undefined {
  if (text.length > MAX_STRAP_TEXT) return undefined;
  const signature = decodeBase64(text);
  if (signature === undefined || signature.length < 8 || signature[0] !== 0x30) return undefined;
  return signature[1] === signature.length - 2 ? signature : undefined;
}

/** SEQUENCE { SEQUENCE { ecPublicKey, prime256v1 }, BIT STRING { 04 x y } }, RFC 5480 §2. */
const P256_SPKI_HEAD = [
  0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
  0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const P256_SPKI_BYTES = 91;
/** Longest base64 text looked at, in characters. */
export const MAX_STRAP_TEXT = 256;
