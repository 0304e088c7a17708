/**
 * A process that makes sessions: logins and first CONNECTs of each `--parts`-th number, from `--part` on and below `--to`,
 * several at a time. It tells how many are there, and ends early when it is told to.
 */
import { parseArgs } from 'node:util';
import { defaultRedisSettings, Redis, RedisSessions } from '@sallyport/cluster';
import { claimOf, loginOf, nodeOf } from './traffic.ts';

const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '' },
    seed: { type: 'string', default: '' },
    part: { type: 'string', default: '0' },
    parts: { type: 'string', default: '1' },
    to: { type: 'string', default: '0' },
    nodes: { type: 'string', default: '1' },
    ipv4: { type: 'string', default: '' },
    ipv6: { type: 'string', default: '' },
  },
});

const redis = await Redis.open(defaultRedisSettings({ url: `redis://127.0.0.1:${values.port}` }), {
  windowMicros: 0n,
  deadlineMillis: 60_000,
});
const sessions = new RedisSessions({ redis, pollMillis: 3_600_000 });
const parts = Number(values.parts);
let to = Number(values.to);
let next = Number(values.part);
let done = 0;

async function lane(): Promise<void> {
  while (next < to) {
    const index = next;
    next += parts;
    const session = await sessions.create(loginOf(values.seed, index, values));
    const claim = await sessions.claim(
      claimOf(session.tokenHash, index, nodeOf(index % Number(values.nodes))),
    );
    if (!claim.ok) throw new Error(`claim ${index} is refused: ${claim.reason}`);
    done++;
  }
}

const LANES = 32;
process.on('message', () => (to = 0));
const telling = setInterval(() => process.send?.({ done }), 1000);
await Promise.all(Array.from({ length: LANES }, lane));
clearInterval(telling);
process.send?.({ done });
await redis.close();
process.disconnect();
