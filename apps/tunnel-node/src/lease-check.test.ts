import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StoreUnavailable, type Claimed, type Refused } from '@sallyport/cluster';
import { PACKET, reasonText } from '@sallyport/protocol';
import { LOOK_SECONDS, SUSPECT_SECONDS } from './lease-check.ts';
import type { ListenerCertificates } from './listener.ts';
import { TestCertificates } from './testing/certificates.ts';
import { TestClock } from './testing/clock.ts';
import { between, ipv4, TestNode, until, untilAsync } from './testing/node.ts';
import { World, type WorldOptions } from './testing/world.ts';
import { CHECKPOINT_SECONDS } from './tunnels.ts';

const files = new TestCertificates();
const certificates: ListenerCertificates = {
  hosts: new Map([['', files.host([files.selfSigned('gw', 'ec')])]]),
};
files.remove();

test('a lease whose claim got no answer and whose client is gone is parked, and nothing else is', async () => {
  const clock = new TestClock();
  let lost = false;
  await using node = await start({
    clock,
    store: (sessions) =>
      between(sessions, {
        claim: async (request) => {
          const answer = await sessions.claim(request);
          if (lost) throw new StoreUnavailable('the answer is lost');
          return answer;
        },
      }),
  });
  const present = await node.up({ grant: { dpdSeconds: 0 } });
  lost = true;
  const { token, session } = await node.session();
  assert.equal((await (await node.client()).connect(token)).status, 503);
  const stateOf = async (id: string) => (await node.sessions.get(id))?.state;
  assert.equal(await stateOf(session.id), 'up');
  const begun = clock.now();
  await untilAsync(async () => (clock.pass(1, node.tunnels), (await stateOf(session.id)) === 'parked'));
  assert.ok(clock.now() - begun >= 2 * SUSPECT_SECONDS * 1000, 'seen at two looks');
  assert.deepEqual([await stateOf(present.session.id), node.tunnels.size], ['up', 1]);
});

test('an answer that comes when its lease is given up begins no tunnel', async () => {
  const clock = new TestClock();
  let answer = (): void => assert.fail('nothing was claimed');
  let claimed = false;
  await using node = await start({
    clock,
    store: (sessions) =>
      between(sessions, {
        claim: async (request) => {
          const made = await sessions.claim(request);
          claimed = true;
          return new Promise<Claimed | Refused>((resolve) => (answer = () => resolve(made)));
        },
      }),
  });
  const { token, session } = await node.session();
  const client = await node.client();
  client.write(Buffer.from(`CONNECT CSCOSSLC/tunnel HTTP/1.1\r\nCookie: webvpn=${token}\r\n\r\n`));
  await until(() => claimed);
  const parked = async () => (await node.sessions.get(session.id))?.state === 'parked';
  await untilAsync(async () => (clock.pass(1, node.tunnels), await parked()));
  answer();
  assert.equal((await client.untilClosed()).length, 0);
  assert.deepEqual([node.tunnels.size, await parked()], [0, true]);
});

for (const [what, sends, seconds] of [
  ['a checkpoint', true, CHECKPOINT_SECONDS - 1],
  ['the comparison, where nothing moves', false, LOOK_SECONDS],
] as const)
  test(`a tunnel whose lease was taken without a notice is closed without a packet: ${what}`, async () => {
    const clock = new TestClock();
    await using node = await start({ clock, checkpointSeconds: sends ? CHECKPOINT_SECONDS - 1 : 10_000 });
    const { client, session, address } = await node.up({ grant: { dpdSeconds: 0, keepaliveSeconds: 0 } });
    if (sends) {
      client.send(PACKET.data, ipv4(address, '10.1.2.3', 100));
      await untilAsync(async () => (await node.tunnels.tunnels())[0]?.rxBytes === 100);
    }
    // Another host with the same name: it parks what the first one has, and the mail of that one goes.
    assert.equal(await node.sessions.announce({ name: 'n1', incarnation: 'of another host' }), 1);
    clock.pass(seconds, node.tunnels);
    await until(() => node.tunnels.size === 0);
    assert.equal((await client.untilClosed()).length, 0);
    assert.equal((await node.sessions.get(session.id))?.state, 'parked');
  });

test('a tunnel whose session has ended without a notice ends with the reason, when the store can say so', async () => {
  const clock = new TestClock();
  let away = true;
  let asked = 0;
  await using node = await start({
    clock,
    checkpointSeconds: 5,
    store: (sessions) =>
      between(sessions, {
        notices: () => () => undefined,
        get: async (id) => {
          asked += 1;
          if (away) throw new StoreUnavailable('away');
          return sessions.get(id);
        },
      }),
  });
  const { client, session, address } = await node.up({ grant: { dpdSeconds: 0, keepaliveSeconds: 0 } });
  await node.sessions.end(session.id, 'terminated');
  const send = async (bytes: number) => {
    client.send(PACKET.data, ipv4(address, '10.1.2.3', 100));
    await untilAsync(async () => (await node.tunnels.tunnels())[0]?.rxBytes === bytes);
    clock.pass(5, node.tunnels);
  };
  await send(100);
  await until(() => asked > 0);
  assert.equal(node.tunnels.size, 1, 'nobody knows');
  away = false;
  await send(200);
  const [bye] = await client.frames(1);
  assert.deepEqual(
    [bye?.type, bye?.payload.toString('latin1', 1)],
    [PACKET.disconnect, reasonText('terminated')],
  );
  await until(() => node.tunnels.size === 0);
});

async function start(options: WorldOptions): Promise<TestNode> {
  return new TestNode(await World.open(certificates, options));
}
