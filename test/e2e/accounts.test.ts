import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { ALICE, BOB, FRAME, World, type TestUser } from '../harness/index.ts';

const CAROL: TestUser = { name: 'carol', password: 'pass carol', groups: ['staff'] };
const world = await World.open({ users: [ALICE, BOB, CAROL] });
after(() => world.close());

for (const [what, user, argv, input] of [
  ['locking', ALICE, ['user', 'lock', 'alice'], ''],
  ['a new password for', BOB, ['user', 'passwd', 'bob'], 'new password\n'],
  ['deleting', CAROL, ['user', 'delete', 'carol'], ''],
] as const) {
  test(`${what} a user ends his tunnels and his parked sessions, with a text`, async () => {
    const real = await world.connected(user);
    const scripted = await world.loggedIn(user);
    const { channel } = await scripted.connect();
    const parked = await world.loggedIn(user);
    (await parked.connect()).tls.close();

    await world.gateway.cli(argv, { input });

    assert.ok((await channel.next(FRAME.disconnect)).payload.length > 1, 'a reason byte and a text');
    await channel.whenClosed();
    assert.notEqual(await real.exited, 0);
    assert.match(real.output, /Session terminated by server/);
    assert.equal((await parked.connect()).answer.status, 401);
    assert.equal((await scripted.connect()).answer.status, 401);
    assert.notEqual((await world.anyConnect().login(user.name, user.password)).authId, 'success');
  });
}

test('unlocking lets the user in again; the new password works', async () => {
  await world.gateway.cli(['user', 'unlock', 'alice']);
  assert.equal((await world.anyConnect().login(ALICE.name, ALICE.password)).authId, 'success');
  assert.equal((await world.anyConnect().login(BOB.name, 'new password')).authId, 'success');
});

test('disconnect ends a tunnel and leaves its session; terminate ends the session, parked ones too', async () => {
  const client = await world.loggedIn();
  const { channel } = await client.connect();
  await world.gateway.cli(['disconnect', 'user', ALICE.name]);
  await channel.whenClosed();
  const again = await client.connect();
  assert.equal(again.answer.status, 200);

  const parked = await world.loggedIn();
  (await parked.connect()).tls.close();
  await world.gateway.cli(['terminate', 'user', ALICE.name]);
  assert.ok((await again.channel.next(FRAME.disconnect)).payload.length > 1);
  assert.equal((await parked.connect()).answer.status, 401);
  assert.equal((await client.connect()).answer.status, 401);
});

test('an added user and a lock are there after a restart', async () => {
  await world.gateway.cli(['user', 'add', 'dave'], { input: 'pass dave\n' });
  await world.gateway.cli(['user', 'lock', 'bob']);
  await world.gateway.kill();
  await world.gateway.start();
  assert.equal((await world.anyConnect().login('dave', 'pass dave')).authId, 'success');
  assert.notEqual((await world.anyConnect().login(BOB.name, 'new password')).authId, 'success');
});
