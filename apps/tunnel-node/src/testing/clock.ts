/** Monotonic time that only a test moves. */
export class TestClock {
  #ms = 1_000_000;
  readonly now = (): number => this.#ms;

  /** Lets time pass in steps of a tick, and ticks at each. */
  pass(seconds: number, ticking: { handleTick(): void }): void {
    const end = this.#ms + seconds * 1000;
    while (this.#ms < end) {
      this.#ms = Math.min(end, this.#ms + 1000);
      ticking.handleTick();
    }
  }
}
