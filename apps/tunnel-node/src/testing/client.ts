import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls';
import { CstpDecoder, encodeFrame, PACKET } from '@sallyport/protocol';

export interface TestAnswer {
  status: number;
  /** As spelled on the wire, in order. */
  headers: [name: string, value: string][];
  head: string;
  body: Buffer;
}

export interface Frame {
  type: number;
  payload: Buffer;
}

/** A client that writes HTTP and CSTP byte by byte, over TLS or (for the edge alone) plain TCP. */
export class TestClient {
  readonly stream: Duplex;
  /** Lengths of the application data records received so far, as on the wire. */
  readonly records: number[] = [];
  readonly #decoder = new CstpDecoder();
  readonly #frames: Frame[] = [];
  #room = Buffer.alloc(0);
  /** What nobody has taken yet: a part of `#room`. */
  #received = Buffer.alloc(0);
  #closed = false;
  #wake: () => void = () => undefined;

  private constructor(stream: Duplex) {
    this.stream = stream;
    stream.on('data', (chunk: Buffer) => {
      this.#keep(chunk);
      this.#wake();
    });
    stream.on('error', () => undefined);
    stream.on('close', () => {
      this.#closed = true;
      this.#wake();
    });
    stream.on('end', () => {
      this.#closed = true;
      this.#wake();
    });
  }

  /** Room is doubled, so that a large answer is not copied with each of its chunks. */
  #keep(chunk: Buffer): void {
    const length = this.#received.length + chunk.length;
    if (this.#room.length < length) {
      this.#room = Buffer.alloc(2 * length);
      this.#received.copy(this.#room);
    } else if (this.#received.byteOffset !== this.#room.byteOffset) this.#room.set(this.#received);
    chunk.copy(this.#room, this.#received.length);
    this.#received = this.#room.subarray(0, length);
  }

  static async plain(port: number): Promise<TestClient> {
    const socket = connectTcp(port, '127.0.0.1');
    await once(socket, 'connect');
    return new TestClient(socket);
  }

  static async tls(
    port: number,
    options: ConnectionOptions & { version?: 'TLSv1.2' | 'TLSv1.3' } = {},
  ): Promise<TestClient> {
    const { version, ...more } = options;
    const raw = connectTcp(port, '127.0.0.1');
    await once(raw, 'connect');
    const counted = new CountingWire(raw);
    const socket = connectTls({ socket: counted, rejectUnauthorized: false, ...(version && { minVersion: version, maxVersion: version }), ...more }); // prettier-ignore
    socket.on('error', () => undefined);
    await once(socket, 'secureConnect');
    const client = new TestClient(socket);
    counted.onRecord = (type, length) => {
      if (type === APPLICATION_DATA) client.records.push(length);
    };
    return client;
  }

  get tls(): TLSSocket {
    if ('getProtocol' in this.stream) return this.stream as TLSSocket;
    throw new Error('this is a plain connection');
  }

  get closed(): boolean {
    return this.#closed;
  }

  write(bytes: string | Uint8Array): void {
    this.stream.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
  }

  async request(head: string, body: string | Uint8Array = ''): Promise<TestAnswer> {
    this.write(`${head}\r\n\r\n`);
    if (body.length > 0) this.write(body);
    return this.answer(head.startsWith('HEAD') ? 'head' : 'body');
  }

  async answer(kind: 'head' | 'body' = 'body'): Promise<TestAnswer> {
    await this.#until(() => this.#received.includes('\r\n\r\n'));
    const end = this.#received.indexOf('\r\n\r\n');
    const head = this.#take(end + 4).toString('latin1');
    const [statusLine = '', ...lines] = head.trimEnd().split('\r\n');
    const headers = lines.map((line): [string, string] => {
      const at = line.indexOf(': ');
      return [line.slice(0, at), line.slice(at + 2)];
    });
    const length = Number(headers.find(([name]) => name === 'Content-Length')?.[1] ?? 0);
    const wanted = kind === 'head' ? 0 : length;
    await this.#until(() => this.#received.length >= wanted);
    return { status: Number(statusLine.split(' ')[1]), headers, head, body: this.#take(wanted) };
  }

  /** CONNECT with a session's token. */
  connect(
    token: string,
    headers: string[] = ['X-CSTP-Address-Type: IPv4', 'X-CSTP-Base-MTU: 1500'],
  ): Promise<TestAnswer> {
    const lines = ['CONNECT /CSCOSSLC/tunnel HTTP/1.1', 'Host: vpn', `Cookie: webvpn=${token}`, ...headers];
    this.write(`${lines.join('\r\n')}\r\n\r\n`);
    return this.answer('head');
  }

  send(type: number, payload?: Uint8Array): void {
    this.write(encodeFrame(type, payload));
  }

  bye(reason: number): void {
    this.send(PACKET.disconnect, Buffer.from([reason]));
  }

  /** The next CSTP packets, exactly so many. */
  async frames(count: number, milliseconds = PATIENCE_MS): Promise<Frame[]> {
    while (this.#frames.length < count) {
      await this.#until(() => this.#received.length > 0, milliseconds);
      this.#decoder.push(this.#take(this.#received.length), (type, payload) =>
        this.#frames.push({ type, payload: Buffer.from(payload) }),
      );
    }
    return this.#frames.splice(0, count);
  }

  /** Everything that came before the connection ended. */
  async untilClosed(milliseconds = PATIENCE_MS): Promise<Buffer> {
    const until = Date.now() + milliseconds;
    while (!this.#closed) {
      if (Date.now() > until) throw new Error('the connection is still open');
      await this.#change(50);
    }
    return this.#take(this.#received.length);
  }

  destroy(): void {
    this.stream.destroy();
  }

  #take(length: number): Buffer {
    const bytes = Buffer.from(this.#received.subarray(0, length));
    this.#received = this.#received.subarray(length);
    return bytes;
  }

  async #until(condition: () => boolean, milliseconds = PATIENCE_MS): Promise<void> {
    const until = Date.now() + milliseconds;
    while (!condition()) {
      if (this.#closed)
        throw new Error(`the connection ended after ${JSON.stringify(this.#received.toString('latin1'))}`);
      if (Date.now() > until) throw new Error('nothing came in time');
      await this.#change(50);
    }
  }

  #change(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** Passes bytes through and reads the borders of TLS records on their way to the client. */
class CountingWire extends Duplex {
  onRecord: (type: number, length: number) => void = () => undefined;
  readonly #socket: Socket;
  #pending = Buffer.alloc(0);

  constructor(socket: Socket) {
    super();
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#count(chunk);
      if (!this.push(chunk)) socket.pause();
    });
    socket.on('end', () => this.push(null));
    socket.on('close', () => this.destroy());
    socket.on('error', () => this.destroy());
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#socket.write(chunk, () => done());
  }

  override _final(done: () => void): void {
    this.#socket.end(done);
  }

  override _destroy(_error: Error | null, done: () => void): void {
    this.#socket.destroy();
    done();
  }

  #count(chunk: Buffer): void {
    this.#pending = Buffer.concat([this.#pending, chunk]);
    while (this.#pending.length >= 5) {
      const length = this.#pending.readUInt16BE(3);
      if (this.#pending.length < 5 + length) return;
      this.onRecord(this.#pending.readUInt8(0), length);
      this.#pending = this.#pending.subarray(5 + length);
    }
  }
}

const APPLICATION_DATA = 23;
/** Far more than a busy machine needs: only what never happens fails. */
const PATIENCE_MS = 60_000;
