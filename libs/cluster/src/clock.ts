import type { Micros } from './session.ts';

/** µs since 1970. Each form of a store has one, and all its decisions use it. */
export type Clock = () => Micros;

/** The machine's clock, which within this process never goes back. */
export function systemClock(): Clock {
  let last = 0n;
  return () => {
    const now = BigInt(Date.now()) * 1000n;
    if (now > last) last = now;
    return last;
  };
}
