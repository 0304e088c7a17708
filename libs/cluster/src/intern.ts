import { createHash } from 'node:crypto';

/**
 * One copy of equal values: the sessions of a group share their Grant. A value goes when nobody holds it any more.
 * Values are plain data that nobody changes; equal means the same JSON, key order included.
 */
export class Interned<T extends object> {
  readonly #shared = new WeakSet<T>();
  readonly #values = new Map<string, WeakRef<T>>();
  readonly #gone = new FinalizationRegistry<string>((key) => {
    if (this.#values.get(key)?.deref() === undefined) this.#values.delete(key);
  });

  of(value: T): T {
    if (this.#shared.has(value)) return value;
    const key = createHash('sha256').update(JSON.stringify(value)).digest('base64');
    const known = this.#values.get(key)?.deref();
    if (known !== undefined) return known;
    this.#values.set(key, new WeakRef(value));
    this.#shared.add(value);
    this.#gone.register(value, key);
    return value;
  }
}
