/** Real clients, one in each client namespace of a laboratory, with traffic in their tunnels. */
import { each, eventually, Openconnect, type Lab, type OpenconnectOptions } from '../harness/index.ts';
import type { Place } from '../cluster/network.ts';
import { say } from './options.ts';
import type { Measured } from './outages.ts';
import { Traffic, type ClientGaps } from './traffic.ts';

export interface FleetPlan {
  lab: Lab;
  clients: number;
  /** How client number i logs in. */
  client(index: number): OpenconnectOptions;
  /** What they talk to inside; no `ipv6` = only IPv4 inside. */
  lan: Pick<Place, 'ipv4'> & Partial<Place>;
}

/** What counts before a fault. */
export interface Before {
  connects: readonly number[];
  posts: readonly number[];
  /** Characters that each client had printed. */
  printed: readonly number[];
  /** Numbers of the clients that the fault will hit. */
  affected: ReadonlySet<number>;
}

export class Fleet {
  readonly clients: readonly Openconnect[];
  readonly traffic: Traffic;
  /** Inner addresses at the first login. */
  readonly addresses: readonly string[];

  /** Logs all in and starts their traffic. @throws when one of them gets no tunnel */
  static async open(plan: FleetPlan): Promise<Fleet> {
    const traffic = await Traffic.open(plan.lab);
    const all = Array.from({ length: plan.clients }, (_, index) => index);
    const clients = new Map<number, Openconnect>();
    const addresses = new Map<number, string>();
    await each(all, async (index) => {
      const client = Openconnect.start({ more: ['--timestamp'], ...plan.client(index) });
      const { ipv4, ipv6 } = await client.whenUp(LOGIN_MS);
      clients.set(index, client);
      addresses.set(index, `${ipv4} ${ipv6}`);
      // All four pairs of outer (see failover.ts) and inner family come up.
      const family = plan.lan.ipv6 !== undefined && index % 4 >= 2 ? 6 : 4;
      await traffic.add(index, plan.lab.client(index), plan.lan, family);
    });
    const inOrder = <T>(map: Map<number, T>) => [...map].sort(([a], [b]) => a - b).map(([, value]) => value);
    return new Fleet(inOrder(clients), traffic, inOrder(addresses));
  }

  private constructor(clients: readonly Openconnect[], traffic: Traffic, addresses: readonly string[]) {
    this.clients = clients;
    this.traffic = traffic;
    this.addresses = addresses;
  }

  /** Pings of all are answered, and all have their two TCP connections. */
  async whenSteady(): Promise<void> {
    for (const [index, client] of this.clients.entries()) if (!client.alive) await this.traffic.drop(index);
    await eventually(
      'all clients have answers',
      async () => (await this.#silent()).length === 0,
      STEADY_MS,
      250,
    );
    const tcp = await this.traffic.openTcp(TCP_OPEN_MS);
    const without = tcp.filter(({ idle, busy }) => !idle || !busy).map(({ client }) => client);
    if (without.length > 0) throw new Error(`clients ${without.join(', ')} have no TCP connection inside`);
  }

  /** Notes what was before a fault; gaps count from here. */
  async before(affected: Iterable<number>): Promise<Before> {
    const before = {
      connects: this.clients.map(({ connects }) => connects),
      posts: this.clients.map(({ posts }) => posts),
      printed: this.clients.map(({ output }) => output.length),
      affected: new Set(affected),
    };
    await this.traffic.mark();
    return before;
  }

  /** Those that were hit have a new tunnel and answers, or are gone for good. @returns false when not in time */
  async whenBack(before: Before, timeoutMs: number): Promise<boolean> {
    const isBack = async () => {
      const silent = new Set(await this.#silent());
      return [...before.affected].every((index) => {
        const client = this.clients[index];
        if (client === undefined || !client.alive) return true;
        return !silent.has(index) && client.connects > (before.connects[index] ?? 0);
      });
    };
    return eventually('all are back', isBack, timeoutMs, 250).catch(() => false);
  }

  /** The whole result of a fault, TCP connections included. @param addressOf inner addresses now, as in `addresses` */
  async measure(before: Before, addressOf: (index: number) => string | undefined): Promise<Measured[]> {
    const gaps = await this.traffic.gaps();
    const longest = Math.max(0, ...gaps.map(({ main }) => main.seconds));
    // A sender has waited up to twice as long as the outage was before it tries again.
    const tcp = await this.traffic.checkTcp(TCP_CHECK_MS + 1500 * Math.min(longest, LONGEST_TCP_SECONDS));
    let told = 0;
    return gaps.map((gap) => {
      const { client: index } = gap;
      const client = this.clients[index];
      const isAlive = client?.alive === true;
      const isStrange = !isAlive || (before.affected.has(index) && gap.main.seconds > TOLD_SECONDS);
      if (isStrange && told++ < TOLD_CLIENTS) {
        const words = toldBy(client?.output.slice(before.printed[index]) ?? '');
        say(`client ${index}${isAlive ? '' : ' ended'}:\n${words}`);
      }
      const own = tcp.find((one) => one.client === index);
      return {
        client: index,
        affected: before.affected.has(index),
        outage: isAlive && hasAnswers(gap) ? gap.main.seconds : undefined,
        otherFamily: gap.other?.seconds,
        prompted: !isAlive || client.posts > (before.posts[index] ?? 0),
        sameAddress: isAlive && addressOf(index) === this.addresses[index],
        idle: own?.idle === true,
        busy: own?.busy === true,
      };
    });
  }

  async #silent(): Promise<number[]> {
    return (await this.traffic.gaps()).filter((gap) => !hasAnswers(gap)).map(({ client }) => client);
  }
}

/** What explains a long outage, without headers. */
function toldBy(output: string): string {
  return output
    .split('\n')
    .filter(
      (line) =>
        /sleep|fail|error|Got CONNECT|refused|rejected|timed? ?out/i.test(line) &&
        !/verify failed/.test(line),
    )
    .join('\n')
    .slice(-TOLD_CHARACTERS);
}

function hasAnswers({ main, other }: ClientGaps): boolean {
  return main.silent < SILENT_SECONDS && (other === undefined || other.silent < OTHER_SILENT_SECONDS);
}

const TOLD_CLIENTS = 3;
const TOLD_CHARACTERS = 3_000;
/** openconnect's first sleep is 10 s. */
const TOLD_SECONDS = 5;
const LOGIN_MS = 60_000;
const STEADY_MS = 60_000;
const TCP_OPEN_MS = 15_000;
const TCP_CHECK_MS = 5_000;
const LONGEST_TCP_SECONDS = 60;
const SILENT_SECONDS = 0.5;
const OTHER_SILENT_SECONDS = 1.5;
