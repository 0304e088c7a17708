import { Controller, Inject } from '@nestjs/common';
import { GrpcMethod, RpcException } from '@nestjs/microservices';
import {
  disconnectFrom,
  NODE_SERVICE,
  releasesFrom,
  silenceMessage,
  statusMessage,
  systemClock,
  tunnelMessage,
  WireError,
  type PeerNode,
  type TunnelMessage,
} from '@sallyport/cluster';
import { Observable } from 'rxjs';

/** `sallyport.node.v1.NodeService` (libs/cluster/proto/node.proto). */
@Controller()
export class NodeController {
  readonly #now = systemClock();

  constructor(@Inject(NODE_SERVICE) private readonly node: PeerNode) {}

  @GrpcMethod('NodeService', 'ListTunnels')
  listTunnels(): Observable<{ tunnels: TunnelMessage[] }> {
    return new Observable((subscriber) => {
      this.node.tunnels().then(
        (tunnels) => {
          for (let start = 0; start < tunnels.length && !subscriber.closed; start += TUNNELS_PER_PAGE)
            subscriber.next({ tunnels: tunnels.slice(start, start + TUNNELS_PER_PAGE).map(tunnelMessage) });
          subscriber.complete();
        },
        (error: unknown) => subscriber.error(error),
      );
    });
  }

  @GrpcMethod('NodeService', 'Disconnect')
  async disconnect(request: unknown): Promise<{ count: number }> {
    const { sessionIds, reason } = parsed(() => disconnectFrom(request));
    return { count: await this.node.disconnect(sessionIds, reason) };
  }

  @GrpcMethod('NodeService', 'Release')
  async release(request: unknown): Promise<object> {
    await this.node.release(parsed(() => releasesFrom(request, this.#now())));
    return {};
  }

  @GrpcMethod('NodeService', 'Drain')
  async drain(request: { drain: boolean }): Promise<{ draining: boolean }> {
    return { draining: await this.node.drain(request.drain) };
  }

  @GrpcMethod('NodeService', 'Status')
  async status(): Promise<object> {
    return statusMessage(await this.node.status());
  }

  @GrpcMethod('NodeService', 'StoreSilence')
  async storeSilence(): Promise<object> {
    return silenceMessage(await this.node.storeSilence());
  }
}

function parsed<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof WireError)
      throw new RpcException({ code: INVALID_ARGUMENT, message: error.message });
    throw error;
  }
}

/** A page is some 500 KB. */
const TUNNELS_PER_PAGE = 500;
/** gRPC status code. */
const INVALID_ARGUMENT = 3;
