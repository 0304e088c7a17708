/*
 * A process to be killed: logs in, connects and ends sessions on the journal folder of its argument, and prints a line
 * for each change only after it was acknowledged.
 */
import { randomUUID } from 'node:crypto';
import { writeSync } from 'node:fs';
import { Journal } from './journal.ts';
import { sampleClaim, sampleLogin } from './session.fake.ts';
import { MemorySessions } from './sessions.memory.ts';
import { hashToken, newToken } from './tokens.ts';

const [folder = ''] = process.argv.slice(2);
const sessions = await MemorySessions.open({
  journal: await Journal.open(folder, { rewriteAboveBytes: 200_000 }),
});
await Promise.all(Array.from({ length: 8 }, (_, worker) => work(worker)));

async function work(worker: number): Promise<never> {
  for (let round = 0; ; round++) {
    const tokenHash = hashToken(newToken());
    const session = await sessions.create(sampleLogin(tokenHash, `user${worker}`));
    tell('authed', session.id);
    const claim = await sessions.claim(sampleClaim(tokenHash, randomUUID()));
    if (!claim.ok) throw new Error(claim.reason);
    tell('up', session.id, claim.addresses.ipv4, String(claim.lease.epoch));
    if (round % 3 !== 0) continue;
    await sessions.end(session.id, 'logout');
    tell('closed', session.id);
  }
}

function tell(...words: string[]): void {
  writeSync(1, `${words.join(' ')}\n`);
}
