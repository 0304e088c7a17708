import type { Socket } from 'node:net';
import { createLog, Metrics } from '@sallyport/chassis';
import {
  DEFAULT_GRANT,
  forGrantFields,
  hashToken,
  MemoryEventLog,
  MemorySessions,
  newToken,
  type NewSession,
  type Session,
  type SessionLimits,
  type Sessions,
  type Upstream,
} from '@sallyport/cluster';
import { MemoryDevice, NO_RETURN_PATH, PortableEngine, type ReturnPath } from '@sallyport/engine';
import type { Grant, Origin } from '@sallyport/protocol';
import type { EdgeLimits, UpstreamName } from '../edge.ts';
import { TlsListener, type ListenerLimits } from '../listener.tls.ts';
import type { ClientStream, ListenerCertificates, StreamFacts } from '../listener.ts';
import { openTunnelNode, type TunnelNode } from '../open-tunnel-node.ts';
import type { TestClock } from './clock.ts';
import { SocketStream } from '../socket-stream.ts';
import type { StrapMode } from '../strap.ts';
import type { Tunnels, TunnelsOptions } from '../tunnels.ts';

/** A whole tunnel node on loopback, with the memory form of the store and an engine without a kernel device. */
export class World {
  readonly metrics: Metrics;
  readonly device: MemoryDevice;
  readonly engine: PortableEngine;
  readonly tunnels: Tunnels;
  readonly sessions: MemorySessions;
  readonly events: MemoryEventLog;
  readonly #node: TunnelNode;
  readonly #listener: WatchedListener;

  private constructor(parts: WorldParts) {
    this.metrics = parts.metrics;
    this.device = parts.device;
    this.engine = parts.engine;
    this.sessions = parts.sessions;
    this.events = parts.events;
    this.#node = parts.node;
    this.#listener = parts.listener;
    this.tunnels = parts.node.tunnels;
  }

  static async open(certificates: ListenerCertificates, options: WorldOptions = {}): Promise<World> {
    const { connectsAtOnce, checkpointSeconds, edgeLimits, strap = 'lenient' } = options;
    const events = new MemoryEventLog();
    const sessions = await MemorySessions.open({
      events,
      limits: options.limits ?? { maxClients: 0, connectsPerMinute: 0 },
    });
    const metrics = new Metrics();
    const device = new MemoryDevice();
    const engine = new PortableEngine(device);
    const listener = new WatchedListener({
      ...{ host: '127.0.0.1', port: 0, log: silent },
      ...(options.listenerLimits && { limits: options.listenerLimits }),
    });
    const node = await openTunnelNode({
      settings: {
        ...{ listenHost: '127.0.0.1', tcpPort: 0, maxConnectionsPerAddress: 0, trustedProxies: [], strap },
      },
      ...{ certificates, engine, events, metrics, listener, log: silent },
      returnPath: options.returnPath ?? NO_RETURN_PATH,
      node: { name: 'n1', incarnation: 'first' },
      sessions: options.store?.(sessions) ?? sessions,
      upstreams: Promise.resolve({ portal: options.portal ?? hello, downloader: hello }),
      route: options.route ?? ((target) => (target === '/' ? 'portal' : undefined)),
      limits: {
        ...(connectsAtOnce && { connectsAtOnce }),
        ...(checkpointSeconds && { checkpointSeconds }),
        ...(edgeLimits && { edge: edgeLimits }),
      },
      onTaken: options.onTaken,
      ...(options.clock && { now: options.clock.now }),
    });
    return new World({ metrics, device, engine, sessions, events, node, listener });
  }

  /** Most bytes that wait to be sent to one client. */
  pendingBytes(): number {
    return Math.max(...this.#listener.streams.map((stream) => stream.pendingBytes));
  }

  get port(): number {
    return this.#listener.port;
  }

  async session(
    grant: Partial<Grant> = {},
    more: Partial<NewSession> = {},
  ): Promise<{ token: string; session: Session }> {
    const token = newToken();
    const session = await this.sessions.create({
      tokenHash: hashToken(token),
      user: 'alice',
      profile: 'staff',
      grant: { ...GRANT, ...grant },
      origins: forGrantFields((): Origin => ({ scope: 'default', name: '' })),
      client: { address: '127.0.0.1', userAgent: '', platform: '', hostname: '' },
      strapKey: '',
      ...more,
    });
    return { token, session };
  }

  /** Value of one line of the metrics text; 0 if it is not there. */
  async metric(line: string): Promise<number> {
    const found = (await this.metrics.text()).split('\n').find((text) => text.startsWith(`${line} `));
    return Number(found?.slice(line.length + 1) ?? 0);
  }

  async close(): Promise<void> {
    await this.#node.close();
    await this.engine.close();
    await this.sessions.close();
  }
}

interface WorldParts {
  metrics: Metrics;
  device: MemoryDevice;
  engine: PortableEngine;
  sessions: MemorySessions;
  events: MemoryEventLog;
  node: TunnelNode;
  listener: WatchedListener;
}

/** Keeps the streams that it handed over. */
class WatchedListener extends TlsListener {
  readonly streams: ClientStream[] = [];

  override listen(accept: (stream: ClientStream) => void): Promise<void> {
    return super.listen((stream) => {
      this.streams.push(stream);
      accept(stream);
    });
  }
}

export interface WorldOptions {
  onTaken?: TunnelsOptions['onTaken'];
  returnPath?: ReturnPath;
  strap?: StrapMode;
  connectsAtOnce?: number;
  checkpointSeconds?: number;
  route?: (target: string) => UpstreamName | undefined;
  portal?: Upstream;
  edgeLimits?: Partial<EdgeLimits>;
  listenerLimits?: Partial<ListenerLimits>;
  limits?: SessionLimits;
  /** Instead of the machine's; the store keeps its own. */
  clock?: TestClock;
  /** Stands between the tunnels and the store, to make it fail. */
  store?: (sessions: MemorySessions) => Sessions;
}

/** A plain TCP connection as a ClientStream: what stands above the seam must not care. */
export class PlainStream extends SocketStream {
  constructor(socket: Socket) {
    super(socket, PLAIN_FACTS);
  }

  override exportKey(_label: string, length: number): Uint8Array {
    return new Uint8Array(length);
  }
}

const hello: Upstream = async () => ({
  status: 200,
  headers: [['Content-Type', 'text/plain']],
  body: Buffer.from('hello'),
});

export const silent = createLog({ name: 'test', level: 'silent' });

const PLAIN_FACTS: StreamFacts = {
  peerAddress: '192.0.2.1',
  peerPort: 1,
  localAddress: '192.0.2.2',
  serverName: 'vpn.example.test',
  tlsVersion: 'TLSv1.3',
  cipher: 'TLS_AES_256_GCM_SHA384',
  servedLeafSha1: 'AB'.repeat(20),
};

const GRANT: Grant = {
  ...DEFAULT_GRANT,
  group: 'staff',
  ipv4Pools: ['10.90.0.0/24'],
  routes: ['10.0.0.0/8'],
  dns: ['10.90.0.1'],
  maxSameClients: 0,
  noUdp: true,
};
