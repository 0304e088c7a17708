import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { NestFactory } from '@nestjs/core';
import { ClientGrpcProxy, Transport, type GrpcOptions } from '@nestjs/microservices';
import type { NodeService, TunnelInfo } from '@sallyport/cluster';
import { firstValueFrom, type Observable } from 'rxjs';
import { TunnelNodeModule } from './tunnel-node.module.ts';

describe('NodeController', () => {
  it('serves NodeService over gRPC, with 64-bit numbers whole', async () => {
    const asked: unknown[] = [];
    const node: NodeService = {
      tunnels: async () => [TUNNEL],
      disconnect: async (...request) => {
        asked.push(request);
        return 1;
      },
    };
    const folder = mkdtempSync(join(tmpdir(), 'sallyport-node-'));
    const options: GrpcOptions = {
      transport: Transport.GRPC,
      options: {
        package: 'sallyport.node.v1',
        protoPath: fileURLToPath(new URL('../../../libs/cluster/proto/node.proto', import.meta.url)),
        url: `unix:${join(folder, 'node.sock')}`,
        loader: { longs: String, defaults: true },
      },
    };
    const app = await NestFactory.createMicroservice(TunnelNodeModule.with(node), {
      ...options,
      logger: false,
    });
    await app.listen();
    const proxy = new ClientGrpcProxy(options.options);
    try {
      const client = proxy.getService<{
        tunnels(request: object): Observable<{ tunnels: Record<string, unknown>[] }>;
        disconnect(request: object): Observable<{ count: number }>;
      }>('NodeService');
      const [tunnel] = (await firstValueFrom(client.tunnels({}))).tunnels;
      assert.equal(tunnel?.['epoch'], '1790000000123456789');
      assert.equal(tunnel?.['rxBytes'], '9007199254740991');
      assert.deepEqual(tunnel?.['routes'], ['10.0.0.0/8']);
      const disconnected = client.disconnect({ sessionIds: ['s1'], reason: 'server-disconnect' });
      assert.deepEqual(await firstValueFrom(disconnected), { count: 1 });
      assert.deepEqual(asked, [[['s1'], 'server-disconnect']]);
      await assert.rejects(firstValueFrom(client.disconnect({ sessionIds: ['s1'], reason: 'whim' })), {
        code: 3,
      });
    } finally {
      proxy.close();
      await app.close();
      rmSync(folder, { recursive: true });
    }
  });
});

const TUNNEL: TunnelInfo = {
  tunnelId: 7,
  sessionId: 's1',
  epoch: 1_790_000_000_123_456_789n,
  node: 'n1',
  user: 'alice',
  group: 'staff',
  profile: 'staff',
  device: 'tun0',
  mtuBytes: 1400,
  clientAddress: '192.0.2.1',
  localDeviceAddress: '192.0.2.2',
  hostname: 'laptop',
  userAgent: 'agent',
  ipv4: '10.90.0.5',
  ipv6: '',
  rxBytes: Number.MAX_SAFE_INTEGER,
  txBytes: 1,
  dpdSeconds: 20,
  keepaliveSeconds: 20,
  connectedAt: 1n,
  sessionStartedAt: 1n,
  tlsCipher: 'TLS1.3-AES_256_GCM_SHA384',
  dtlsCipher: '',
  dns: [],
  nbns: [],
  splitDns: [],
  routes: ['10.0.0.0/8'],
  noRoutes: [],
};
