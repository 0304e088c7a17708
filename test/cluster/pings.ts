import { eventually, type Lab, type Spawned } from '../harness/index.ts';

/** A ping every 50 ms, and how long none came back. */
export class Pings {
  readonly #process: Spawned;

  constructor(lab: Lab, namespace: string, target: string) {
    const argv = ['ping', '-D', '-n', '-i', '0.05', '-W', '1', target];
    this.#process = lab.spawn(namespace, argv);
  }

  /** When answers came, in seconds since 1970. */
  get replies(): number[] {
    return [...this.#process.output().matchAll(/^\[([\d.]+)\] \d+ bytes/gm)].map(([, at]) => Number(at));
  }

  async whenSteady(): Promise<void> {
    const count = this.replies.length;
    await eventually('pings are answered', () => this.replies.length > count + STEADY);
  }

  /** The longest time without an answer since then, now included. @param since in seconds since 1970 */
  longestGap(since: number): number {
    const last = this.replies.filter((at) => at <= since).at(-1) ?? since;
    const times = [last, ...this.replies.filter((at) => at > since), Date.now() / 1000];
    return Math.max(...times.slice(1).map((at, index) => at - (times[index] ?? at)));
  }

  stop(): void {
    this.#process.child.kill('SIGINT');
  }
}

const STEADY = 10;
