/**
 * Calls over gRPC: over all replicas of a service, each with its own channel. The only file on @grpc/grpc-js that calls;
 * loaded with the first client, because a node serves CONNECT before it needs one.
 */
import {
  Client,
  connectivityState,
  credentials,
  experimental,
  Metadata,
  status,
  type CallOptions as GrpcCallOptions,
  type ChannelCredentials,
  type ChannelOptions,
  type ServiceError,
} from '@grpc/grpc-js';
import type { Log } from '@sallyport/chassis';
import { load, type MethodDefinition } from '@grpc/proto-loader';
import { checkRole, roleName, type PeerCertificates, type PeerRole } from './peers.ts';
import { ReplicaLost, Replicas, ServiceUnavailable, type CallOptions, type Replica } from './replicas.ts';
import { HEALTH_METHODS, isServing } from './rpc-health.ts';
import { StoreUnavailable } from './sessions.ts';
import { STORE_UNAVAILABLE, type Wire } from './wire.ts';

export interface RpcOptions {
  /** `HOST:PORT`, or `unix:PATH`. A name with several addresses counts as one replica that is several. */
  addresses: readonly string[];
  /** Of this process; absent = without TLS, for a socket that only its owner can open. */
  certificates?: PeerCertificates;
  checkEveryMs?: number;
  log?: Log;
  /** Longest wait for a connection to one replica. */
  connectMs?: number;
}

/** Calls of one contract over all replicas of a service. */
export class RpcClient {
  readonly #methods: ReadonlyMap<string, AnyMethod>;
  readonly #all: readonly GrpcReplica[];
  readonly #replicas: Replicas<GrpcReplica>;
  readonly #connectMs: number;

  private constructor(
    methods: ReadonlyMap<string, AnyMethod>,
    all: readonly GrpcReplica[],
    replicas: Replicas<GrpcReplica>,
    connectMs: number,
  ) {
    this.#methods = methods;
    this.#all = all;
    this.#replicas = replicas;
    this.#connectMs = connectMs;
  }

  static async open(role: PeerRole, wire: Wire, options: RpcOptions): Promise<RpcClient> {
    const contract = (await load(wire.protoPath, wire.loader))[`${wire.package}.${wire.service}`];
    if (contract === undefined || 'format' in contract)
      throw new Error(`${wire.protoPath} has no ${wire.service}`);
    const { addresses, certificates, checkEveryMs, log, connectMs = CONNECT_DEADLINE_MS } = options;
    const all = addresses.map((address) => new GrpcReplica(address, wire, role, certificates));
    const replicas = new Replicas(all, { service: role, checkEveryMs, log });
    return new RpcClient(new Map(Object.entries(contract)), all, replicas, connectMs);
  }

  async unary(name: string, request: object, options: CallOptions): Promise<unknown> {
    return this.#call(options, (replica, callOptions, signal) =>
      replica.unary(this.#method(name), request, callOptions, signal),
    );
  }

  /** All messages of a stream that ends by itself. */
  async pages(name: string, request: object, options: CallOptions): Promise<unknown[]> {
    return this.#call(options, (replica, callOptions, signal) =>
      replica.pages(this.#method(name), request, callOptions, signal),
    );
  }

  close(): void {
    this.#replicas.close();
  }

  async #call<T>(
    options: CallOptions,
    work: (replica: GrpcReplica, options: GrpcCallOptions, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const until = performance.now() + options.deadlineMs;
    const over = () =>
      this.#replicas.call(
        { ...options, deadlineMs: until - performance.now() },
        async (replica, signal, leftMs) => {
          const deadline = Date.now() + leftMs;
          await replica.connected(Math.min(leftMs, this.#connectMs));
          return work(replica, { deadline }, signal);
        },
      );
    try {
      return await over().catch(async (error: unknown) => {
        if (!mayHelpToWait(error, options) || !(await this.#someoneComesBack(until))) throw error;
        return over();
      });
    } catch (error) {
      // Another replica might have reached the store; when none did, it is the store that is away.
      if (error instanceof ServiceUnavailable && isStoreAway(error.cause)) throw error.cause.cause;
      throw error;
    }
  }

  /** When none of them listens, the next moments may bring one that is just being started again. */
  #someoneComesBack(until: number): Promise<boolean> {
    const withinMs = Math.min(until - performance.now(), this.#connectMs);
    return Promise.any(this.#all.map((replica) => replica.returned(withinMs))).then(
      () => true,
      () => false,
    );
  }

  #method(name: string): AnyMethod {
    const method = this.#methods.get(name);
    if (!method) throw new Error(`the contract has no ${name}`);
    return method;
  }
}

class GrpcReplica implements Replica {
  readonly address: string;
  readonly #client: Client;
  readonly #service: string;

  constructor(address: string, wire: Wire, role: PeerRole, certificates?: PeerCertificates) {
    this.address = address;
    this.#service = `${wire.package}.${wire.service}`;
    const secrets = certificates ? secure(certificates, role, address) : credentials.createInsecure();
    this.#client = new Client(address, secrets, {
      ...CHANNEL_OPTIONS,
      // As server name: an address may not stand there (RFC 6066 §3).
      ...(certificates && { 'grpc.ssl_target_name_override': roleName(role) }),
    });
  }

  /**
   * Waits for an attempt to connect that is under way, not for the pause before the next one: others may be there.
   * @throws ReplicaLost, unsent: nobody answers there, or it is not one of ours.
   */
  async connected(withinMs: number): Promise<void> {
    const channel = this.#client.getChannel();
    const until = Date.now() + withinMs;
    for (;;) {
      const state = channel.getConnectivityState(true);
      if (state === connectivityState.READY) return;
      const moves = state === connectivityState.IDLE || state === connectivityState.CONNECTING;
      if (!moves || !(await changes(channel, state, until)))
        throw new ReplicaLost(`nobody answers at ${this.address}`, { unsent: true });
    }
  }

  /** Until it can be called, however many attempts that takes. @throws Error when it cannot in time. */
  returned(withinMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#client.waitForReady(Date.now() + withinMs, (error) => (error ? reject(error) : resolve()));
    });
  }

  unary(method: AnyMethod, request: object, options: GrpcCallOptions, signal: AbortSignal): Promise<unknown> {
    const { path, requestSerialize, responseDeserialize } = method;
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        new Metadata(),
        options,
        (error, answer) => (error ? reject(this.#fault(error)) : resolve(answer)),
      );
      signal.addEventListener('abort', () => call.cancel(), { once: true });
      if (signal.aborted) call.cancel();
    });
  }

  async pages(
    method: AnyMethod,
    request: object,
    options: GrpcCallOptions,
    signal: AbortSignal,
  ): Promise<unknown[]> {
    const { path, requestSerialize, responseDeserialize } = method;
    const call = this.#client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      new Metadata(),
      options,
    );
    signal.addEventListener('abort', () => call.cancel(), { once: true });
    const pages: unknown[] = [];
    try {
      for await (const page of call) {
        if (pages.push(page) > MAX_PAGES) throw new Error(`${this.address} sends pages without end`);
      }
      return pages;
    } catch (error) {
      throw isServiceError(error) ? this.#fault(error) : error;
    } finally {
      call.cancel();
    }
  }

  async check(signal: AbortSignal): Promise<boolean> {
    // A channel that cannot connect says why only to a call, which then ends at once.
    await this.connected(CONNECT_DEADLINE_MS).catch(() => undefined);
    const request = { service: this.#service };
    return isServing(await this.unary(HEALTH_METHODS.Check, request, { deadline: Infinity }, signal));
  }

  close(): void {
    this.#client.close();
  }

  #fault(error: ServiceError): Error {
    const lost = (message: string, cause: Error) => new ReplicaLost(message, { cause, unsent: false });
    if (error.code === status.UNAVAILABLE && error.details === STORE_UNAVAILABLE)
      return lost('it cannot reach the store', new StoreUnavailable('auth cannot reach the store'));
    // CANCELLED: given up by us, or by a server that ends.
    if (error.code === status.UNAVAILABLE || error.code === status.CANCELLED)
      return lost(`${this.address} was lost during a call`, new Error(error.details, { cause: error }));
    if (error.code === status.DEADLINE_EXCEEDED)
      return new ServiceUnavailable(`${this.address} did not answer in time`, { cause: error });
    return new Error(`${this.address} refused a call: ${error.details}`, { cause: error });
  }
}

function secure(certificates: PeerCertificates, role: PeerRole, address: string): ChannelCredentials {
  const check = checkRole(role);
  const host = address.slice(0, address.lastIndexOf(':')).replace(/^\[(.*)\]$/, '$1');
  // One provider gives both: the CA for the server's certificate, and our own.
  return experimental.createCertificateProviderChannelCredentials(certificates, certificates, {
    checkServerIdentity: (_name, certificate) => check(host, certificate),
  });
}

function mayHelpToWait(error: unknown, { repeatable }: CallOptions): boolean {
  if (!(error instanceof ServiceUnavailable) || !(error.cause instanceof ReplicaLost)) return false;
  return (repeatable || error.cause.unsent) && !isStoreAway(error.cause);
}

/** @returns false: the time was over first. */
function changes(
  channel: ReturnType<Client['getChannel']>,
  from: connectivityState,
  until: number,
): Promise<boolean> {
  return new Promise((resolve) => {
    channel.watchConnectivityState(from, until, (error) => resolve(error === undefined));
  });
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error && 'metadata' in error;
}

function isStoreAway(error: unknown): error is ReplicaLost & { cause: StoreUnavailable } {
  return error instanceof ReplicaLost && error.cause instanceof StoreUnavailable;
}

type AnyMethod = Pick<MethodDefinition<object, object>, 'path' | 'requestSerialize' | 'responseDeserialize'>;

/** Of one message, both ways: ten times the largest that the edge lets in. */
export const MAX_RPC_MESSAGE_BYTES = 4 * 1024 * 1024;
const CONNECT_DEADLINE_MS = 2_000;
const MAX_PAGES = 10_000;

const CHANNEL_OPTIONS: ChannelOptions = {
  'grpc.max_receive_message_length': MAX_RPC_MESSAGE_BYTES,
  'grpc.max_send_message_length': MAX_RPC_MESSAGE_BYTES,
  // We repeat by ourselves, on another replica, and only what may be repeated.
  'grpc.enable_retries': 0,
  'grpc.initial_reconnect_backoff_ms': 100,
  // A replica that is started again is found soon after; an attempt that is refused costs next to nothing.
  'grpc.max_reconnect_backoff_ms': 250,
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 3_000,
  'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
  'grpc.use_local_subchannel_pool': 1,
};
