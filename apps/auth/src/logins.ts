import { clientPlace } from '@sallyport/cluster';
import type { Login } from './login.ts';

/**
 * Logins that are under way, found by their id on any replica. A record is JSON; a Redis form keeps it as such.
 * A store that cannot answer rejects with `StoreUnavailable`.
 */
export interface Logins {
  /**
   * @param maxPerAddress pending logins of one client address (`clientPlace`); 0 = no limit. At the limit the one that
   * nobody touched for longest yields, if that is LOGIN_REST_MS. @returns false: none does.
   */
  add(login: Login, maxPerAddress: number): Promise<boolean>;
  /** @returns undefined: never heard of, or past its time. */
  find(id: string): Promise<Login | undefined>;
  /** Stores the login if the one in the store has `revision`, in one step. @returns done? */
  replace(login: Login, revision: number): Promise<boolean>;
  remove(id: string): Promise<void>;
}

/**
 * The form of one process. Bounded: when it is full the oldest pending login goes, because a flood of new ones must
 * not lock everybody out, and one that waits for its user for that long is the cheapest to lose.
 */
export class MemoryLogins implements Logins {
  readonly #now: () => number;
  readonly #max: number;
  /** Oldest first, in the order of their end. */
  readonly #pending = new Map<string, Login>();
  /** Granted ones wait for a repeat of the last reply; they have a shorter time. */
  readonly #granted = new Map<string, Login>();
  /** Pending ones: place to ids with the time of the last reply, that which rests longest first. */
  readonly #perPlace = new Map<string, Map<string, number>>();

  /** @param now ms since 1970. */
  constructor(now: () => number, max = MAX_LOGINS) {
    this.#now = now;
    this.#max = max;
  }

  add(login: Login, maxPerAddress: number): Promise<boolean> {
    this.#forgetOld();
    if (maxPerAddress > 0 && !this.#makeRoom(clientPlace(login.address), maxPerAddress))
      return Promise.resolve(false);
    if (this.#pending.size >= this.#max) this.#forgetOldest(this.#pending);
    this.#put(login);
    return Promise.resolve(true);
  }

  find(id: string): Promise<Login | undefined> {
    const login = this.#pending.get(id) ?? this.#granted.get(id);
    return Promise.resolve(login && login.expiresAt > this.#now() ? login : undefined);
  }

  replace(login: Login, revision: number): Promise<boolean> {
    const present = this.#pending.get(login.id) ?? this.#granted.get(login.id);
    if (present?.revision !== revision) return Promise.resolve(false);
    if (login.state === 'granted') {
      this.#forget(present);
      if (this.#granted.size >= this.#max) this.#forgetOldest(this.#granted);
      this.#granted.set(login.id, login);
    } else {
      const pending = this.#pending.has(login.id);
      (pending ? this.#pending : this.#granted).set(login.id, login);
      if (pending) this.#touch(login);
    }
    return Promise.resolve(true);
  }

  remove(id: string): Promise<void> {
    const login = this.#pending.get(id) ?? this.#granted.get(id);
    if (login) this.#forget(login);
    return Promise.resolve();
  }

  get size(): number {
    return this.#pending.size + this.#granted.size;
  }

  #put(login: Login): void {
    this.#pending.set(login.id, login);
    this.#touch(login);
  }

  #touch(login: Login): void {
    const place = clientPlace(login.address);
    const touched = this.#perPlace.get(place) ?? new Map<string, number>();
    touched.delete(login.id);
    touched.set(login.id, this.#now());
    this.#perPlace.set(place, touched);
  }

  /** Many clients may share an address: logins that somebody leaves behind there must not keep the others out. */
  #makeRoom(place: string, maxPerAddress: number): boolean {
    const touched = this.#perPlace.get(place);
    if (touched === undefined || touched.size < maxPerAddress) return true;
    for (const [id, at] of touched) {
      const login = this.#pending.get(id);
      if (login === undefined || this.#now() - at < LOGIN_REST_MS) return false;
      this.#forget(login);
      if (touched.size < maxPerAddress) return true;
    }
    return true;
  }

  #forget(login: Login): void {
    this.#granted.delete(login.id);
    if (!this.#pending.delete(login.id)) return;
    const place = clientPlace(login.address);
    const touched = this.#perPlace.get(place);
    touched?.delete(login.id);
    if (touched?.size === 0) this.#perPlace.delete(place);
  }

  #forgetOld(): void {
    const now = this.#now();
    for (const logins of [this.#pending, this.#granted]) {
      for (const login of logins.values()) {
        if (login.expiresAt > now) break;
        this.#forget(login);
      }
    }
  }

  #forgetOldest(logins: Map<string, Login>): void {
    const [oldest] = logins.values();
    if (oldest) this.#forget(oldest);
  }
}

/**
 * How long a login rests before it yields to another one of its address. It bounds guesses too: an address has at most
 * `max-logins-per-address` × `max-login-tries` in this time.
 */
export const LOGIN_REST_MS = 30_000;
/** Pending logins, and granted ones, at about 1 KB each. */
export const MAX_LOGINS = 20_000;
