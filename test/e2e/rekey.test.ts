import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { ALICE, World } from '../harness/index.ts';

const world = await World.open({ settings: { 'rekey-time': 10 } });
after(() => world.close());

test('row 24: rekeying by a new tunnel under traffic keeps the session and its address', async () => {
  const client = await world.connected(ALICE);
  const address = client.tunnel?.ipv4;
  const { stdout } = await world.lab.exec(
    world.lab.client(),
    ['ping', '-n', '-i', '0.1', '-W', '1', '-c', '215', world.lab.lanIpv4],
    {
      anyCode: true,
    },
  );
  const received = Number(/(\d+) received/.exec(stdout)?.[1]);
  assert.ok(received >= 205, `${received} of 215 answers`);
  assert.ok(client.connects >= 3, `${client.connects} CONNECTs`);
  assert.equal(client.posts, 3, 'one login');
  const users = await world.gateway.users();
  assert.deepEqual(
    users.map((user) => user['IPv4']),
    [address],
  );
  assert.equal(await client.stop(), 0);
});
