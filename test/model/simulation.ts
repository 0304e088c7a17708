/*
 * Time, chance and who does what. One thing happens at a time; between two of them all promises have settled, so the same
 * seed gives the same run. Timers of the real code are taken over: they belong to the actor that set them, wait while it
 * is frozen and are gone with it.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

/** A process: what it has started is dropped when it dies and waits while it is frozen. */
export interface Actor {
  readonly name: string;
  alive: boolean;
  /** µs; 0 = it runs. */
  frozenUntil: number;
}

export class Simulation {
  /** µs since 1970. */
  now = START;
  readonly random: Random;
  readonly #queue = new Queue();
  readonly #current = new AsyncLocalStorage<Actor | undefined>();
  #count = 0;

  constructor(seed: number) {
    this.random = new Random(seed);
  }

  get idle(): boolean {
    return this.#queue.first === undefined;
  }

  /** @param actor undefined = nobody who could die. @returns how to call it off. */
  after(micros: number, actor: Actor | undefined, run: () => void | Promise<void>): () => void {
    const at = this.now + Math.max(1, Math.round(micros));
    const happening: Happening = { at, due: at, order: ++this.#count, actor, run, off: false };
    this.#queue.push(happening);
    return () => (happening.off = true);
  }

  /** Runs one thing as this actor, until nothing goes on by itself. */
  async act(actor: Actor | undefined, run: () => void | Promise<void>): Promise<void> {
    await this.#current.run(actor, run);
    await settled();
  }

  /** The next thing that happens by `until`. @returns false = there is none, and it is `until` now. */
  async next(until: number): Promise<boolean> {
    for (;;) {
      const happening = this.#queue.first;
      if (happening === undefined || happening.at > until) {
        this.now = Math.max(this.now, until);
        return false;
      }
      this.#queue.pop();
      this.now = Math.max(this.now, happening.at);
      const { actor, off, run } = happening;
      if (off || (actor !== undefined && !actor.alive)) continue;
      if (actor !== undefined && actor.frozenUntil > this.now) {
        this.#queue.push({ ...happening, at: actor.frozenUntil });
        continue;
      }
      await this.act(actor, run);
      return true;
    }
  }

  /** Takes over the timers and the chance of this process. @returns how to give them back. */
  takeTimers(): () => void {
    const real = { setTimeout, clearTimeout, setInterval, clearInterval };
    const start = (every: boolean, run: (...args: unknown[]) => void, millis = 0, args: unknown[] = []) => {
      const actor = this.#current.getStore();
      const timer = new Timer();
      const fire = () => {
        if (every) timer.off = this.after(millis * 1000, actor, fire);
        run(...args);
      };
      timer.off = this.after(millis * 1000, actor, fire);
      return timer;
    };
    const stop = (timer: unknown) => {
      if (timer instanceof Timer) timer.off();
    };
    Object.assign(globalThis, {
      setTimeout: (run: () => void, millis?: number, ...args: unknown[]) => start(false, run, millis, args),
      setInterval: (run: () => void, millis?: number, ...args: unknown[]) => start(true, run, millis, args),
      clearTimeout: stop,
      clearInterval: stop,
    });
    const { random } = Math;
    Object.assign(Math, { random: () => this.random.below(2 ** 30) / 2 ** 30 });
    return () => {
      Object.assign(globalThis, real);
      Object.assign(Math, { random });
    };
  }
}

/** Looks like one of Node's. */
class Timer {
  off: () => void = () => undefined;

  unref(): this {
    return this;
  }

  ref(): this {
    return this;
  }
}

/** Whole numbers, the same for the same seed (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** From 0 to below `limit`. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return limit <= 0 ? 0 : ((t ^ (t >>> 14)) >>> 0) % limit;
  }

  between(least: number, most: number): number {
    return least + this.below(most - least + 1);
  }

  /** Happens so many times in a thousand. */
  permille(share: number): boolean {
    return this.below(1000) < share;
  }

  pick<T>(of: readonly T[]): T | undefined {
    return of[this.below(of.length)];
  }
}

interface Happening {
  at: number;
  /** When it would have happened if its actor had not been frozen: keeps the order. */
  due: number;
  order: number;
  actor: Actor | undefined;
  run: () => void | Promise<void>;
  off: boolean;
}

/** A binary heap. */
class Queue {
  readonly #items: Happening[] = [];

  get first(): Happening | undefined {
    return this.#items[0];
  }

  push(item: Happening): void {
    const items = this.#items;
    let at = items.push(item) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#swapIfBefore(at, parent)) return;
      at = parent;
    }
  }

  pop(): void {
    const items = this.#items;
    const last = items.pop();
    if (last === undefined || items.length === 0) return;
    items[0] = last;
    for (let at = 0; ;) {
      const [left, right] = [2 * at + 1, 2 * at + 2];
      const [a, b] = [items[left], items[right]];
      if (a === undefined) return;
      const child = b !== undefined && isBefore(b, a) ? right : left;
      if (!this.#swapIfBefore(child, at)) return;
      at = child;
    }
  }

  #swapIfBefore(child: number, parent: number): boolean {
    const items = this.#items;
    const [a, b] = [items[child], items[parent]];
    if (a === undefined || b === undefined || !isBefore(a, b)) return false;
    items[child] = b;
    items[parent] = a;
    return true;
  }
}

function isBefore(a: Happening, b: Happening): boolean {
  if (a.at !== b.at) return a.at < b.at;
  return a.due !== b.due ? a.due < b.due : a.order < b.order;
}

/** All promises that wait for nothing outside have gone on. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export const START = 1_800_000_000_000_000;
export const MILLIS = 1000;
export const SECONDS = 1_000_000;
