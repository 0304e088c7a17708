import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ALICE, Authority, BOB, find, World, type Step } from '../harness/index.ts';

const world = await World.open({
  settings: ({ authority }) => ({
    'ca-cert': authority.ca.cert,
    'cert-user-field': 'UID',
    profiles: {
      staff: { label: 'Staff', methods: ['local'], default: true },
      card: { label: 'Card', methods: ['certificate'] },
      both: { label: 'Both', methods: ['certificate', 'local'] },
    },
  }),
});
after(() => world.close());
const alice = await world.authority.client('alice', '/UID=alice/CN=Alice Example');
const noUser = await world.authority.client('nouser', '/CN=Alice Example');
const stranger = await (
  await Authority.create(join(world.lab.folder, 'other'), 'Other CA')
).client('mallory', '/UID=alice');

test('row 9: a certificate alone logs in without a form, and openconnect presents it again for CONNECT', async () => {
  const step = await world.anyConnect({ certificate: alice }).init('card');
  assert.equal(step.authId, 'success');
  const client = await world.connected(ALICE, {
    group: 'Card',
    certificate: alice,
    user: undefined,
    password: undefined,
  });
  assert.equal(await world.lab.ping(world.lab.lanIpv4), 3);
  assert.equal((await world.gateway.users())[0]?.['Username'], 'alice');
  assert.equal(await client.stop(), 0);
});

test('row 9: certificate and password must both be good and name the same user', async () => {
  const client = world.anyConnect({ certificate: alice });
  const form = await client.init('both');
  assert.equal(form.type, 'auth-request');
  assert.ok(form.fields.includes('password'));
  assert.equal((await client.reply({ username: ALICE.name, password: 'wrong' })).authId === 'success', false);
  assert.equal((await client.reply({ username: ALICE.name, password: ALICE.password })).authId, 'success');

  const other = world.anyConnect({ certificate: alice });
  await other.init('both');
  assert.notEqual((await other.reply({ username: BOB.name, password: BOB.password })).authId, 'success');

  const real = await world.connected(ALICE, { group: 'Both', certificate: alice });
  assert.equal(await real.stop(), 0);
});

test('row 9: AnyConnect that leaves its certificate out on CONNECT is served all the same', async () => {
  const client = world.anyConnect({ certificate: alice });
  await client.init('card');
  const bare = world.anyConnect();
  bare.cookies.set('webvpn', client.token);
  const { answer, channel } = await bare.connect();
  assert.equal(answer.status, 200);
  channel.bye(0xb0);
});

test('row 9: without a certificate the client is asked for one, then told that it is required', async () => {
  const client = world.anyConnect();
  const asked = await client.init('card');
  assert.ok(find(asked.document, 'client-cert-request'));
  const failed = await client.post(
    '<config-auth client="vpn" type="init" aggregate-auth-version="2"><group-select>card</group-select><client-cert-fail/></config-auth>',
  );
  assertRefused(failed);
  assert.match(failed.error + failed.message, /certificate/i);
});

test('row 9: a certificate of another CA opens nothing, but passwords still work', async () => {
  assertRefused(await world.anyConnect({ certificate: stranger }).init('card'));
  const client = world.anyConnect({ certificate: stranger });
  assert.equal((await client.login(ALICE.name, ALICE.password)).authId, 'success');
});

test('row 9: a certificate that names no user opens nothing', async () => {
  assertRefused(await world.anyConnect({ certificate: noUser }).init('card'));
  const both = world.anyConnect({ certificate: noUser });
  await both.init('both');
  const step = await both.reply({ username: ALICE.name, password: ALICE.password });
  assertRefused(step);
});

function assertRefused(step: Step): void {
  assert.notEqual(step.authId, 'success');
  assert.equal(find(step.document, 'session-token'), undefined);
}
