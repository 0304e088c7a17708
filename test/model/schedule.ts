/* What is done to the world, step by step, by chance. */
import { AUTHS, NODES, type World } from './world.ts';
import { MILLIS, SECONDS } from './simulation.ts';

/** Does one thing and lets a little time go by. */
export async function takeStep(world: World): Promise<void> {
  const { random } = world.sim;
  let chance = random.below(TOTAL);
  for (const [weight, act] of ACTS) {
    chance -= weight;
    if (chance >= 0) continue;
    await act(world);
    break;
  }
  if (random.permille(500)) await world.replicate();
  await world.pass(random.permille(100) ? random.below(10) * SECONDS : random.below(1000) * MILLIS);
}

type Act = (world: World) => void | Promise<void>;

const ACTS: readonly (readonly [weight: number, act: Act])[] = [
  // Users and operators.
  [120, (world) => world.login()],
  [60, (world) => world.end()],
  [8, (world) => world.endOfUser()],
  [80, (world) => someClient(world)?.race()],
  [80, (world) => someClient(world)?.drop()],
  [60, (world) => someClient(world)?.vanish()],
  [15, (world) => someClient(world)?.leave()],
  [25, (world) => someClient(world)?.bye()],
  [80, (world) => someClient(world)?.sendData()],
  // Faults.
  [30, (world) => onNode(world, (node) => world.crash(node, seconds(world, 10)))],
  [10, (world) => onNode(world, (node) => world.stop(node, seconds(world, 5)))],
  [30, (world) => onNode(world, (node) => world.freeze(node, seconds(world, 25)))],
  [30, (world) => world.cutFromStore(world.sim.random.pick([...NODES, ...AUTHS]) ?? '', seconds(world, 25))],
  [15, (world) => world.cutFromPeers(world.sim.random.pick(NODES) ?? '', seconds(world, 15))],
  [20, (world) => world.failOver()],
  [8, (world) => world.empty()],
  [12, (world) => world.split(seconds(world, 10))],
  [20, (world) => void (world.roughness = world.sim.random.below(60))],
];
const TOTAL = ACTS.reduce((sum, [weight]) => sum + weight, 0);

function someClient(world: World) {
  return world.sim.random.pick(world.clients.filter(({ state }) => state !== 'over'));
}

function onNode(
  world: World,
  act: (node: World['nodes'][number]) => void | Promise<void>,
): void | Promise<void> {
  const node = world.sim.random.pick(
    world.nodes.filter((each) => each.runs && each.process?.tunnels !== undefined),
  );
  return node === undefined ? undefined : act(node);
}

/** From a tenth of a second to so many. */
function seconds(world: World, most: number): number {
  return world.sim.random.between(100, most * 1000) * MILLIS;
}
