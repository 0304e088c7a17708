import { Module, type DynamicModule } from '@nestjs/common';
import { NODE_SERVICE, type PeerNode } from '@sallyport/cluster';
import { NodeController } from './node.controller.ts';

/**
 * The part of the tunnel node that others call. Clients never pass through Nest: listener, edge and tunnels are plain
 * objects that serve before Nest is loaded, and come in as arguments.
 */
@Module({})
export class TunnelNodeModule {
  static with(node: PeerNode): DynamicModule {
    return {
      module: TunnelNodeModule,
      controllers: [NodeController],
      providers: [{ provide: NODE_SERVICE, useValue: node }],
      exports: [NODE_SERVICE],
    };
  }
}
