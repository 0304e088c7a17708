import { createHmac, randomBytes, scrypt, timingSafeEqual, type ScryptOptions } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { Worker } from 'node:worker_threads';
import { hash as argon2Hash, verify as argon2Verify } from '@node-rs/argon2';

/*
 * Password hashes, all computed off the event loop, a few at a time:
 *
 *   $argon2id$v=19$m=19456,t=2,p=1$SALT$DIGEST     what we write; libuv's pool
 *   $scrypt$ln=14,r=8,p=1$SALT$DIGEST              native, cost as finely graded as one likes; libuv's pool
 *   $5$…  $6$…                                     what ocpasswd writes; a worker thread
 *
 * The part before the salt is the *cost* of a hash: two hashes of the same cost take the same time.
 */

/** Longest password in UTF-16 units. */
export const MAX_PASSWORD_LENGTH = 256;
/** Rounds of `$5$` and `$6$`; the crypt functions take up to 999,999,999, which is an hour. */
export const MAX_CRYPT_ROUNDS = 200_000;
/** Memory of one hash, whatever its kind. */
export const MAX_HASH_MEMORY_BYTES = 256 * 1024 * 1024;
/** Passes over the memory: `t` of argon2, `p` of scrypt. */
export const MAX_HASH_PASSES = 16;
/** Hashes computed at the same time: half of libuv's smallest pool, the rest is for files and names. */
export const HASH_CONCURRENCY = 2;
/** Checks that wait. At 20 ms each and two at a time the last one waits 10 s. */
export const MAX_WAITING_HASHES = 1_000;
/** How long one may wait, for hashes that take longer: clients give up at 30 s, and the check itself takes time too. */
export const MAX_HASH_WAIT_MS = 20_000;

export type HashRecipe =
  | { kind: 'argon2id'; memoryKib: number; passes: number; lanes: number }
  | { kind: 'scrypt'; logN: number; blockSize: number; passes: number };

export const DEFAULT_RECIPE: HashRecipe = { kind: 'argon2id', memoryKib: 19_456, passes: 2, lanes: 1 };

/** `busy`: too many wait already, or it waited too long. */
export type PasswordVerdict = 'right' | 'wrong' | 'busy';

export class Passwords {
  readonly #turns: Turns;
  readonly #crypt = new CryptThread();
  /** Of this process: an unknown name always meets the same cost, and nobody outside can tell which. */
  readonly #nobodyKey = randomBytes(32);

  /** @param now monotonic, ms. */
  constructor(now = () => performance.now()) {
    this.#turns = new Turns(HASH_CONCURRENCY, MAX_WAITING_HASHES, MAX_HASH_WAIT_MS, now);
  }

  /** @param hash of the user; one that cannot be verified is as wrong as any, after the time that a check takes. */
  async verify(password: string, hash: string): Promise<PasswordVerdict> {
    const usable = hashProblem(hash) === '' && passwordProblem(password) === '';
    const checked = usable ? hash : dummyHash(hashProblem(hash) === '' ? costOf(hash) : DEFAULT_COST);
    const release = await this.#turns.take();
    if (!release) return 'busy';
    try {
      const right = await this.#compute(password.slice(0, MAX_PASSWORD_LENGTH), checked);
      return right && usable ? 'right' : 'wrong';
    } finally {
      release();
    }
  }

  /**
   * What an unknown user meets: a check of the same cost as that of some user who exists, chosen by his name, so that
   * neither the answer nor its time tells the two apart.
   * @param costs one per existing user.
   */
  async verifyNobody(name: string, password: string, costs: readonly string[]): Promise<PasswordVerdict> {
    const chosen =
      createHmac('sha256', this.#nobodyKey).update(name).digest().readUInt32BE(0) % Math.max(1, costs.length);
    const verdict = await this.verify(password, dummyHash(costs[chosen] ?? DEFAULT_COST));
    // Fail closed: nobody is ever right, even if the dummy should match.
    return verdict === 'busy' ? 'busy' : 'wrong';
  }

  async close(): Promise<void> {
    await this.#crypt.close();
  }

  #compute(password: string, hash: string): Promise<boolean> {
    if (hash.startsWith('$argon2id$')) return argon2Verify(hash, password).catch(() => false);
    if (hash.startsWith('$scrypt$')) return verifyScrypt(password, hash);
    return this.#crypt.verify(password, hash);
  }
}

/** Text of a new hash. @throws Error when the password is empty or too long. */
export async function hashPassword(password: string, recipe: HashRecipe = DEFAULT_RECIPE): Promise<string> {
  const problem = passwordProblem(password);
  if (problem) throw new Error(problem);
  if (recipe.kind === 'argon2id') {
    // argon2id is the library's own default; its enum cannot be imported from an isolated module.
    return argon2Hash(password, {
      memoryCost: recipe.memoryKib,
      timeCost: recipe.passes,
      parallelism: recipe.lanes,
    });
  }
  const salt = randomBytes(16);
  const digest = await scryptDigest(password, salt, recipe, SCRYPT_DIGEST_BYTES);
  return `$scrypt$ln=${recipe.logN},r=${recipe.blockSize},p=${recipe.passes}$${base64(salt)}$${base64(digest)}`;
}

/** '' = a password that we take. */
export function passwordProblem(password: string): string {
  if (password === '') return 'a password is missing';
  if (password.length > MAX_PASSWORD_LENGTH)
    return `a password has at most ${MAX_PASSWORD_LENGTH} characters`;
  if (password.includes('\0')) return 'a password holds no NUL';
  return '';
}

/** Why this hash cannot be verified; '' = it can. The text does not repeat it. */
export function hashProblem(hash: string): string {
  if (hash.startsWith('$1$')) return 'the hash is MD5 ($1$), which is too weak: set the password anew';
  if (hash.startsWith('$argon2id$')) return argon2Problem(hash);
  if (hash.startsWith('$scrypt$')) {
    const recipe = parseScrypt(hash);
    if (!recipe) return 'the scrypt hash is malformed';
    return 128 * recipe.blockSize * 2 ** recipe.logN > MAX_HASH_MEMORY_BYTES ||
      recipe.passes > MAX_HASH_PASSES
      ? TOO_COSTLY
      : '';
  }
  const crypt = CRYPT.exec(hash);
  if (!crypt) return 'the hash is of no kind that we know ($argon2id$, $scrypt$, $5$, $6$)';
  return Number(crypt[2] ?? 0) > MAX_CRYPT_ROUNDS ? `the hash has more than ${MAX_CRYPT_ROUNDS} rounds` : '';
}

/** The part of a hash that decides how long a check takes. */
export function costOf(hash: string): string {
  const fields = hash.split('$');
  const end = hash.startsWith('$argon2id$')
    ? 4
    : hash.startsWith('$scrypt$') || fields[2]?.startsWith('rounds=')
      ? 3
      : 2;
  return fields.slice(0, end).join('$');
}

function dummyHash(cost: string): string {
  if (cost.startsWith('$argon2id$')) return `${cost}$${'A'.repeat(22)}$${'A'.repeat(43)}`;
  if (cost.startsWith('$scrypt$')) return `${cost}$${'A'.repeat(22)}$${'A'.repeat(43)}`;
  return `${cost}$${'.'.repeat(16)}$${'.'.repeat(cost.startsWith('$5') ? 43 : 86)}`;
}

function argon2Problem(hash: string): string {
  const match = ARGON2ID.exec(hash);
  if (!match) return 'the argon2id hash is malformed';
  return Number(match[1]) * 1024 > MAX_HASH_MEMORY_BYTES || Number(match[2]) > MAX_HASH_PASSES
    ? TOO_COSTLY
    : '';
}

async function verifyScrypt(password: string, hash: string): Promise<boolean> {
  const recipe = parseScrypt(hash);
  if (!recipe) return false;
  const digest = await scryptDigest(password, recipe.salt, recipe, recipe.digest.length);
  return timingSafeEqual(digest, recipe.digest);
}

function parseScrypt(hash: string) {
  const match = SCRYPT.exec(hash);
  if (!match) return undefined;
  const [, logN, blockSize, passes, salt = '', digest = ''] = match;
  const recipe = { logN: Number(logN), blockSize: Number(blockSize), passes: Number(passes) };
  if (recipe.logN < 1 || recipe.logN > 30 || recipe.blockSize < 1 || recipe.passes < 1) return undefined;
  return { ...recipe, salt: Buffer.from(salt, 'base64'), digest: Buffer.from(digest, 'base64') };
}

function scryptDigest(
  password: string,
  salt: Uint8Array,
  cost: { logN: number; blockSize: number; passes: number },
  lengthBytes: number,
): Promise<Buffer> {
  const N = 2 ** cost.logN;
  const memory = 128 * cost.blockSize * (N + cost.passes + 2);
  const options: ScryptOptions = { N, r: cost.blockSize, p: cost.passes, maxmem: memory + 1024 * 1024 };
  return new Promise((resolve, reject) => {
    scrypt(password, salt, lengthBytes, options, (error, digest) =>
      error ? reject(error) : resolve(digest),
    );
  });
}

/** At most so many at work, at most so many waiting, and not for longer; first come first served. */
class Turns {
  readonly #atOnce: number;
  readonly #maxWaiting: number;
  readonly #maxWaitMs: number;
  readonly #now: () => number;
  readonly #waiting: { since: number; go: (release: (() => void) | undefined) => void }[] = [];
  #working = 0;

  constructor(atOnce: number, maxWaiting: number, maxWaitMs: number, now: () => number) {
    this.#atOnce = atOnce;
    this.#maxWaiting = maxWaiting;
    this.#maxWaitMs = maxWaitMs;
    this.#now = now;
  }

  /** @returns how to give the turn back; undefined when too many wait, or this one did for too long. */
  take(): Promise<(() => void) | undefined> {
    if (this.#working < this.#atOnce) {
      this.#working += 1;
      return Promise.resolve(this.#release);
    }
    if (this.#waiting.length >= this.#maxWaiting) return Promise.resolve(undefined);
    return new Promise((go) => this.#waiting.push({ since: this.#now(), go }));
  }

  readonly #release = (): void => {
    for (let next = this.#waiting.shift(); next; next = this.#waiting.shift()) {
      if (this.#now() - next.since < this.#maxWaitMs) return next.go(this.#release);
      next.go(undefined);
    }
    this.#working -= 1;
  };
}

/** One thread for crypt hashes, started when the first one comes; it does not keep the process alive. */
class CryptThread {
  #worker: Worker | undefined;
  readonly #pending = new Map<
    number,
    { resolve: (right: boolean) => void; reject: (error: Error) => void }
  >();
  #lastId = 0;
  #closed = false;

  verify(password: string, hash: string): Promise<boolean> {
    if (this.#closed) return Promise.reject(new Error('password checks have stopped'));
    const worker = (this.#worker ??= this.#start());
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      worker.ref();
      worker.postMessage({ id, password, hash });
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(new URL('./crypt.worker.js', import.meta.url), { name: 'sallyport-crypt' });
    worker.on('message', ({ id, right }: { id: number; right: boolean }) => {
      this.#pending.get(id)?.resolve(right);
      this.#pending.delete(id);
      if (this.#pending.size === 0) worker.unref();
    });
    worker.on('error', (error) => this.#fail(error));
    worker.on('exit', () => this.#fail(new Error('the thread for password checks ended')));
    return worker;
  }

  #fail(error: Error): void {
    this.#worker = undefined;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64').replace(/=+$/, '');
}

const SCRYPT_DIGEST_BYTES = 32;
const DEFAULT_COST = '$argon2id$v=19$m=19456,t=2,p=1';
const TOO_COSTLY = 'the hash costs more memory or time than we give a login';
const ARGON2ID =
  /^\$argon2id\$v=19\$m=(\d{1,9}),t=(\d{1,4}),p=\d{1,3}\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}$/;
const SCRYPT =
  /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,3}),p=(\d{1,3})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{43})$/;
const CRYPT = /^\$([56])\$(?:rounds=(\d{1,9})\$)?[./0-9A-Za-z]{0,16}\$[./0-9A-Za-z]{43,86}$/;
