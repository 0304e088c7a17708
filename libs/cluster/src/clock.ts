import { performance } from 'node:perf_hooks';
import type { Micros } from './session.ts';

/** µs since 1970. Each form of a store has one, and all its decisions use it. */
export type Clock = () => Micros;

/**
 * The time at the start of this process and what has passed since then: it neither
 * goes back nor stands still nor jumps when the machine's clock is set, so no lifetime does. All in a process agree.
 */
export function systemClock(): Clock {
  let last = 0n;
  return () => {
    const now = BigInt(Math.floor((performance.timeOrigin + performance.now()) * 1000));
    if (now > last) last = now;
    return last;
  };
}
