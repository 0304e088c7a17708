import type { Script } from '@sallyport/cluster';
import type { RedisServer } from '@sallyport/cluster/testing';
import { Violation } from './checker.ts';
import { takeStep } from './schedule.ts';
import { SECONDS } from './simulation.ts';
import { World } from './world.ts';

export interface RunOptions {
  server: RedisServer;
  seed: number;
  steps: number;
  mutate?: (script: Script) => Script;
}

export interface RunResult {
  violation: Violation | undefined;
  /** Steps taken until then. */
  steps: number;
  trace: readonly string[];
  sessions: number;
}

/** One history: steps by chance, then everything works again and must come to rest, then everything ends. */
export async function runModel({ server, seed, steps, mutate }: RunOptions): Promise<RunResult> {
  const world = await World.open({ server, seed, ...(mutate && { mutate }) });
  const giveBack = world.sim.takeTimers();
  let taken = 0;
  try {
    await world.begin();
    while (taken < steps && world.checker.violation === undefined) {
      taken += 1;
      await takeStep(world);
    }
    await rest(world);
    await endAll(world);
    const { violation } = world.checker;
    return { violation, steps: taken, trace: world.trace, sessions: world.checker.known.size };
  } finally {
    giveBack();
    await world.close();
  }
}

async function rest(world: World): Promise<void> {
  if (world.checker.violation !== undefined) return;
  await world.heal();
  await world.pass(REST / 2);
  for (const client of world.clients) client.connect();
  await world.pass(REST / 2);
  if (world.checker.violation === undefined) world.checker.handleRest(world.clients);
}

async function endAll(world: World): Promise<void> {
  if (world.checker.violation !== undefined) return;
  for (const client of world.clients) client.retire();
  await world.pass(LIFETIMES);
  if (world.checker.violation === undefined) world.checker.handleFacts(world.facts);
}

/** Window of assertion, isolation, retries. */
const REST = 60 * SECONDS;
/** Longer than a session without a tunnel may live, its end in the facts included. */
const LIFETIMES = 75 * SECONDS;
