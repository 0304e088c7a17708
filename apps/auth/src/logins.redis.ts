import type { Redis } from '@sallyport/cluster';
import { NewerVersion, clientPlace, loadScript } from '@sallyport/cluster';
import { LOGIN_VERSION, type Login } from './login.ts';
import { MAX_LOGINS, type Logins } from './logins.ts';

/**
 * Logins that any replica of auth can go on with. A record lies under its id and goes by itself after its time; an index
 * of each address and one of all, sorted by the end of the time, bound how many are pending.
 */
export class RedisLogins implements Logins {
  readonly #redis: Redis;
  readonly #now: () => number;
  readonly #max: number;

  /** @param now ms since 1970; the clocks of the replicas differ by less than a login's time matters. */
  constructor(redis: Redis, now: () => number = Date.now, max = MAX_LOGINS) {
    this.#redis = redis;
    this.#now = now;
    this.#max = max;
  }

  async add(login: Login, maxPerAddress: number): Promise<boolean> {
    const [added] = await this.#run('add', { ...entryOf(login), maxPerAddress, max: this.#max });
    return added === 1;
  }

  async find(id: string): Promise<Login | undefined> {
    const [text] = await this.#run('find', { id });
    return text === undefined ? undefined : decodeLogin(String(text));
  }

  async replace(login: Login, revision: number): Promise<boolean> {
    const [done] = await this.#run('replace', { ...entryOf(login), revision, max: this.#max });
    return done === 1;
  }

  async remove(id: string): Promise<void> {
    await this.#run('remove', { id });
  }

  #run(verb: 'add' | 'find' | 'replace' | 'remove', args: object) {
    return this.#redis.run(SCRIPT, { verb, now: this.#now(), ...args });
  }
}

const SCRIPT = loadScript('logins');

function entryOf(login: Login) {
  const { id, address, expiresAt, state } = login;
  const place = clientPlace(address);
  return { id, address: place, expiresAt, granted: state === 'granted', text: JSON.stringify(login) };
}

/** What a replica wrote; one of a newer release may have written it. */
function decodeLogin(text: string): Login {
  const value: unknown = JSON.parse(text);
  if (!isLogin(value)) throw new Error('a stored login is none');
  if (value.v > LOGIN_VERSION) throw new NewerVersion('a stored login', value.v);
  return value;
}

/** Only our own scripts write there; this tells a record from something else, and an unfinished release from ours. */
function isLogin(value: unknown): value is Login {
  if (typeof value !== 'object' || value === null) return false;
  return FIELDS.every(([name, type]) => typeof Reflect.get(value, name) === type);
}

const FIELDS = [
  ['v', 'number'],
  ['id', 'string'],
  ['revision', 'number'],
  ['state', 'string'],
  ['step', 'number'],
  ['profile', 'string'],
  ['methods', 'object'],
  ['tries', 'number'],
  ['proven', 'object'],
  ['sessionId', 'string'],
  ['address', 'string'],
  ['expiresAt', 'number'],
] as const;
