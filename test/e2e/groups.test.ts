import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { ALICE, BOB, World, type Openconnect } from '../harness/index.ts';

const world = await World.open({
  users: [ALICE, BOB, { name: 'tricky', password: `p<&>"';ä%s 1`, groups: ['staff'] }],
});
after(() => world.close());

for (const [form, group] of [
  ['label', 'Guests'],
  ['value', 'guests'],
] as const) {
  test(`row 1: a group chosen by its ${form} costs one more init, all on one TLS connection`, async () => {
    const client = await world.connected(BOB, { group });
    assert.equal(client.posts, 3, 'init, init with the group, reply');
    assert.equal(client.count(/^SSL negotiation with/m), 1);
    assert.equal(await world.lab.ping(world.lab.lanIpv4), 3);
    const shown = (await world.gateway.users()).find((user) => user['Username'] === BOB.name);
    assert.equal(shown?.['IPv4'], client.tunnel?.ipv4);
    await end(client);
  });
}

test('row 2: two wrong passwords each show the form and a text again, the right one then works', async () => {
  const client = world.openconnect(ALICE, {
    group: 'Staff',
    answers: ['wrong', 'wrong again', ALICE.password],
  });
  await client.whenUp();
  assert.equal(client.count(/^Login failed/m), 2);
  await end(client);
});

test('row 4: openconnect that calls itself AnyConnect for Windows gets the same tunnel', async () => {
  const client = await world.connected(ALICE, {
    group: 'Staff',
    more: ['--useragent', 'AnyConnect Windows 4.10.07061', '--os=win', '--version-string', '4.10.07061'],
  });
  assert.equal(await world.lab.ping(world.lab.lanIpv4), 3);
  assert.equal(await world.lab.ping(world.lab.lanIpv6), 3);
  await end(client);
});

test('a password of special characters arrives as typed', async () => {
  const client = await world.connected({ name: 'tricky', password: `p<&>"';ä%s 1` }, { group: 'Staff' });
  await end(client);
});

test('a group that does not exist is not available', async () => {
  const client = world.openconnect(ALICE, { group: 'Directors' });
  assert.notEqual(await client.exited, 0);
  assert.match(client.output, /Auth choice "Directors" not available/);
});

async function end(client: Openconnect): Promise<void> {
  assert.equal(await client.stop(), 0);
}
