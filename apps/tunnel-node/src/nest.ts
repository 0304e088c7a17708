// What brings NestJS along: apart from index.ts, because a restarted node serves CONNECT before it loads that.
export { NodeController } from './node.controller.ts';
export { TunnelNodeModule } from './tunnel-node.module.ts';
