/** CONNECTs with one cookie at the same moment on several nodes, and what is left of them. */
import {
  AnyConnect,
  CstpChannel,
  each,
  eventually,
  FRAME,
  formatRequest,
  header,
  TlsClient,
  type HttpAnswer,
  type SettingsDocument,
} from '../harness/index.ts';
import type { Cluster } from '../cluster/cluster.ts';
import { nodePlace } from '../cluster/network.ts';

export interface Raced {
  /** How many CONNECTs got which status; `closed` = none. */
  answers: Record<string, number>;
  /** Connections that are open and answer a DPD request. */
  alive: number;
  /** Session records of the user that have a tunnel. */
  records: number;
  /** Tunnels that all nodes count together. */
  tunnels: number;
  /** All answered CONNECTs named the same addresses. */
  sameAddress: boolean;
  /** From the first CONNECT until exactly one connection was left. */
  seconds: number;
}

export class Race {
  readonly #cluster: Cluster;
  readonly #client: AnyConnect;
  readonly #index: number;
  #addresses: string | undefined;

  /** Logs in as client number `index`, once for all runs. */
  static async open(cluster: Cluster, index: number): Promise<Race> {
    const client = new AnyConnect({ lab: cluster.lab, namespace: cluster.lab.client(index) });
    const { name = '', password = '' } = cluster.users[index] ?? {};
    const step = await client.login(name, password);
    if (step.authId !== 'success') throw new Error(`no login: ${step.authId} ${step.message}`);
    return new Race(cluster, client, index);
  }

  private constructor(cluster: Cluster, client: AnyConnect, index: number) {
    this.#cluster = cluster;
    this.#client = client;
    this.#index = index;
  }

  /** TLS first, then all requests in one turn; connection i goes to node i mod nodes. Ends what it opened. */
  async run(connects: number): Promise<Raced> {
    const { lab, nodes } = this.#cluster;
    const opened: TlsClient[] = [];
    const granted: Granted[] = [];
    try {
      await each(Array.from({ length: connects }).keys(), async (at) => {
        const host = nodePlace(at % nodes.length).ipv4;
        opened.push(await TlsClient.open({ lab, namespace: lab.client(this.#index), host }));
      });
      const started = performance.now();
      const waiting = opened.map(async (tls) => {
        tls.write(
          formatRequest({ method: 'CONNECT', path: TUNNEL, headers: this.#client.connectHeaders(tls) }),
        );
        return tls.answer('CONNECT', ANSWER_MS).catch(() => undefined);
      });
      const answers = await Promise.all(
        waiting.map(async (waits, at) => {
          const answer = await waits;
          const tls = opened[at];
          if (answer?.status === 200 && tls !== undefined)
            granted.push({ answer, tls, channel: new CstpChannel(tls) });
          return answer;
        }),
      );
      await eventually('one connection is left', () => open(granted).length <= 1, LEFT_MS);
      const seconds = (performance.now() - started) / 1000;
      const alive = await answering(open(granted));
      const addresses = granted.map(({ answer }) => ADDRESSES.map((name) => header(answer, name)).join(' '));
      this.#addresses ??= addresses[0];
      return {
        answers: countsOf(answers.map((answer) => (answer === undefined ? 'closed' : String(answer.status)))),
        alive,
        ...(await this.#counted()),
        sameAddress: addresses.every((one) => one === this.#addresses),
        seconds,
      };
    } finally {
      for (const tls of opened) tls.close();
    }
  }

  /** Logs out. */
  async close(): Promise<void> {
    await this.#client.logout();
  }

  /** By the store, and by the nodes themselves. Those close superseded tunnels within a second. */
  async #counted(): Promise<{ records: number; tunnels: number }> {
    const user = this.#cluster.users[this.#index]?.name;
    const sessions = await this.#cluster.show('users');
    const records = sessions.filter((session) => session['Username'] === user).length;
    let tunnels = NaN;
    // What a node reports is as old as its heartbeat.
    const isOne = async () => {
      const nodes = await this.#cluster.show('nodes');
      tunnels = nodes.reduce((total, node) => total + Number(node['Tunnels'] ?? NaN), 0);
      return tunnels === 1;
    };
    await eventually('the nodes report one tunnel', isOne, REPORT_MS, BEAT_MS).catch(() => undefined);
    return { records, tunnels };
  }
}

interface Granted {
  answer: HttpAnswer;
  tls: TlsClient;
  channel: CstpChannel;
}

/** Those that the gateway has not closed. It may have done that with its answer, before the channel could hear of it. */
function open(granted: readonly Granted[]): CstpChannel[] {
  return granted
    .filter(({ channel, tls: { socket } }) => !channel.closed && !socket.destroyed && !socket.readableEnded)
    .map(({ channel }) => channel);
}

/** How many answer a DPD request. */
async function answering(channels: readonly CstpChannel[]): Promise<number> {
  const answers = await Promise.all(
    channels.map((channel) => {
      const from = channel.frames.length;
      channel.send(FRAME.dpdRequest);
      return channel.next(FRAME.dpdResponse, { from }).then(
        () => 1,
        () => 0,
      );
    }),
  );
  return answers.reduce<number>((total, one) => total + one, 0);
}

function countsOf(values: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const value of values) counts[value] = (counts[value] ?? 0) + 1;
  return counts;
}

/** No limit may stand between a CONNECT and its claim. */
export const RACING_SETTINGS: SettingsDocument = {
  'connects-per-token': 0,
  'max-connections-per-address': 0,
};
const TUNNEL = '/CSCOSSLC/tunnel';
const ADDRESSES = ['X-CSTP-Address', 'X-CSTP-Address-IP6'];
const ANSWER_MS = 60_000;
const LEFT_MS = 30_000;
const REPORT_MS = 30_000;
const BEAT_MS = 1000;
