/** No answer by the deadline: nobody knows whether it was done. */
export class TimedOut extends Error {}

/** Waits for work, which goes on by itself when its time is over. @throws TimedOut */
export async function withDeadline<T>(work: Promise<T>, millis: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new TimedOut('no answer in time')), Math.max(0, millis));
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Time that Redis has for one attempt at least, ms: one that ends without an answer makes the connection anew, and breaks
 * off what others asked on it.
 */
export const ATTEMPT_MILLIS = 200;
