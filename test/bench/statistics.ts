/** What Redis and our metrics say of their work: pure. */

/** Calls by command, out of `INFO commandstats`. Commands that a script runs count, too. */
export function commandCalls(info: string): Map<string, number> {
  return new Map(
    [...info.matchAll(/^cmdstat_([^:]+):calls=(\d+)/gm)].map(([, name = '', calls]) => [name, Number(calls)]),
  );
}

/** Calls from one look to the next, less what would have come without the event. */
export interface Work {
  /** Scripts: what a node sends, one round trip each. */
  scripts: number;
  /** All commands, those inside of scripts included. */
  commands: number;
}

/**
 * @param looks three looks: before and after a quiet time, and after the event that began with the second
 * @param quietSeconds from the first to the second. @param eventSeconds from the second to the third
 */
export function workOf(
  looks: readonly [Map<string, number>, Map<string, number>, Map<string, number>],
  quietSeconds: number,
  eventSeconds: number,
): Work {
  const [first, second, third] = looks;
  const net = (isCounted: (name: string) => boolean) => {
    const sum = (calls: Map<string, number>) =>
      [...calls].reduce((total, [name, count]) => total + (isCounted(name) ? count : 0), 0);
    const quiet = (sum(second) - sum(first)) / quietSeconds;
    return Math.max(0, sum(third) - sum(second) - quiet * eventSeconds);
  };
  return { scripts: net((name) => SCRIPTS.has(name)), commands: net((name) => !OURS.has(name)) };
}

/** Sum of all series of a metric in the text form of Prometheus. */
export function metricSum(text: string, name: string): number {
  const lines = text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? ([0-9.e+-]+)$`, 'gm'));
  return [...lines].reduce((total, [, value]) => total + Number(value), 0);
}

const SCRIPTS = new Set(['evalsha', 'eval', 'fcall', 'wait']);
/** The look itself. */
const OURS = new Set(['info']);
