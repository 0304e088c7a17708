/**
 * The network behind in `return-path: routed`: what a routing daemon on each node would tell it (docs/return-path.md), it
 * hears from the kernel of the nodes at once. The node that took a client last has the way to it.
 */
import type { Lab, Spawned } from '../harness/index.ts';
import { nodeName, nodeOnLan, type Place } from './network.ts';

export class Router {
  readonly #monitors: readonly Spawned[];
  readonly #announcements = new Announcements();
  /** `ip -batch` in the LAN, which runs each line as it comes. */
  readonly #ip: Spawned;

  constructor(lab: Lab, nodes: number) {
    this.#ip = lab.spawn(lab.lan, ['ip', '-force', '-batch', '-'], { holdInput: true });
    this.#monitors = Array.from({ length: nodes }, (_, index) => this.#follow(lab, index));
  }

  close(): void {
    for (const monitor of this.#monitors) monitor.child.kill('SIGTERM');
    this.#ip.child.stdin?.end();
  }

  #follow(lab: Lab, index: number): Spawned {
    const argv = ['ip', '-o', 'monitor', 'label', 'route', 'link'];
    const monitor = lab.spawn(lab.namespace(nodeName(index)), argv);
    const announced = new Announced(this.#announcements, nodeOnLan(index));
    let rest = '';
    monitor.child.stdout?.on('data', (chunk: string) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.#tell(announced.handleLine(line));
    });
    return monitor;
  }

  #tell(commands: readonly string[]): void {
    if (commands.length > 0) this.#ip.child.stdin?.write(commands.map((line) => `${line}\n`).join(''));
  }
}

/** What the nodes announce, newest last, by prefix: two may for a moment, and their words may come in either order. */
export class Announcements {
  readonly #by = new Map<string, Place[]>();

  /** @returns commands for `ip -batch` of the LAN. */
  announce(prefix: string, via: Place): string[] {
    this.#by.set(prefix, [...(this.#by.get(prefix) ?? []).filter((other) => other !== via), via]);
    return [`route replace ${prefix} via ${viaFor(prefix, via)}`];
  }

  withdraw(prefix: string, via: Place): string[] {
    const before = this.#by.get(prefix) ?? [];
    const left = before.filter((other) => other !== via);
    this.#by.set(prefix, left);
    if (before.at(-1) !== via) return [];
    const next = left.at(-1);
    if (next !== undefined) return [`route replace ${prefix} via ${viaFor(prefix, next)}`];
    this.#by.delete(prefix);
    return [`route del ${prefix} via ${viaFor(prefix, via)}`];
  }
}

function viaFor(prefix: string, via: Place): string {
  return prefix.includes(':') ? via.ipv6 : via.ipv4;
}

/** Routes of one node, by what `ip -o monitor label route link` says. */
export class Announced {
  readonly #all: Announcements;
  readonly #via: Place;
  /** Metrics by prefix: a route that only changes its preference is there twice for a moment. */
  readonly #metrics = new Map<string, Set<string>>();

  /** @param via the node, as the LAN sees it */
  constructor(all: Announcements, via: Place) {
    this.#all = all;
    this.#via = via;
  }

  /** @returns commands for `ip -batch` of the LAN. */
  handleLine(line: string): string[] {
    // The kernel does not tell which routes go with a device.
    if (/^\[LINK\]Deleted \d+: sallyport/.test(line)) {
      const lost = [...this.#metrics.keys()];
      this.#metrics.clear();
      return lost.flatMap((prefix) => this.#all.withdraw(prefix, this.#via));
    }
    const route = /^\[ROUTE\](Deleted )?([0-9a-f.:/]+) dev \S+ .*\bproto 183\b(?:.*\bmetric (\d+))?/.exec(
      line,
    );
    if (route === null) return [];
    const [, deleted, prefix = '', metric = ''] = route;
    const metrics = this.#metrics.get(prefix) ?? new Set();
    if (deleted === undefined) {
      const isNew = metrics.size === 0;
      this.#metrics.set(prefix, metrics.add(metric));
      return isNew ? this.#all.announce(prefix, this.#via) : [];
    }
    metrics.delete(metric);
    if (metrics.size > 0) return [];
    this.#metrics.delete(prefix);
    return this.#all.withdraw(prefix, this.#via);
  }
}
