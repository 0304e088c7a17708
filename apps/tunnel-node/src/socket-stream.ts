import type { Socket } from 'node:net';
import { HIGH_WATER_BYTES, type ClientStream, type StreamFacts, type StreamReceiver } from './listener.ts';

/** What is the same for every stream on a socket of Node. */
export abstract class SocketStream implements ClientStream {
  constructor(
    readonly duplex: Socket,
    readonly facts: StreamFacts,
  ) {}

  get pendingBytes(): number {
    return this.duplex.writableLength;
  }

  get closed(): boolean {
    return this.duplex.destroyed;
  }

  abstract exportKey(label: string, length: number): Uint8Array;

  receive(receiver: StreamReceiver): void {
    this.duplex.setTimeout(0);
    this.duplex.on('data', (chunk: Uint8Array) => receiver.handleChunk(chunk));
    this.duplex.once('end', () => receiver.handleLoss());
    this.duplex.once('close', () => receiver.handleLoss());
  }

  writeRecord(bytes: Uint8Array): boolean {
    this.duplex.write(bytes);
    return this.duplex.writableLength < HIGH_WATER_BYTES;
  }

  farewell(bytes: Uint8Array): void {
    if (this.duplex.destroyed) return;
    this.duplex.end(bytes);
    this.duplex.resume();
  }

  end(): void {
    this.duplex.end();
  }

  destroy(): void {
    this.duplex.destroy();
  }
}
