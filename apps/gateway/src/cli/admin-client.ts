import { fileURLToPath } from 'node:url';
import { credentials, loadPackageDefinition, Metadata, status } from '@grpc/grpc-js';
import type { ClientReadableStream, ServiceError } from '@grpc/grpc-js';
import { load } from '@grpc/proto-loader';
import { StartError } from '@sallyport/chassis';
import { probeSocket } from '../admin/socket-probe.ts';
import { ADMIN_PACKAGE, PROTO_OPTIONS } from '../admin/wire.ts';
import type * as wire from '../admin/wire.ts';

type Unary<Q, A> = (
  request: Q,
  metadata: Metadata,
  options: { deadline: number },
  callback: (error: ServiceError | null, answer?: A) => void,
) => void;
type Streaming<Q, A> = (
  request: Q,
  metadata: Metadata,
  options: { deadline?: number },
) => ClientReadableStream<A>;

/** What each call takes and gives. */
interface Calls {
  status: [object, wire.StatusResponse];
  disconnect: [wire.Target, wire.TargetResponse];
  terminate: [wire.Target, wire.TargetResponse];
  reload: [object, wire.ReloadResponse];
  stop: [object, object];
  listAccounts: [object, wire.ListAccountsResponse];
  changeAccount: [wire.ChangeAccountRequest, wire.ChangeAccountResponse];
  listNodes: [object, wire.ListNodesResponse];
  drain: [wire.DrainRequest, wire.DrainResponse];
  listPools: [object, wire.ListPoolsResponse];
  explainUser: [wire.ExplainUserRequest, wire.ExplainUserResponse];
}

interface Streams {
  listTunnels: Streaming<wire.ListTunnelsRequest, wire.ListTunnelsResponse>;
  listSessions: Streaming<wire.ListSessionsRequest, wire.ListSessionsResponse>;
  events: Streaming<wire.EventsRequest, wire.AdminEvent>;
  close(): void;
}

type AdminStub = Streams & { [N in keyof Calls]: Unary<Calls[N][0], Calls[N][1]> };

/** The admin service of a running gateway. Every method rejects with a StartError that says what to do. */
export class AdminClient {
  readonly #stub: AdminStub;

  private constructor(stub: AdminStub) {
    this.#stub = stub;
  }

  /** @throws StartError when no gateway answers on this socket. */
  static async open(socket: string): Promise<AdminClient> {
    const problem = await socketProblem(socket);
    if (problem) throw new StartError(problem);
    const definition = await load(ADMIN_PROTO, { ...PROTO_OPTIONS });
    let found: unknown = loadPackageDefinition(definition);
    for (const name of [...ADMIN_PACKAGE.split('.'), 'AdminService']) {
      found = typeof found === 'object' && found !== null ? Reflect.get(found, name) : undefined;
    }
    // proto-loader makes the class at run time from the contract that wire.ts repeats; a test calls every method.
    const Service = found as new (address: string, credentials: unknown) => AdminStub;
    return new AdminClient(new Service(`unix:${socket}`, credentials.createInsecure()));
  }

  status = (): Promise<wire.StatusResponse> => this.#call('status', {});
  disconnect = (target: wire.Target): Promise<wire.TargetResponse> => this.#call('disconnect', target);
  terminate = (target: wire.Target): Promise<wire.TargetResponse> => this.#call('terminate', target);
  reload = (): Promise<wire.ReloadResponse> => this.#call('reload', {});
  listAccounts = (): Promise<wire.ListAccountsResponse> => this.#call('listAccounts', {});
  changeAccount = (request: wire.ChangeAccountRequest): Promise<wire.ChangeAccountResponse> =>
    this.#call('changeAccount', request);

  nodes = async (): Promise<wire.NodeEntry[]> => (await this.#call('listNodes', {})).nodes;
  drain = (request: wire.DrainRequest): Promise<wire.DrainResponse> => this.#call('drain', request);
  pools = async (): Promise<wire.PoolEntry[]> => (await this.#call('listPools', {})).pools;
  explainUser = (request: wire.ExplainUserRequest): Promise<wire.ExplainUserResponse> =>
    this.#call('explainUser', request);

  async stop(): Promise<void> {
    await this.#call('stop', {});
  }

  async tunnels(request: Partial<wire.ListTunnelsRequest> = {}): Promise<wire.Tunnel[]> {
    const all: wire.Tunnel[] = [];
    const stream = this.#stub.listTunnels(
      { user: '', tunnelId: 0, node: '', ...request },
      new Metadata(),
      deadline(),
    );
    for await (const page of messages(stream)) all.push(...page.tunnels);
    return all;
  }

  async sessions(sessionId = ''): Promise<wire.SessionEntry[]> {
    const all: wire.SessionEntry[] = [];
    const stream = this.#stub.listSessions({ sessionId }, new Metadata(), deadline());
    for await (const page of messages(stream)) all.push(...page.sessions);
    return all;
  }

  /** Ends with the gateway, or when the loop over it is left. */
  events(request: wire.EventsRequest): AsyncGenerator<wire.AdminEvent, void> {
    return messages(this.#stub.events(request, new Metadata(), request.follow ? {} : deadline()));
  }

  close(): void {
    this.#stub.close();
  }

  #call<N extends keyof Calls>(method: N, request: Calls[N][0]): Promise<Calls[N][1]> {
    const stub: { [M in keyof Calls]: Unary<Calls[M][0], Calls[M][1]> } = this.#stub;
    return new Promise((resolve, reject) => {
      stub[method](request, new Metadata(), deadline(), (error, answer) => {
        if (error || answer === undefined) reject(sentence(error));
        else resolve(answer);
      });
    });
  }
}

/** Why a connection to this socket would fail; undefined = it would not. */
export async function socketProblem(socket: string): Promise<string | undefined> {
  const code = await probeSocket(socket);
  if (code === '') return undefined;
  if (code === 'ENOENT' || code === 'ECONNREFUSED') {
    return `No gateway is running (nobody answers on ${socket}): start one, or name its socket with -s.`;
  }
  if (code === 'EACCES' || code === 'EPERM')
    return `You may not open ${socket}: run this as the user of the gateway.`;
  return `The socket ${socket} cannot be opened (${code}): name the gateway's socket with -s.`;
}

async function* messages<T>(stream: ClientReadableStream<T>): AsyncGenerator<T, void> {
  try {
    for await (const message of stream) yield message as T; // a stream of Node says `any` of what it holds
  } catch (error) {
    throw sentence(error);
  } finally {
    stream.cancel();
  }
}

function sentence(error: unknown): StartError {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  // CANCELLED: it closed the call while it stopped; our own cancelling is nobody's error.
  if (code === status.UNAVAILABLE || code === status.CANCELLED)
    return new StartError('The gateway went away before it answered.', { cause: error });
  if (code === status.DEADLINE_EXCEEDED)
    return new StartError('The gateway did not answer in time: look at its log.', { cause: error });
  const text = error instanceof Error ? error.message.replace(/^\d+ [A-Z_]+: /, '') : String(error);
  return new StartError(`The gateway could not do it (${text}): look at its log.`, { cause: error });
}

function deadline(): { deadline: number } {
  return { deadline: Date.now() + CALL_DEADLINE_MS };
}

const ADMIN_PROTO = fileURLToPath(new URL('../proto/admin.proto', import.meta.resolve('@sallyport/cluster')));
const CALL_DEADLINE_MS = 30_000;
