import 'reflect-metadata';
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { NestFactory } from '@nestjs/core';
import { Transport, type GrpcOptions } from '@nestjs/microservices';
import {
  NODE_WIRE,
  nodeClient,
  type NodeStatus,
  type PeerNode,
  type Release,
  type TunnelInfo,
} from '@sallyport/cluster';
import type { Reason } from '@sallyport/protocol';
import { TunnelNodeModule } from './tunnel-node.module.ts';

/* The contract: what a client sees over gRPC is what a call in the same process gives. */

class FakeNode implements PeerNode {
  asked: unknown[] = [];
  list: TunnelInfo[] = [];
  tunnels = async () => this.list;
  disconnect = async (sessionIds: string[], reason: Reason) => {
    this.asked.push([sessionIds, reason]);
    return sessionIds.length;
  };
  release = async (releases: readonly Release[]) => void this.asked.push(releases);
  drain = async (drain: boolean) => drain;
  status = async () => STATUS;
  silentMs: number | undefined;
  storeSilence = async () => this.silentMs;
}

const STATUS: NodeStatus = {
  node: 'n1',
  incarnation: 'i1',
  version: '0.1.0',
  revision: 'abc',
  state: 'draining',
  startedAt: 1_790_000_000_123_456n,
  tunnels: 3,
};

describe('NodeController', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-node-'));
  const url = `unix:${join(folder, 'node.sock')}`;
  const direct = new FakeNode();
  let wired: PeerNode & { close(): void };
  let close: () => Promise<void>;

  before(async () => {
    const { package: name, protoPath, loader } = NODE_WIRE;
    const options: GrpcOptions = {
      transport: Transport.GRPC,
      options: { package: name, protoPath, url, loader },
    };
    const app = await NestFactory.createMicroservice(TunnelNodeModule.with(direct), {
      ...options,
      logger: false,
    });
    await app.listen();
    wired = await nodeClient({ addresses: [url] });
    close = () => app.close();
  });
  after(async () => {
    wired.close();
    await close();
    rmSync(folder, { recursive: true });
  });

  it('answers over gRPC as in process, 64-bit numbers whole', async () => {
    direct.list = [TUNNEL];
    assert.deepEqual(await wired.tunnels(), await direct.tunnels());
    assert.deepEqual(await wired.status(), await direct.status());
    assert.equal(await wired.storeSilence(), undefined);
    direct.silentMs = 0;
    assert.equal(await wired.storeSilence(), 0);
    direct.silentMs = 1234;
    assert.equal(await wired.storeSilence(), 1234);
    assert.deepEqual([await wired.drain(true), await wired.drain(false)], [true, false]);
    assert.equal(await wired.disconnect(['s1', 's2'], 'server-disconnect'), 2);
    const releases = [{ sessionId: 's1', upToEpoch: 1_790_000_000_123_456n }];
    await wired.release(releases);
    assert.deepEqual(direct.asked, [[['s1', 's2'], 'server-disconnect'], releases]);
  });

  it('gives ten thousand tunnels in pages', async () => {
    direct.list = Array.from({ length: 10_000 }, (_, tunnelId) => ({ ...TUNNEL, tunnelId }));
    const all = await wired.tunnels();
    assert.deepEqual(
      all.map(({ tunnelId }) => tunnelId),
      direct.list.map(({ tunnelId }) => tunnelId),
    );
    direct.list = [];
    assert.deepEqual(await wired.tunnels(), []);
  });

  it('refuses a reason that is none of ours', async () => {
    direct.asked = [];
    await assert.rejects(wired.disconnect(['s1'], 'whim' as Reason), /unknown reason/);
    assert.deepEqual(direct.asked, []);
  });

  it('refuses an epoch that no claim can have given', async () => {
    direct.asked = [];
    await assert.rejects(
      wired.release([{ sessionId: 's1', upToEpoch: 2n ** 63n - 1n }]),
      /far in the future/,
    );
    assert.deepEqual(direct.asked, []);
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
