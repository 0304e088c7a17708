import { Controller, Inject } from '@nestjs/common';
import { GrpcMethod, RpcException } from '@nestjs/microservices';
import { NODE_SERVICE, type NodeService, type TunnelInfo } from '@sallyport/cluster';
import { REASONS, type Reason } from '@sallyport/protocol';

/** `sallyport.node.v1.NodeService` (libs/cluster/proto/node.proto). 64-bit numbers travel as decimal texts. */
@Controller()
export class NodeController {
  constructor(@Inject(NODE_SERVICE) private readonly node: NodeService) {}

  @GrpcMethod('NodeService', 'Tunnels')
  async tunnels(): Promise<{ tunnels: TunnelMessage[] }> {
    const tunnels = await this.node.tunnels();
    return { tunnels: tunnels.map(tunnelMessage) };
  }

  @GrpcMethod('NodeService', 'Disconnect')
  async disconnect(request: { sessionIds?: string[]; reason?: string }): Promise<{ count: number }> {
    const { sessionIds = [], reason = '' } = request;
    if (!isReason(reason)) throw new RpcException({ code: INVALID_ARGUMENT, message: 'unknown reason' });
    return { count: await this.node.disconnect(sessionIds, reason) };
  }
}

type WideField = 'epoch' | 'connectedAt' | 'sessionStartedAt' | 'rxBytes' | 'txBytes';
type TunnelMessage = Omit<TunnelInfo, WideField> & Record<WideField, string>;

function tunnelMessage(tunnel: TunnelInfo): TunnelMessage {
  return {
    ...tunnel,
    epoch: String(tunnel.epoch),
    connectedAt: String(tunnel.connectedAt),
    sessionStartedAt: String(tunnel.sessionStartedAt),
    rxBytes: String(tunnel.rxBytes),
    txBytes: String(tunnel.txBytes),
  };
}

function isReason(text: string): text is Reason {
  return Object.hasOwn(REASONS, text);
}

/** gRPC status code. */
const INVALID_ARGUMENT = 3;
