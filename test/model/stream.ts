import { PassThrough } from 'node:stream';
import type { ClientStream, StreamFacts, StreamReceiver } from '@sallyport/tunnel-node';
import type { Actor, Simulation } from './simulation.ts';
import { MILLIS } from './simulation.ts';

/** The client's end of a connection. */
export interface StreamClient {
  readonly actor: Actor;
  handleBytes(stream: ModelStream, bytes: Uint8Array): void;
  /** Ended by the node, or broken off. */
  handleEnd(stream: ModelStream): void;
}

/** One TLS connection between a client and a node's process: in order, a little later. */
export class ModelStream implements ClientStream {
  readonly duplex = new PassThrough();
  readonly facts: StreamFacts = FACTS;
  readonly pendingBytes = 0;
  readonly #sim: Simulation;
  readonly #client: StreamClient;
  readonly #node: Actor;
  #receiver: StreamReceiver | undefined;
  #closed = false;
  /** The client neither hears nor says anything any more. */
  #vanished = false;

  constructor(sim: Simulation, client: StreamClient, node: Actor) {
    this.#sim = sim;
    this.#client = client;
    this.#node = node;
  }

  get closed(): boolean {
    return this.#closed;
  }

  writeRecord(bytes: Uint8Array): boolean {
    const copy = Uint8Array.from(bytes);
    if (!this.#closed) this.#toClient(() => this.#client.handleBytes(this, copy));
    return true;
  }

  exportKey(_label: string, length: number): Uint8Array {
    return new Uint8Array(length);
  }

  receive(receiver: StreamReceiver): void {
    this.#receiver = receiver;
  }

  farewell(bytes: Uint8Array): void {
    this.writeRecord(bytes);
    this.end();
  }

  end(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#toClient(() => this.#client.handleEnd(this));
  }

  destroy(): void {
    this.end();
  }

  /** The node's process is gone. */
  breakOff(): void {
    this.end();
  }

  /** From the client. */
  send(bytes: Uint8Array): void {
    this.#toNode(() => {
      if (!this.#closed) this.#receiver?.handleChunk(bytes);
    });
  }

  /** The client closes; the node sees it. */
  drop(): void {
    this.#toNode(() => {
      if (this.#closed) return;
      this.#closed = true;
      this.#receiver?.handleLoss();
    });
    this.#vanished = true;
  }

  /** The client is gone, and the node does not see it. */
  vanish(): void {
    this.#vanished = true;
  }

  #toClient(run: () => void): void {
    this.#sim.after(DELAY, this.#client.actor, () => {
      if (!this.#vanished) run();
    });
  }

  #toNode(run: () => void): void {
    if (!this.#vanished) this.#sim.after(DELAY, this.#node, run);
  }
}

const DELAY = MILLIS;

const FACTS: StreamFacts = {
  peerAddress: '192.0.2.1',
  peerPort: 1,
  localAddress: '192.0.2.2',
  serverName: 'vpn.example.test',
  tlsVersion: 'TLSv1.3',
  cipher: 'TLS_AES_256_GCM_SHA384',
  servedLeafSha1: 'AB'.repeat(20),
};
