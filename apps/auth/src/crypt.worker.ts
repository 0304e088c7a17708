import { timingSafeEqual } from 'node:crypto';
import { parentPort } from 'node:worker_threads';
import { encrypt } from 'unixcrypt';

/** The thread behind passwords.ts: one check per message, in order. The only file on unixcrypt. */
parentPort?.on('message', ({ id, password, hash }: { id: number; password: string; hash: string }) => {
  parentPort?.postMessage({ id, right: isRight(password, hash) });
});

function isRight(password: string, hash: string): boolean {
  try {
    const computed = Buffer.from(digestOf(encrypt(password, hash.slice(0, hash.lastIndexOf('$')))));
    const stored = Buffer.from(digestOf(hash));
    return computed.length === stored.length && timingSafeEqual(computed, stored);
  } catch {
    return false;
  }
}

/** Without the salt part: `rounds=5000` may be spelled out in one and not in the other. */
function digestOf(hash: string): string {
  return hash.slice(hash.lastIndexOf('$') + 1);
}
