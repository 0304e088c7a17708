/*
 * What one actor sees of the store: the real calls over a network that loses, delays and repeats. It has the promises of the
 * real connection (redis.ts): a deadline, the same request again when the connection broke, a confirmation where asked for.
 */
import { StoreUnavailable, type Script, type Scripts } from '@sallyport/cluster';
import type { Actor } from './simulation.ts';
import { MILLIS, SECONDS, type Simulation } from './simulation.ts';
import { PREFIX, type Primary, type Reply, type Store } from './store.ts';

export interface LinkParts {
  sim: Simulation;
  store: Store;
  actor: Actor;
  /** Can this actor reach the store now? */
  isCut: (actor: Actor) => boolean;
  /** How rough the network is: faults in a thousand requests, of each kind. */
  roughness: () => number;
}

export class Link implements Scripts {
  readonly prefix = PREFIX;
  readonly closed = false;
  /** Monotonic µs of the last answer. */
  heardAt: number;
  readonly #parts: LinkParts;
  readonly #listeners = new Set<(reign: string) => void>();
  #reign = '';

  constructor(parts: LinkParts) {
    this.#parts = parts;
    this.heardAt = parts.sim.now;
  }

  get reign(): string {
    return this.#reign;
  }

  onReign(listener: (reign: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  run(script: Script, args: object, { confirm = false } = {}): Promise<Reply> {
    // What is sent does not change any more, also when it is sent twice.
    const sent: object = JSON.parse(
      JSON.stringify(args, (_key, value: unknown) => (typeof value === 'bigint' ? `${value}` : value)),
    );
    return this.#request(
      (primary) => this.#parts.store.execute(this.#parts.actor.name, primary, script, sent),
      confirm,
    );
  }

  async confirm(): Promise<void> {
    const reign = this.#reign;
    await this.#request((primary) => this.#parts.store.confirm(primary, reign), false);
  }

  async prove(): Promise<void> {
    const reign = this.#reign;
    await this.#request((primary) => this.#parts.store.prove(primary, reign), false);
  }

  call(command: string, ...args: (string | number | Buffer)[]): Promise<unknown> {
    return this.#request((primary) => this.#parts.store.command(primary, command, args), false);
  }

  #request<T>(execute: (primary: Primary) => Promise<T>, confirm: boolean): Promise<T> {
    const { sim, actor } = this.#parts;
    return new Promise<T>((resolve, reject) => {
      const request = new Request<T>(this.#parts, execute, confirm, (outcome) => {
        request.over = true;
        off();
        if (outcome.reign !== undefined) this.#hear(outcome.reign);
        if (outcome.error !== undefined) reject(outcome.error);
        else resolve(outcome.value as T); // one of both is there
      });
      const off = sim.after(DEADLINE, actor, () => {
        request.over = true;
        reject(new StoreUnavailable('Redis did not answer in time'));
      });
      request.send();
    });
  }

  #hear(reign: string): void {
    this.heardAt = this.#parts.sim.now;
    if (reign === this.#reign) return;
    this.#reign = reign;
    for (const listener of this.#listeners) listener(reign);
  }
}

interface Outcome<T> {
  value?: T;
  error?: Error;
  reign?: string;
}

class Request<T> {
  /** Nobody waits for it any longer; what is on its way may still arrive. */
  over = false;
  readonly #parts: LinkParts;
  readonly #execute: (primary: Primary) => Promise<T>;
  readonly #confirm: boolean;
  readonly #finish: (outcome: Outcome<T>) => void;

  constructor(
    parts: LinkParts,
    execute: (primary: Primary) => Promise<T>,
    confirm: boolean,
    finish: (outcome: Outcome<T>) => void,
  ) {
    this.#parts = parts;
    this.#execute = execute;
    this.#confirm = confirm;
    this.#finish = finish;
  }

  send(): void {
    const { sim, store, actor, isCut, roughness } = this.#parts;
    if (this.over) return;
    if (isCut(actor)) return this.#again();
    const chance = sim.random.below(1000);
    const share = roughness();
    const late = chance < share;
    const lost = chance >= share && chance < 2 * share;
    const unheard = chance >= 2 * share && chance < 3 * share;
    if (lost) return this.#again();
    const primary = store.primaryOf(actor);
    const delay = late ? sim.random.between(500 * MILLIS, 6 * SECONDS) : sim.random.between(100, 2 * MILLIS);
    // It is in the server's hands: it runs even if its sender dies.
    sim.after(delay, undefined, () => this.#arrive(primary, unheard));
  }

  async #arrive(primary: Primary, unheard: boolean): Promise<void> {
    const { sim, store, actor, isCut } = this.#parts;
    // The connection led to a server that is no more.
    if (store.primaryOf(actor) !== primary) return this.#again();
    const outcome: Outcome<T> = {};
    try {
      outcome.value = await this.#execute(primary);
    } catch (error) {
      outcome.error = error instanceof Error ? error : new Error(String(error));
    }
    outcome.reign = primary.reign;
    if (this.over) return;
    if (unheard || isCut(actor)) return this.#again();
    const wait = sim.random.between(100, 3 * MILLIS);
    if (!this.#confirm || outcome.error !== undefined) return this.#answer(wait, outcome);
    sim.after(wait, undefined, async () => {
      try {
        await store.confirm(primary, outcome.reign ?? '');
      } catch (error) {
        if (error instanceof StoreUnavailable) outcome.error = error;
      }
      this.#answer(wait, outcome);
    });
  }

  #answer(delay: number, outcome: Outcome<T>): void {
    const { sim, actor, isCut } = this.#parts;
    sim.after(delay, actor, () => {
      if (this.over) return;
      if (isCut(actor)) this.#again();
      else this.#finish(outcome);
    });
  }

  /** The connection is made anew, and the request sent again. */
  #again(): void {
    const { sim, actor } = this.#parts;
    sim.after(sim.random.between(20, 250) * MILLIS, actor, () => this.send());
  }
}

/** As DEADLINE_MILLIS of redis.ts. */
const DEADLINE = 3 * SECONDS;
