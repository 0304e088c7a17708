/*
 * A client with its cookie. It wants a tunnel, on whatever node:
 *
 *   away ──CONNECT──▶ asking ──200──▶ up ──the connection ends──▶ away (again at once, elsewhere)
 *     ▲                 │ 503, no answer                │ DISCONNECT, or its user's BYE
 *     └─────────────────┘ 401 ──▶ over ◀────────────────┘
 */
import { encodeFrame, PACKET } from '@sallyport/protocol';
import type { ModelNode } from './node.ts';
import { MILLIS, SECONDS, type Actor, type Simulation } from './simulation.ts';
import { ModelStream, type StreamClient } from './stream.ts';

export interface ClientParts {
  sim: Simulation;
  say: (text: string) => void;
  nodes: readonly ModelNode[];
  /** It was told to log in again. */
  onRefused: (client: Client, reason: string) => void;
}

export class Client implements StreamClient {
  readonly actor: Actor;
  readonly token: string;
  readonly user: string;
  readonly sessionId: string;
  state: 'away' | 'asking' | 'up' | 'over' = 'away';
  readonly #parts: ClientParts;
  #stream: ModelStream | undefined;
  /** More than one CONNECT at once: those that are of no use. */
  readonly #others = new Set<ModelStream>();
  #callOff: () => void = () => undefined;

  constructor(label: string, login: { token: string; user: string; sessionId: string }, parts: ClientParts) {
    this.actor = { name: label, alive: true, frozenUntil: 0 };
    this.token = login.token;
    this.user = login.user;
    this.sessionId = login.sessionId;
    this.#parts = parts;
  }

  get label(): string {
    return this.actor.name;
  }

  /** Another CONNECT at the same time: a rekey, a lost answer, a client that is impatient. */
  race(): void {
    const stream = this.#open();
    if (stream !== undefined) this.#others.add(stream);
  }

  connect(): void {
    this.#callOff();
    if (this.state === 'over' || this.state === 'up') return;
    this.state = 'asking';
    this.#stream = this.#open();
    if (this.#stream === undefined) return this.#later(200 * MILLIS);
    const asked = this.#stream;
    this.#callOff = this.#parts.sim.after(PATIENCE, this.actor, () => {
      if (this.#stream !== asked || this.state !== 'asking') return;
      asked.drop();
      this.state = 'away';
      this.connect();
    });
  }

  /** Is this its connection? */
  has(stream: ModelStream): boolean {
    return stream === this.#stream;
  }

  /** It notices that nobody answers any more. */
  notice(): void {
    if (this.state !== 'up') return;
    this.#stream?.drop();
    this.#lose(0);
  }

  /** Its network goes: the node is not told. */
  vanish(): void {
    if (this.state !== 'up') return;
    this.#stream?.vanish();
    this.#lose(this.#parts.sim.random.between(0, 2) * SECONDS);
  }

  drop(): void {
    if (this.state !== 'up') return;
    this.#stream?.drop();
    this.#lose(this.#parts.sim.random.between(0, 3) * SECONDS);
  }

  /** It comes back only when the world is at rest. */
  leave(): void {
    if (this.state === 'over') return;
    this.#callOff();
    this.#stream?.vanish();
    this.#stream = undefined;
    this.state = 'away';
  }

  /** It closes its connection and does not come back. */
  retire(): void {
    this.#callOff();
    this.#stream?.drop();
    this.#stream = undefined;
    this.state = 'over';
  }

  sendData(): void {
    if (this.state === 'up') this.#stream?.send(encodeFrame(PACKET.data, PACKET_OF_DATA));
  }

  /** The user disconnects. */
  bye(): void {
    if (this.state !== 'up') return;
    this.#stream?.send(encodeFrame(PACKET.disconnect, new Uint8Array([0xb0])));
    this.#finish();
  }

  handleBytes(stream: ModelStream, bytes: Uint8Array): void {
    const text = Buffer.from(bytes).toString('latin1');
    if (!text.startsWith('HTTP/')) {
      if (bytes[6] === PACKET.disconnect && stream === this.#stream) this.#finish();
      return;
    }
    const status = Number(text.split(' ')[1]);
    const reason = /X-Reason: ([^\r\n]*)/i.exec(text)?.[1] ?? '';
    if (status === 401 && this.state !== 'over') {
      this.#parts.say(`${this.label} gets 401: ${reason}`);
      this.#parts.onRefused(this, reason);
      return this.#finish();
    }
    if (this.#others.has(stream)) {
      if (status === 200)
        this.#parts.sim.after(this.#parts.sim.random.below(2 * SECONDS), this.actor, () => stream.drop());
      return;
    }
    if (stream !== this.#stream || this.state !== 'asking') return;
    this.#callOff();
    if (status === 200) this.state = 'up';
    else this.#lose(SECONDS);
  }

  handleEnd(stream: ModelStream): void {
    this.#others.delete(stream);
    if (stream !== this.#stream || this.state === 'over') return;
    this.#callOff();
    // A refusal has set its own time already.
    if (this.state !== 'away') this.#lose(this.#parts.sim.random.between(1, 100) * MILLIS);
  }

  #lose(wait: number): void {
    this.#stream = undefined;
    this.state = 'away';
    this.#later(wait);
  }

  #later(wait: number): void {
    this.state = 'away';
    this.#callOff();
    this.#callOff = this.#parts.sim.after(wait, this.actor, () => this.connect());
  }

  #finish(): void {
    this.state = 'over';
    this.#callOff();
    this.#stream = undefined;
  }

  #open(): ModelStream | undefined {
    const { sim, nodes } = this.#parts;
    const process = sim.random.pick(nodes)?.process;
    const tunnels = process?.tunnels;
    if (process === undefined || tunnels === undefined || this.state === 'over') return undefined;
    const stream = new ModelStream(sim, this, process.actor);
    process.streams.add(stream);
    const head = {
      target: '/CSCOSSLC/tunnel',
      rawHeaders: [...HEADERS, 'Cookie', `webvpn=${this.token}`],
      early: new Uint8Array(),
    };
    sim.after(MILLIS, process.actor, () => void tunnels.open(stream, head));
    return stream;
  }
}

const PATIENCE = 4 * SECONDS;
const HEADERS = [
  'Host',
  'vpn.example.test',
  'User-Agent',
  'model',
  'X-CSTP-Version',
  '1',
  'X-CSTP-Address-Type',
  'IPv4',
];
/** No packet of an address that could be its own: it counts, and the engine drops it. */
const PACKET_OF_DATA = new Uint8Array(40).fill(0x45);
