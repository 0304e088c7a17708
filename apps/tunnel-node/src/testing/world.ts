import type { Socket } from 'node:net';
import { createLog, Metrics } from '@sallyport/chassis';
import {
  DEFAULT_GRANT,
  forGrantFields,
  hashToken,
  MemorySessions,
  newToken,
  type NewSession,
  type Session,
  type SessionLimits,
  type Sessions,
  type Upstream,
} from '@sallyport/cluster';
import { MemoryDevice, PortableEngine } from '@sallyport/engine';
import type { Grant, Origin } from '@sallyport/protocol';
import { Edge, type EdgeLimits, type UpstreamName } from '../edge.ts';
import { TlsListener, type ListenerLimits } from '../listener.tls.ts';
import {
  HIGH_WATER_BYTES,
  type ClientStream,
  type ListenerCertificates,
  type StreamFacts,
} from '../listener.ts';
import { NodeMetrics, observeNode } from '../metrics.ts';
import type { StrapMode } from '../strap.ts';
import { Tunnels } from '../tunnels.ts';

/** A whole tunnel node on loopback, with the memory form of the store and an engine without a kernel device. */
export class World {
  readonly node = { name: 'n1', incarnation: 'first' };
  readonly metrics = new Metrics();
  readonly device = new MemoryDevice();
  readonly engine = new PortableEngine(this.device);
  readonly listener: TlsListener;
  readonly edge: Edge;
  readonly tunnels: Tunnels;
  readonly sessions: MemorySessions;
  readonly #streams: ClientStream[] = [];

  private constructor(sessions: MemorySessions, options: WorldOptions) {
    this.sessions = sessions;
    const metrics = new NodeMetrics(this.metrics);
    this.tunnels = new Tunnels({
      node: this.node,
      gatewayName: 'gw',
      sessions: options.store?.(sessions) ?? sessions,
      engine: this.engine,
      strap: options.strap ?? 'lenient',
      metrics,
      log: silent,
      ...(options.connectsAtOnce && { connectsAtOnce: options.connectsAtOnce }),
      ...(options.checkpointSeconds && { checkpointSeconds: options.checkpointSeconds }),
    });
    this.edge = new Edge({
      route: options.route ?? ((target) => (target === '/' ? 'portal' : undefined)),
      upstreams: Promise.resolve({ portal: options.portal ?? hello, downloader: hello }),
      tunnels: this.tunnels,
      metrics,
      log: silent,
      ...(options.edgeLimits && { limits: options.edgeLimits }),
    });
    this.listener = new TlsListener({
      host: '127.0.0.1',
      port: 0,
      connectionsPerAddress: 0,
      log: silent,
      ...(options.listenerLimits && { limits: options.listenerLimits }),
    });
    observeNode(this.metrics, { listener: this.listener, engine: this.engine, tunnels: this.tunnels });
  }

  static async open(certificates: ListenerCertificates, options: WorldOptions = {}): Promise<World> {
    const limits = options.limits ?? { maxClients: 0, connectsPerMinute: 0 };
    const world = new World(await MemorySessions.open({ limits }), options);
    world.listener.configure(certificates);
    await world.listener.listen((stream) => {
      world.#streams.push(stream);
      world.edge.accept(stream);
    });
    return world;
  }

  /** Most bytes that wait to be sent to one client. */
  pendingBytes(): number {
    return Math.max(...this.#streams.map((stream) => stream.pendingBytes));
  }

  get port(): number {
    return this.listener.port;
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
    await this.listener.close();
    await this.edge.close();
    await this.tunnels.close();
    await this.engine.close();
    await this.sessions.close();
  }
}

export interface WorldOptions {
  strap?: StrapMode;
  connectsAtOnce?: number;
  checkpointSeconds?: number;
  route?: (target: string) => UpstreamName | undefined;
  portal?: Upstream;
  edgeLimits?: Partial<EdgeLimits>;
  listenerLimits?: Partial<ListenerLimits>;
  limits?: SessionLimits;
  /** Stands between the tunnels and the store, to make it fail. */
  store?: (sessions: MemorySessions) => Sessions;
}

/** A plain TCP connection as a ClientStream: what stands above the seam must not care. */
export function plainStream(socket: Socket): ClientStream {
  return {
    duplex: socket,
    facts: PLAIN_FACTS,
    writeRecord: (bytes) => {
      socket.write(bytes);
      return socket.writableLength < HIGH_WATER_BYTES;
    },
    get pendingBytes() {
      return socket.writableLength;
    },
    onDrain: (callback) => void socket.on('drain', callback),
    exportKey: (_label, length) => new Uint8Array(length),
    end: () => void socket.end(),
    destroy: () => void socket.destroy(),
  };
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
