import type { Log } from '@sallyport/chassis';
import {
  homePlanOf,
  poolsOf,
  StoreUnavailable,
  type ListedNode,
  type NodeIdentity,
  type Nodes,
  type Settings,
} from '@sallyport/cluster';
import type { ReturnPath } from '@sallyport/engine';
import { homeOfNode } from './wiring.ts';

export interface HomeSliceParts {
  nodes: Pick<Nodes, 'list'>;
  /** Nodes that lived when they were last listed, some seconds ago. Absent = they are listed each time. */
  known?: () => readonly ListedNode[] | undefined;
  node: NodeIdentity;
  /** The present ones: a reload may change the pools. */
  settings: () => Settings;
  returnPath: Pick<ReturnPath, 'settle'>;
  /** Others take the sessions of this node. Absent = there are no others. */
  isolated?: () => boolean;
  log: Log;
}

/**
 * When this node announces its slice of the pools as a whole (libs/cluster/src/home-slices.ts). Two nodes with the same
 * number, or with other pools or slices, would announce addresses of each other's clients, so they agree first:
 *
 *   none ──► wants: said with each heartbeat ──► nobody who has or wants a slice contradicts ──► has
 *                                                                     another has, too, and contradicts ──► wants
 *
 * What wants is written before it is looked for, so of two that want at once at least one sees the other. Who has its
 * slice keeps it when one comes that contradicts: so the nodes of a cluster change their slices one after the other, and
 * take the new ones when the last of the old is gone. Meanwhile, whenever the store is away from the start, and
 * while this node is isolated, clients are announced one by one, which is right always.
 */
export class HomeSlice {
  readonly #parts: HomeSliceParts;
  readonly #timer: NodeJS.Timeout;
  /** What was announced; '' = nothing. */
  #held = '';
  #contradicted = '';
  #looking: Promise<void> | undefined;

  constructor(parts: HomeSliceParts) {
    this.#parts = parts;
    this.#timer = setInterval(() => void this.handleTick(), LOOK_MS);
    this.#timer.unref();
  }

  /** For the heartbeat: '' = no slice, else `wants PLAN` or `has PLAN`. */
  get said(): string {
    const { plan, home } = this.#wanted();
    if (home.length === 0) return '';
    return `${this.#held === keyOf(plan, home) ? HAS : WANTS}${plan}`;
  }

  /** Called by its own clock about once a second. Never rejects. */
  handleTick(): Promise<void> {
    return (this.#looking ??= this.#look().finally(() => (this.#looking = undefined)));
  }

  /** The routes go with the device. */
  close(): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    const { plan, home } = this.#wanted();
    const isolated = this.#parts.isolated?.() ?? false;
    const key = home.length === 0 || isolated ? '' : keyOf(plan, home);
    if (this.#held !== '' && this.#held !== key)
      this.#drop(isolated ? 'it is isolated' : 'the pools or the slices have changed');
    if (key === '') return;
    const known = this.#parts.known?.();
    if (known && !this.#isFree(known, plan)) return;
    const { nodes, returnPath, log } = this.#parts;
    try {
      // Also where `known` said so: only what is read after this node has said what it wants shows who contradicts.
      if (!this.#isFree(await nodes.list(), plan)) return;
    } catch (error) {
      if (!(error instanceof StoreUnavailable)) log.error({ err: error }, 'the nodes cannot be listed');
      return;
    }
    this.#held = key;
    returnPath.settle(home);
    log.info({ home }, 'this node announces its slice');
  }

  /** May this node take its slice, as far as these nodes tell? One that it has is given up if they contradict. */
  #isFree(all: readonly ListedNode[], plan: string): boolean {
    const { node, settings } = this.#parts;
    const own = all.find(({ name, incarnation }) => name === node.name && incarnation === node.incarnation);
    if (!own?.home?.endsWith(` ${plan}`)) return false;
    const rivals = all.filter(
      (other) =>
        other.name !== node.name &&
        other.alive &&
        (other.home ?? '') !== '' &&
        (other.number === settings().node.number || !other.home?.endsWith(` ${plan}`)),
    );
    this.#warn(rivals);
    if (this.#held === '') return rivals.length === 0;
    if (rivals.some((other) => other.home?.startsWith(HAS)))
      this.#drop('another node announces a slice that does not go with it');
    return false;
  }

  #drop(reason: string): void {
    this.#held = '';
    this.#parts.returnPath.settle([]);
    this.#parts.log.warn({ reason }, 'this node announces its clients one by one');
  }

  #warn(rivals: readonly ListedNode[]): void {
    const names = rivals.map(({ name }) => name).join(', ');
    if (names !== '' && names !== this.#contradicted) this.#parts.log.warn({ nodes: names }, CONTRADICTION);
    this.#contradicted = names;
  }

  #wanted(): Wanted {
    const settings = this.#parts.settings();
    if (settings.returnPath !== 'routed') return { plan: '', home: [] };
    const pools = Object.values(poolsOf(settings)).flat();
    return { plan: homePlanOf(pools, settings.node.slices), home: homeOfNode(settings) };
  }
}

interface Wanted {
  plan: string;
  /** CIDRs. */
  home: string[];
}

function keyOf(plan: string, home: readonly string[]): string {
  return `${plan}: ${home.join(' ')}`;
}

const CONTRADICTION =
  'these nodes have the number of this one, or other slices or pools: give each node a number of its own, and all the same slices and pools';
const HAS = 'has ';
const WANTS = 'wants ';
const LOOK_MS = 1000;
