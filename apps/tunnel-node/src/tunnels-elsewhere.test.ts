import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hashToken, StoreUnavailable } from '@sallyport/cluster';
import { NO_RETURN_PATH, type ReturnPath } from '@sallyport/engine';
import { PACKET, reasonText } from '@sallyport/protocol';
import type { ListenerCertificates } from './listener.ts';
import { TestCertificates } from './testing/certificates.ts';
import { TestClock } from './testing/clock.ts';
import { between, ipv4, TestNode, until, untilAsync } from './testing/node.ts';
import { World, type WorldOptions } from './testing/world.ts';

/* What the tunnels of a node do when its sessions go on at other nodes, and while the store is out of reach. */

const files = new TestCertificates();
const certificates: ListenerCertificates = {
  hosts: new Map([['', files.host([files.selfSigned('gw', 'ec')])]]),
};
files.remove();

test('announces nothing while it must not, and all tunnels that are there when it may again', async () => {
  const announced = new Map<number, string>();
  const returnPath: ReturnPath = {
    ...NO_RETURN_PATH,
    announce: (id, { ipv4: address }) => void announced.set(id, address),
    withdraw: (id) => void announced.delete(id),
  };
  await using node = await start({ returnPath });
  const first = await node.up();
  node.tunnels.announcing = false;
  const second = await node.up();
  const third = await node.up();
  assert.equal(announced.size, 0);
  third.client.destroy();
  await until(() => node.tunnels.size === 2);
  node.tunnels.announcing = true;
  assert.deepEqual([...announced.values()], [first.address, second.address]);
});

test('is left by all its clients without a packet at once when it abandons them, and the store is told later', async () => {
  let away = true;
  const clock = new TestClock();
  await using node = await start({
    clock,
    store: (sessions) =>
      between(sessions, {
        park: async (...request) => {
          if (away) throw new StoreUnavailable('away');
          return sessions.park(...request);
        },
      }),
  });
  const [first, second] = [await node.up(), await node.up()];
  assert.equal(node.tunnels.abandon('isolated'), 2);
  assert.equal(node.tunnels.size, 0);
  for (const { client } of [first, second]) assert.equal((await client.untilClosed()).length, 0);
  assert.equal((await node.sessions.get(first.session.id))?.state, 'up');
  away = false;
  clock.pass(1, node.tunnels);
  for (const { session } of [first, second])
    await untilAsync(async () => (await node.sessions.get(session.id))?.state === 'parked');
});

test('ends a session at its absolute limit by its own clock, whether the store answers or not', async () => {
  const clock = new TestClock();
  let asked = 0;
  await using node = await start({
    clock,
    store: (sessions) =>
      between(sessions, {
        endByNode: async () => {
          asked += 1;
          throw new StoreUnavailable('away');
        },
      }),
  });
  const { client } = await node.up({ grant: { sessionTimeoutSeconds: 600, dpdSeconds: 0 } });
  clock.pass(598, node.tunnels);
  assert.equal(node.tunnels.size, 1);
  clock.pass(3, node.tunnels);
  assert.equal(node.tunnels.size, 0);
  const [bye] = await client.frames(1);
  assert.equal(bye?.payload.toString('latin1', 1), reasonText('session-timeout'));
  await client.untilClosed();
  assert.ok(asked > 0);
});

test('carries no packet of a tunnel from the moment it is told that another node has the session', async () => {
  await using node = await start();
  const { client, session, address } = await node.up();
  let passed = 0;
  node.device.toHost = () => void (passed += 1);
  client.send(PACKET.data, ipv4(address, '10.1.2.3', 100));
  await until(() => passed === 1);
  const epoch = (await node.sessions.get(session.id))?.lease?.epoch ?? assert.fail('no lease');
  // Packets that were sent before are still on their way in.
  for (let n = 0; n < 50; n++) client.send(PACKET.data, ipv4(address, '10.1.2.3', 100));
  node.tunnels.release([{ sessionId: session.id, upToEpoch: epoch }]);
  await client.untilClosed();
  assert.deepEqual([passed, node.tunnels.size], [1, 0]);
});

test('takes no epoch from another node into its own claims: only the store says which there are', async () => {
  const seen: bigint[] = [];
  await using node = await start({
    store: (sessions) =>
      between(sessions, {
        claim: async (request) => {
          seen.push(request.seenEpoch);
          return sessions.claim(request);
        },
      }),
  });
  node.tunnels.release([{ sessionId: 'of somebody', upToEpoch: 2n ** 63n - 1n }]);
  await node.up();
  await node.up();
  assert.ok(seen.length === 2 && seen.every((epoch) => epoch < 2n ** 62n));
});

test('says from whom it took a session, and says nothing of one that nobody had', async () => {
  const taken: string[] = [];
  await using node = await start({
    onTaken: ({ name, incarnation }, { sessionId, upToEpoch }) =>
      void taken.push(`${name}/${incarnation} ${sessionId} ${upToEpoch}`),
  });
  const { token, session } = await node.session();
  const elsewhere = await node.sessions.claim({
    ...{ tokenHash: hashToken(token), node: { name: 'n2', incarnation: 'other' }, connectionId: 'c' },
    ...{ wantIpv4: true, wantIpv6: false, strapKey: '', mtuBytes: 1400, seenEpoch: 0n },
    client: { address: '192.0.2.9', userAgent: '', platform: '', hostname: '' },
  });
  assert.ok(elsewhere.ok);
  const client = await node.client();
  assert.equal((await client.connect(token)).status, 200);
  assert.deepEqual(taken, [`n2/other ${session.id} ${elsewhere.lease.epoch}`]);
  client.destroy();
  await untilAsync(async () => (await node.sessions.get(session.id))?.state === 'parked');
  assert.equal((await (await node.client()).connect(token)).status, 200);
  assert.equal(taken.length, 1);
});

async function start(options: WorldOptions = {}) {
  return new TestNode(await World.open(certificates, options));
}
