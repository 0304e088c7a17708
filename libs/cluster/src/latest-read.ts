/** Reads one at a time: several that ask while one is under way share the next, which begins after they have asked. */
export class LatestRead<T> {
  readonly #read: () => Promise<T>;
  #reading: Promise<unknown> = Promise.resolve();
  #next: Promise<T> | undefined;

  constructor(read: () => Promise<T>) {
    this.#read = read;
  }

  /** @returns what a read gave that began later than this call. Rejects as it does. */
  run(): Promise<T> {
    if (this.#next !== undefined) return this.#next;
    const next = this.#reading
      .catch(() => undefined)
      .then(() => {
        this.#reading = next;
        this.#next = undefined;
        return this.#read();
      });
    this.#next = next;
    return next;
  }
}
