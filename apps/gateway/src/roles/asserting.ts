import type { Log } from '@sallyport/chassis';
import {
  StoreUnavailable,
  epochOf,
  type Assertions,
  type AssertionVerdict,
  type NodeIdentity,
  type Notice,
  type Session,
} from '@sallyport/cluster';
import type { Tunnels } from '@sallyport/tunnel-node';

export interface AssertingParts {
  assertions: Assertions;
  tunnels: Pick<Tunnels, 'holdings' | 'lose'>;
  node: NodeIdentity;
  log: Log;
  /** ms between two attempts. */
  retryMs?: number;
}

/**
 * Tells the store what this node holds, at the start and whenever a reign begins, until it has heard it: others wait for
 * that (CLUSTER.md C1). Tunnels that the store denies are closed. @returns how to stop.
 */
export function asserting(parts: AssertingParts): () => void {
  const { assertions, tunnels, node, log, retryMs = RETRY_MS } = parts;
  let wanted = true;
  let running = false;
  let stopped = false;

  async function attempt(): Promise<void> {
    const held = tunnels.holdings();
    const verdicts = await assertions.assert(node, held);
    const lost = lostOf(held, verdicts);
    tunnels.lose(lost);
    if (held.length > 0) log.info({ held: held.length, lost: lost.length }, 'asserted what this node holds');
  }

  async function run(): Promise<void> {
    if (running) return;
    running = true;
    while (wanted && !stopped) {
      wanted = false;
      try {
        await attempt();
      } catch (error) {
        if (!(error instanceof StoreUnavailable)) log.error({ err: error }, 'the assertion failed');
        wanted = true;
        await new Promise((resolve) => setTimeout(resolve, retryMs).unref());
      }
    }
    running = false;
  }

  const stop = assertions.onNewReign(() => {
    wanted = true;
    void run();
  });
  void run();
  return () => {
    stopped = true;
    stop();
  };
}

function lostOf(held: readonly Session[], verdicts: readonly AssertionVerdict[]): Notice[] {
  const lost: Notice[] = [];
  for (const [i, session] of held.entries()) {
    const verdict = verdicts[i];
    if (verdict !== undefined && !verdict.kept)
      lost.push({ sessionId: session.id, upToEpoch: epochOf(session), reason: verdict.reason });
  }
  return lost;
}

const RETRY_MS = 500;
