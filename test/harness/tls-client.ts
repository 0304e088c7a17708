/** A TLS client that counts the records on the wire, and HTTP written byte by byte. */
import { Duplex, type Readable } from 'node:stream';
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { connect, type ConnectionOptions, type PeerCertificate, type TLSSocket } from 'node:tls';
import type { KeyPair } from './certificates.ts';
import type { Lab } from './lab.ts';
import { PATIENCE_MS, within } from './run.ts';

export interface Target {
  lab: Lab;
  /** Namespace to come from; the first client's unless told. */
  namespace?: string;
  /** The gateway's IPv4 address unless told. */
  host?: string;
  /** 443 unless told. */
  port?: number;
}

export interface TlsOptions {
  version?: 'TLSv1.2' | 'TLSv1.3';
  /** SNI; none unless told, as for URLs with an address. */
  serverName?: string;
  certificate?: KeyPair;
  ciphers?: string;
  alpn?: string[];
  /** Keep the borders of the records that come in: `records`. Costs time per packet. */
  countRecords?: boolean;
}

export interface HttpAnswer {
  status: number;
  reason: string;
  /** As spelled on the wire, in order. */
  headers: [name: string, value: string][];
  body: Buffer;
  /** The head as it came, for spelling checks. */
  head: string;
}

export interface HttpRequest {
  method: string;
  path: string;
  headers?: readonly (readonly [string, string])[];
  body?: string | Buffer;
}

/** One TLS connection to the gateway. The certificate is not checked: tests compare its hash. */
export class TlsClient {
  readonly socket: TLSSocket;
  readonly reader: ByteReader;
  /** TLS records received, as on the wire (length without the 5-byte header); only with `countRecords`. */
  readonly records: { type: number; length: number }[];

  static async open(target: Target, options: TlsOptions = {}): Promise<TlsClient> {
    const raw = await target.lab.dial(
      target.namespace ?? target.lab.client(),
      target.host ?? target.lab.gatewayIpv4,
      target.port ?? 443,
    );
    return TlsClient.over(raw, options);
  }

  static async over(raw: Socket, options: TlsOptions = {}): Promise<TlsClient> {
    const records: { type: number; length: number }[] = [];
    const socket = connect({
      socket: options.countRecords === true ? new RecordTap(raw, records) : raw,
      rejectUnauthorized: false,
      ...(options.serverName !== undefined && { servername: options.serverName }),
      ...(options.version !== undefined && { minVersion: options.version, maxVersion: options.version }),
      ...(options.ciphers !== undefined && { ciphers: options.ciphers }),
      ...(options.alpn !== undefined && { ALPNProtocols: options.alpn }),
      ...(options.certificate !== undefined && {
        cert: readFileSync(options.certificate.cert),
        key: readFileSync(options.certificate.key),
      }),
    } satisfies ConnectionOptions);
    const secure = new Promise<void>((resolve, reject) => {
      socket.once('secureConnect', resolve);
      socket.once('error', reject);
      socket.once('close', () => reject(new Error('closed during the TLS handshake')));
    });
    try {
      await within(PATIENCE_MS, 'TLS handshake', secure);
    } catch (error) {
      socket.destroy();
      raw.destroy();
      throw error;
    }
    // Node merges queued writes into one record unless this is off.
    Reflect.set(socket, '_writev', null);
    socket.on('error', () => {});
    return new TlsClient(socket, records);
  }

  private constructor(socket: TLSSocket, records: { type: number; length: number }[]) {
    this.socket = socket;
    this.records = records;
    this.reader = new ByteReader(socket);
  }

  get certificate(): PeerCertificate {
    return this.socket.getPeerCertificate();
  }

  /** Writes a request (Content-Length is added when there is a body and none is given) and reads the answer. */
  async request(request: HttpRequest): Promise<HttpAnswer> {
    this.write(formatRequest(request));
    return this.answer(request.method);
  }

  /** Reads one HTTP answer. */
  async answer(method = 'GET', timeoutMs = PATIENCE_MS): Promise<HttpAnswer> {
    return within(timeoutMs, `answer to ${method}`, readAnswer(this.reader, method));
  }

  /** One call, one TLS record (as long as it fits). */
  write(bytes: string | Uint8Array): void {
    this.socket.write(bytes);
  }

  /** True once the gateway has closed; waits for it. */
  closedByPeer(timeoutMs = PATIENCE_MS): Promise<boolean> {
    return within(timeoutMs, 'the gateway closes', this.reader.ended).then(
      () => true,
      () => false,
    );
  }

  close(): void {
    this.socket.destroy();
  }
}

export function formatRequest(request: HttpRequest): Buffer {
  const body = Buffer.from(request.body ?? '');
  const headers = [...(request.headers ?? [])];
  const has = (name: string) => headers.some(([given]) => given.toLowerCase() === name);
  if (!has('host')) headers.push(['Host', 'vpn.example.test']);
  if (request.body !== undefined && !has('content-length'))
    headers.push(['Content-Length', String(body.length)]);
  const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`).join('');
  return Buffer.concat([Buffer.from(`${request.method} ${request.path} HTTP/1.1\r\n${lines}\r\n`), body]);
}

export function header(answer: HttpAnswer, name: string): string | undefined {
  return headers(answer, name)[0];
}

export function headers(answer: HttpAnswer, name: string): string[] {
  return answer.headers
    .filter(([given]) => given.toLowerCase() === name.toLowerCase())
    .map(([, value]) => value);
}

/** Cookies that an answer sets: name to value, '' = cleared. The last of a name counts. */
export function cookiesOf(answer: HttpAnswer): Map<string, string> {
  const found = new Map<string, string>();
  for (const line of headers(answer, 'set-cookie')) {
    const pair = line.split(';')[0] ?? '';
    const at = pair.indexOf('=');
    found.set(pair.slice(0, at).trim(), pair.slice(at + 1));
  }
  return found;
}

async function readAnswer(reader: ByteReader, method: string): Promise<HttpAnswer> {
  const head = (await reader.until('\r\n\r\n')).toString('latin1');
  const [first = '', ...lines] = head.slice(0, -4).split('\r\n');
  const status = /^HTTP\/1\.[01] (\d{3}) ?(.*)$/.exec(first);
  if (status === null) throw new Error(`not an HTTP answer: ${first}`);
  const answer: HttpAnswer = {
    status: Number(status[1]),
    reason: status[2] ?? '',
    headers: lines.map((line) => {
      const at = line.indexOf(':');
      return [line.slice(0, at), line.slice(at + 1).trim()];
    }),
    body: Buffer.alloc(0),
    head,
  };
  const length = header(answer, 'content-length');
  const bodiless =
    method === 'HEAD' || (method === 'CONNECT' && answer.status === 200) || answer.status === 204;
  if (bodiless) return answer;
  if (header(answer, 'transfer-encoding') !== undefined)
    throw new Error('the gateway must never send chunks');
  answer.body = length === undefined ? await reader.toEnd() : await reader.exactly(Number(length));
  return answer;
}

/** Reads a stream in pieces of the caller's choice. */
export class ByteReader {
  #buffer: Buffer = Buffer.alloc(0);
  #ended = false;
  #wake: () => void = () => {};
  readonly #stream: Readable;
  /** The peer has closed, in whatever way. */
  readonly ended: Promise<void>;

  constructor(stream: Readable) {
    this.#stream = stream;
    stream.on('data', this.#take);
    this.ended = new Promise((resolve) => {
      const end = () => {
        this.#ended = true;
        this.#wake();
        resolve();
      };
      stream.once('end', end);
      stream.once('close', end);
      stream.once('error', end);
    });
  }

  readonly #take = (chunk: Buffer) => {
    this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
    this.#wake();
  };

  async until(marker: string): Promise<Buffer> {
    for (;;) {
      const at = this.#buffer.indexOf(marker);
      if (at >= 0) return this.#cut(at + marker.length);
      await this.#more();
    }
  }

  async exactly(length: number): Promise<Buffer> {
    while (this.#buffer.length < length) await this.#more();
    return this.#cut(length);
  }

  async toEnd(): Promise<Buffer> {
    await this.ended;
    return this.#cut(this.#buffer.length);
  }

  /** Takes what is there and leaves the stream to the caller. */
  release(): Buffer {
    this.#stream.off('data', this.#take);
    return this.#cut(this.#buffer.length);
  }

  #cut(length: number): Buffer {
    const piece = this.#buffer.subarray(0, length);
    this.#buffer = this.#buffer.subarray(length);
    return piece;
  }

  async #more(): Promise<void> {
    if (this.#ended) throw new ConnectionEnded(`the gateway closed after ${this.#buffer.length} bytes`);
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }
}

export class ConnectionEnded extends Error {}

/** Stands between the TCP stream and TLS and notes each record header that comes in. */
class RecordTap extends Duplex {
  readonly #raw: Socket;
  readonly #records: { type: number; length: number }[];
  #head: Buffer = Buffer.alloc(0);
  #skip = 0;

  constructor(raw: Socket, records: { type: number; length: number }[]) {
    super({ allowHalfOpen: true });
    this.#raw = raw;
    this.#records = records;
    raw.on('data', (chunk: Buffer) => {
      this.#scan(chunk);
      if (!this.push(chunk)) raw.pause();
    });
    raw.on('end', () => this.push(null));
    raw.on('error', (error) => this.destroy(error));
    raw.on('close', () => this.destroy());
  }

  override _read(): void {
    this.#raw.resume();
  }

  override _write(chunk: Buffer, encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#raw.write(chunk, encoding, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#raw.end(done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#raw.destroy();
    done(error);
  }

  #scan(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#skip > 0) {
        const step = Math.min(this.#skip, chunk.length - at);
        this.#skip -= step;
        at += step;
        continue;
      }
      const step = Math.min(RECORD_HEAD - this.#head.length, chunk.length - at);
      this.#head = Buffer.concat([this.#head, chunk.subarray(at, at + step)]);
      at += step;
      if (this.#head.length < RECORD_HEAD) continue;
      this.#skip = this.#head.readUInt16BE(3);
      this.#records.push({ type: this.#head.readUInt8(0), length: this.#skip });
      this.#head = Buffer.alloc(0);
    }
  }
}

/** Bytes of a record beyond its plaintext: RFC 5246 §6.2.3.3 (GCM), RFC 8446 §5.2. */
export const RECORD_OVERHEAD = { 'TLSv1.2': 8 + 16, 'TLSv1.3': 1 + 16 } as const;
export const APPLICATION_DATA = 23;

const RECORD_HEAD = 5;
