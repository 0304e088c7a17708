import assert from 'node:assert/strict';
import { eventually, PATIENCE_MS, sleep, type World } from '../harness/index.ts';

export interface Expectation {
  /** The counter that must name the cause, and labels it must have. */
  counter: string;
  labels?: Record<string, string>;
  /** At least this many more than before; 1 unless told. */
  atLeast?: number;
  /** How much resident memory may grow. */
  growthBytes?: number;
}

/**
 * Runs an attack. While it runs and after it a valid client logs in each time; the process is the same as
 * before, its memory bounded, and the counter has moved.
 */
export async function survives(
  world: World,
  attack: () => Promise<void>,
  expected: Expectation,
): Promise<void> {
  const { gateway } = world;
  const pid = gateway.pid;
  const memory = gateway.residentBytes();
  const counted = await gateway.metric(expected.counter, expected.labels);
  let running = true;
  const attacking = attack().finally(() => (running = false));
  const honest = (async () => {
    do {
      await validLogin(world);
      if (running) await sleep(PAUSE_MS);
    } while (running);
  })();
  await Promise.all([attacking, honest]);
  await validLogin(world);

  assert.ok(gateway.running, `the gateway ended:\n${gateway.logs().slice(-2000)}`);
  assert.equal(gateway.pid, pid);
  const limit = expected.growthBytes ?? GROWTH_BYTES;
  await eventually('memory is bounded', () => gateway.residentBytes() - memory < limit, PATIENCE_MS, 250);
  await eventually(
    `${expected.counter}${JSON.stringify(expected.labels ?? {})} rises by ${expected.atLeast ?? 1}`,
    async () =>
      (await gateway.metric(expected.counter, expected.labels)) >= counted + (expected.atLeast ?? 1),
  );
}

export async function validLogin(world: World): Promise<void> {
  const client = await world.loggedIn();
  await client.logout();
}

const PAUSE_MS = 150;
/** Room for the garbage of a Node process that was just started. */
const GROWTH_BYTES = 192 * 1024 * 1024;
