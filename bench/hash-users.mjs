// node hash-users.mjs FROM TO: a file of `user:password` lines to a users-file. The hash is scrypt, computed natively like
// in a real installation, with the CPU cost of one `$5$` check by the C library: what ocserv does for each login. Equal
// passwords are hashed once, because thousands of lines share one.
import { spawnSync } from 'node:child_process';
import { randomBytes, scryptSync } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';

/** N = 2^8, p = 4: the block size `r` then sets the cost in steps of about 0.3 ms. */
const LOG_N = 8;
const PASSES = 4;
const SAMPLES = 25;

const [from, to] = process.argv.slice(2);
const wanted = cryptMilliseconds();
const blockSize = Math.max(1, Math.round(wanted / (scryptMilliseconds(16) / 16)));
console.log(
  `password hash: scrypt ln=${LOG_N},r=${blockSize},p=${PASSES} at ${scryptMilliseconds(blockSize).toFixed(2)} ms CPU, one $5$ check in C: ${wanted.toFixed(2)} ms`,
);

const hashes = new Map();
const lines = readFileSync(from, 'utf8')
  .split('\n')
  .filter(Boolean)
  .map((line) => {
    const colon = line.indexOf(':');
    const password = line.slice(colon + 1);
    if (!hashes.has(password)) hashes.set(password, hash(password));
    return `${line.slice(0, colon)}:*:${hashes.get(password)}\n`;
  });
writeFileSync(`${to}.new`, lines.join(''), { mode: 0o600 });
renameSync(`${to}.new`, to);

function hash(password) {
  const salt = randomBytes(16);
  const digest = derive(password, salt, blockSize);
  return `$scrypt$ln=${LOG_N},r=${blockSize},p=${PASSES}$${bare(salt)}$${bare(digest)}`;
}

function derive(password, salt, r) {
  return scryptSync(password, salt, 32, { N: 2 ** LOG_N, r, p: PASSES, maxmem: 64 * 1024 * 1024 });
}

function bare(bytes) {
  return bytes.toString('base64').replace(/=+$/, '');
}

function scryptMilliseconds(r) {
  return median(() => {
    const before = process.cpuUsage();
    derive('a password', 'a salt of sixteen', r);
    const used = process.cpuUsage(before);
    return (used.user + used.system) / 1000;
  });
}

/** CPU time of crypt(3) with 5,000 rounds, which is what ocpasswd writes. */
function cryptMilliseconds() {
  const program = `use Time::HiRes qw(clock); for (1..${SAMPLES}) { my $t = clock(); crypt("a password$_", '$5$abcdefghijklmnop'); printf "%.6f\\n", clock() - $t }`;
  const result = spawnSync('perl', ['-e', program], { encoding: 'utf8' });
  const times = (result.stdout ?? '').trim().split('\n').map(Number);
  if (result.status !== 0 || times.length !== SAMPLES)
    throw new Error(`perl could not time crypt(3): ${result.stderr}`);
  if (!times.every((seconds) => seconds > 0))
    throw new Error('perl could not time crypt(3): it took no time');
  return median(() => times.shift() * 1000);
}

function median(sample) {
  const values = Array.from({ length: SAMPLES }, sample).sort((a, b) => a - b);
  return values[(SAMPLES - 1) / 2];
}
