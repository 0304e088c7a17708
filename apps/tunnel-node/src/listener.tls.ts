/**
 * How a connection comes in (docs/protocol.md §2.1):
 *
 *  1. accept        the socket waits without a handshake slot until its ClientHello is there: `silent`
 *  2. hello         behind the PROXY header of a trusted proxy, which says whose connection it is, the ClientHello is
 *                   complete, in one TLS record or several; its server name chooses the host
 *  3. slot          one of a bounded number of handshakes; those over it wait, as sockets: `waiting`
 *  4. handshake     by node:tls, with a deadline that no trickle of bytes can move: `handshaking`
 *  5. hand over     as a ClientStream with its facts: `open`
 */
import { constants } from 'node:crypto';
import { BlockList, createServer, isIPv6, type Server, type Socket } from 'node:net';
import * as tls from 'node:tls';
import type { InheritedSocket, Log } from '@sallyport/chassis';
import { readProxyHeader } from '@sallyport/protocol';
import { helloState, serverNameOf } from './client-hello.ts';
import { addressGroup } from './address-group.ts';
import { Crowd } from './crowd.ts';
import { HandshakeSlots, SLOT_LIMITS, type Candidate, type SlotLimits } from './handshake-slots.ts';
import {
  type AddressRules,
  type ClientStream,
  type HostCertificates,
  type Listener,
  type ListenerCertificates,
  type ListenerStats,
  type StreamFacts,
} from './listener.ts';
import { SocketStream } from './socket-stream.ts';

export interface TlsListenerOptions {
  /** '' = all addresses. */
  host: string;
  /** 0 = any free one. */
  port: number;
  /** Taken instead of opening one: its port never closes. */
  inherited?: InheritedSocket | undefined;
  /** Called as connections make progress: a storm of them may keep the event loop in one turn for long. */
  alive?: () => void;
  log: Log;
  limits?: Partial<ListenerLimits>;
  /** Monotonic, ms. Default: the machine's. */
  now?: () => number;
}

export interface ListenerLimits extends SlotLimits {
  /** Sockets in all; when there is one more, the oldest that has not begun a handshake goes. */
  connections: number;
  /** Connections whose ClientHello is not complete; the oldest goes when there is one more. */
  silent: number;
  silentSeconds: number;
}

/** The form on `node:tls`: the only file that knows `tls.TLSSocket`. */
export class TlsListener implements Listener {
  readonly stats: ListenerStats = {
    accepted: 0,
    handshakes: 0,
    refused: {},
    handshaking: 0,
    silent: 0,
    open: 0,
  };
  readonly #options: TlsListenerOptions;
  readonly #limits: ListenerLimits;
  readonly #now: () => number;
  #hosts = new Map<string, tls.Server>();
  #connectionsPerAddress = 0;
  #server: Server | undefined;
  #ticker: NodeJS.Timeout | undefined;
  #accept: (stream: ClientStream) => void = (stream) => stream.destroy();
  /** Sets keep the order of arrival, so the first is the oldest. */
  readonly #silent = new Set<Arrival>();
  readonly #slots: HandshakeSlots<Arrival>;
  /** By `placeOf`. */
  readonly #handshaking = new Map<string, Arrival>();
  /** By `addressGroup`. */
  readonly #openByAddress = new Map<string, number>();
  readonly #crowd = new Crowd();
  #trusted = new BlockList();
  #sockets = 0;
  #complainedAt = -Infinity;
  #fullAt = -Infinity;

  constructor(options: TlsListenerOptions) {
    this.#options = options;
    this.#limits = { ...LISTENER_LIMITS, ...options.limits };
    this.#now = options.now ?? (() => performance.now());
    const owner = {
      start: (arrival: Arrival) => this.#handshake(arrival),
      drop: (arrival: Arrival, cause: RefusalCause) => this.#refuse(arrival, cause),
    };
    this.#slots = new HandshakeSlots(this.#limits, owner, this.#now);
  }

  get port(): number {
    const address = this.#server?.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  prepare(certificates: ListenerCertificates, rules: AddressRules): () => void {
    const trusted = blockListOf(rules.trustedProxies);
    const hosts = new Map<string, tls.Server>();
    for (const [name, host] of certificates.hosts) hosts.set(name, this.#handshaker(host));
    if (!hosts.has('')) throw new Error('The default host has no certificate.');
    return () => {
      this.#hosts = hosts;
      this.#connectionsPerAddress = rules.connectionsPerAddress;
      this.#trusted = trusted;
    };
  }

  async listen(accept: (stream: ClientStream) => void): Promise<void> {
    if (!this.#hosts.has('')) throw new Error('The listener has no certificates yet.');
    this.#accept = accept;
    this.#server = await openSocket(this.#options, (socket) => this.#handleAccept(socket));
    const { inherited, port, log } = this.#options;
    if (inherited && port !== 0 && this.port !== port)
      log.warn({ port: this.port, configured: port }, 'the inherited socket is not that of tcp-port');
    this.#server.on('error', (error) =>
      this.#options.log.error({ error: error.message }, 'cannot accept connections'),
    );
    this.#ticker = setInterval(() => this.handleTick(), TICK_MS);
    this.#ticker.unref();
  }

  async close(): Promise<void> {
    clearInterval(this.#ticker);
    const server = this.#server;
    this.#server = undefined;
    for (const arrival of [...this.#silent, ...this.#slots]) arrival.socket.destroy();
    // Its callback would wait for the streams that were handed over.
    server?.close();
  }

  // 1. accept
  #handleAccept(socket: Socket): void {
    this.stats.accepted += 1;
    this.#options.alive?.();
    const address = plainAddress(socket.remoteAddress);
    const arrival: Arrival = {
      socket,
      address,
      group: addressGroup(address),
      port: socket.remotePort ?? 0,
      localAddress: plainAddress(socket.localAddress),
      isCounted: false,
      isProxied: this.#trusted.check(address, isIPv6(address) ? 'ipv6' : 'ipv4'),
      since: this.#now(),
      parts: [],
      serverName: '',
      place: '',
      refused: false,
    };
    socket.on('error', ignore);
    this.#sockets += 1;
    socket.once('close', () => (this.#sockets -= 1));
    if (!this.#makeRoom()) return this.#refuse(arrival, 'limit');
    if (address === '') return void socket.destroy();
    // Of a proxied one the address is not known yet.
    if (!arrival.isProxied && !this.#countIn(arrival)) return;
    socket.once('close', () => this.#forget(arrival));
    for (const oldest of this.#silent) {
      if (this.#silent.size < this.#limits.silent) break;
      this.#silent.delete(oldest);
      this.#refuse(oldest, 'limit');
    }
    this.#silent.add(arrival);
    this.#count();
    const onReadable = () => {
      if (this.#handleHello(arrival)) socket.removeListener('readable', onReadable);
    };
    socket.on('readable', onReadable);
  }

  /** @returns false when nobody could be sent away for the newcomer. */
  #makeRoom(): boolean {
    if (this.#sockets <= this.#limits.connections) return true;
    const now = this.#now();
    if (now - this.#fullAt >= COMPLAINT_MS) {
      this.#fullAt = now;
      const { connections } = this.#limits;
      this.#options.log.warn({ connections }, 'as many connections as may be open: some are refused');
    }
    const oldest = this.#silent.values().next().value ?? this.#slots.oldestWaiting;
    if (oldest === undefined) return false;
    this.#silent.delete(oldest);
    this.#slots.leave(oldest);
    this.#refuse(oldest, 'limit');
    return true;
  }

  // 2. hello @returns whether there is nothing more to read here
  #handleHello(arrival: Arrival): boolean {
    this.#options.alive?.();
    for (let bytes = readBytes(arrival.socket); bytes; bytes = readBytes(arrival.socket))
      arrival.parts.push(bytes);
    const bytes = Buffer.concat(arrival.parts);
    const hello = arrival.isProxied ? this.#handleProxyHeader(arrival, bytes) : bytes;
    if (arrival.refused) return true;
    const state = arrival.isProxied ? 'incomplete' : helloState(hello);
    if (state === 'incomplete') {
      arrival.parts = [hello];
      return false;
    }
    this.#silent.delete(arrival);
    arrival.parts = [];
    if (state === 'not-tls') {
      this.#refuse(arrival, 'error');
      return true;
    }
    arrival.serverName = serverNameOf(hello);
    arrival.socket.unshift(hello);
    // 3. slot
    if (!this.#slots.add(arrival)) this.#refuse(arrival, 'limit');
    this.#count();
    return true;
  }

  /** @returns what follows the header; all of it as long as the header is not complete. */
  #handleProxyHeader(arrival: Arrival, bytes: Buffer): Buffer {
    const header = readProxyHeader(bytes);
    if (header.kind === 'incomplete') return bytes;
    if (header.kind === 'bad') {
      this.#complain(arrival.address, header.problem);
      this.#refuse(arrival, 'proxy-header');
      return bytes;
    }
    if (header.kind === 'proxied') {
      arrival.address = header.source.address;
      arrival.group = addressGroup(arrival.address);
      arrival.port = header.source.port;
      arrival.localAddress = header.destination.address;
    }
    arrival.isProxied = false;
    this.#countIn(arrival);
    return bytes.subarray(header.bytes);
  }

  /** Without the header every client would be the proxy, and one that writes its own header anybody. */
  #complain(proxy: string, problem: string): void {
    const now = this.#now();
    if (now - this.#complainedAt < COMPLAINT_MS) return;
    this.#complainedAt = now;
    this.#options.log.warn({ proxy, problem }, 'refused: a trusted proxy must begin with a PROXY header');
  }

  // 4. handshake
  #handshake(arrival: Arrival): void {
    arrival.place = placeOf(arrival.socket);
    this.#handshaking.set(arrival.place, arrival);
    const host = this.#hosts.get(arrival.serverName) ?? this.#hosts.get('');
    host?.emit('connection', arrival.socket);
  }

  #handshaker(host: HostCertificates): tls.Server {
    const server = tls.createServer({
      cert: host.pairs.map((pair) => pair.cert),
      key: host.pairs.map((pair) => pair.key),
      ca: host.ca,
      crl: host.crl,
      minVersion: host.minVersion,
      maxVersion: host.maxVersion,
      ciphers: CIPHERS,
      honorCipherOrder: true,
      // Every handshake is a full one: a resumed session would skip the client certificate and its revocation.
      secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
      requestCert: host.ca !== undefined,
      rejectUnauthorized: false,
      // The tick ends a handshake before; this one starts anew with each byte.
      handshakeTimeout: (this.#limits.handshakeSeconds + 1) * 1000,
      ALPNProtocols: ['http/1.1'],
    });
    server.on('tlsClientError', (_error, socket) => socket.destroy());
    server.on('secureConnection', (socket) => this.#handOver(socket));
    return server;
  }

  // 5. hand over
  #handOver(socket: tls.TLSSocket): void {
    const place = placeOf(socket);
    const arrival = this.#handshaking.get(place);
    if (arrival === undefined) return void socket.destroy();
    this.#handshaking.delete(place);
    this.#slots.leave(arrival);
    this.stats.handshakes += 1;
    this.stats.open += 1;
    socket.once('close', () => (this.stats.open -= 1));
    this.#options.alive?.();
    this.#count();
    // One write is one TLS record; with it Node would merge queued writes. docs/protocol.md §6.1
    Object.assign(socket, { _writev: null });
    this.#accept(new TlsStream(socket, factsOf(socket, arrival)));
  }

  /** Twice a second. The deadlines count from the start of each stage, whatever trickles in. */
  handleTick(): void {
    const now = this.#now();
    const crowd = this.#crowd.handleTick(this.#openByAddress, this.stats.open);
    if (crowd !== undefined) this.#options.log.warn({ ...crowd, advice: CROWD_ADVICE }, CROWD_MESSAGE);
    this.#expire(this.#silent, now - this.#limits.silentSeconds * 1000, 'timeout');
    this.#slots.handleTick();
    this.#count();
  }

  #expire(arrivals: Iterable<Arrival>, before: number, cause: RefusalCause): void {
    for (const arrival of arrivals) {
      if (arrival.since > before) return;
      this.#refuse(arrival, cause);
    }
  }

  #refuse(arrival: Arrival, cause: RefusalCause): void {
    if (arrival.refused) return;
    arrival.refused = true;
    this.stats.refused[cause] = (this.stats.refused[cause] ?? 0) + 1;
    arrival.socket.destroy();
  }

  /** @returns false when that was one too many of its address. */
  #countIn(arrival: Arrival): boolean {
    const open = (this.#openByAddress.get(arrival.group) ?? 0) + 1;
    const limit = this.#connectionsPerAddress;
    if (limit > 0 && open > limit) {
      this.#refuse(arrival, 'address-limit');
      return false;
    }
    this.#openByAddress.set(arrival.group, open);
    arrival.isCounted = true;
    return true;
  }

  #countOut(arrival: Arrival): void {
    if (!arrival.isCounted) return;
    const open = (this.#openByAddress.get(arrival.group) ?? 1) - 1;
    if (open === 0) this.#openByAddress.delete(arrival.group);
    else this.#openByAddress.set(arrival.group, open);
  }

  #forget(arrival: Arrival): void {
    this.#countOut(arrival);
    arrival.parts = [];
    this.#silent.delete(arrival);
    this.#slots.leave(arrival);
    if (this.#handshaking.get(arrival.place) === arrival) {
      this.#handshaking.delete(arrival.place);
      this.#refuse(arrival, 'error');
    }
    this.#count();
  }

  #count(): void {
    this.stats.silent = this.#silent.size;
    this.stats.handshaking = this.#slots.handshaking;
  }
}

class TlsStream extends SocketStream {
  readonly #socket: tls.TLSSocket;

  constructor(socket: tls.TLSSocket, facts: StreamFacts) {
    super(socket, facts);
    this.#socket = socket;
  }

  override exportKey(label: string, length: number): Uint8Array {
    const exporter: { exportKeyingMaterial(length: number, label: string, context?: Buffer): Buffer } =
      this.#socket;
    // No third argument: in TLS 1.2 an empty context is not the same as none.
    return exporter.exportKeyingMaterial(length, label);
  }
}

/** Opens the port, or takes the inherited socket, in which connections may wait already. */
function openSocket(at: ListenPlace, accept: (socket: Socket) => void): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer({ noDelay: true }, accept);
    server.once('error', (error: NodeJS.ErrnoException) => reject(new Error(listenProblem(error, at))));
    const opened = () => {
      server.removeAllListeners('error');
      resolve(server);
    };
    // Node listens on it once more, and without a backlog would make it small.
    if (at.inherited) server.listen({ fd: at.inherited.fd }, BACKLOG, opened);
    else
      server.listen({ host: at.host === '' ? undefined : at.host, port: at.port, backlog: BACKLOG }, opened);
  });
}

function listenProblem(error: NodeJS.ErrnoException, at: ListenPlace): string {
  if (at.inherited)
    return `Descriptor ${at.inherited.fd} (LISTEN_FDS) is no socket that accepts TCP connections: look at what starts this program.`;
  const place = at.host === '' ? `TCP port ${at.port}` : `${at.host} TCP port ${at.port}`;
  if (error.code === 'EADDRINUSE')
    return `${place} is taken by another program; stop it or choose another tcp-port.`;
  if (error.code === 'EACCES')
    return `${place} may not be opened by this user; start as root or choose a port above 1023.`;
  if (error.code === 'EADDRNOTAVAIL')
    return `${place} cannot be opened: this machine does not have that address.`;
  return `${place} cannot be opened (${error.code ?? error.message}).`;
}

function factsOf(socket: tls.TLSSocket, arrival: Arrival): StreamFacts {
  const leaf = socket.getPeerX509Certificate();
  const problem = socket.authorized ? '' : String(socket.authorizationError ?? 'not checked');
  return {
    peerAddress: arrival.address,
    peerPort: arrival.port,
    localAddress: arrival.localAddress,
    serverName: arrival.serverName,
    tlsVersion: socket.getProtocol() ?? '',
    cipher: socket.getCipher().name,
    servedLeafSha1: socket.getX509Certificate()?.fingerprint.replaceAll(':', '') ?? '',
    certificate: leaf && {
      verified: socket.authorized,
      problem: problem.toLowerCase().replaceAll('_', ' '),
      der: leaf.raw,
    },
    clientFinished: socket.getPeerFinished(),
  };
}

function blockListOf(cidrs: readonly string[]): BlockList {
  const list = new BlockList();
  for (const cidr of cidrs) {
    const [address = '', bits] = cidr.split('/');
    const family = isIPv6(address) ? 'ipv6' : 'ipv4';
    if (bits === undefined) list.addAddress(address, family);
    else list.addSubnet(address, Number(bits), family);
  }
  return list;
}

function readBytes(socket: Socket): Buffer | undefined {
  const bytes: unknown = socket.read();
  return Buffer.isBuffer(bytes) ? bytes : undefined;
}

/** The same for a socket and the TLS socket on top of it. */
function placeOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort} ${socket.localAddress} ${socket.localPort}`;
}

/** An IPv4 client of a socket that serves both families is an IPv4 client. */
function plainAddress(address: string | undefined): string {
  if (address === undefined) return '';
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice('::ffff:'.length) : address;
}

function ignore(): void {
  // A socket without an error listener would end the process; 'close' follows and is what counts.
}

type ListenPlace = Pick<TlsListenerOptions, 'host' | 'port' | 'inherited'>;

interface Arrival extends Candidate {
  socket: Socket;
  /** Of the client; of the proxy as long as `isProxied`. */
  address: string;
  port: number;
  /** What the client connected to. */
  localAddress: string;
  /** Among the connections of its address. */
  isCounted: boolean;
  /** A PROXY header has to come first. */
  isProxied: boolean;
  /** What came of the ClientHello so far; bounded by `helloState`. */
  parts: Buffer[];
  serverName: string;
  /** Key of the handshake; '' = none begun. */
  place: string;
  refused: boolean;
}

type RefusalCause = 'timeout' | 'error' | 'limit' | 'address-limit' | 'proxy-header';

export const LISTENER_LIMITS: ListenerLimits = {
  ...SLOT_LIMITS,
  connections: Infinity,
  silent: 4096,
  silentSeconds: 10,
};

/** The server's order. Only ephemeral key exchange and AEAD: docs/protocol.md §2.1. */
const CIPHERS = [
  'TLS_AES_256_GCM_SHA384',
  'TLS_AES_128_GCM_SHA256',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':');

const COMPLAINT_MS = 60_000;
const CROWD_MESSAGE = 'many connections come from very few addresses: a balancer may hide its clients';
const CROWD_ADVICE =
  'let the balancer send the PROXY protocol and name it in trusted-proxies; else max-connections-per-address and ' +
  'max-logins-per-address count all its clients as one, so set both to 0';

const BACKLOG = 4096;
const TICK_MS = 500;
