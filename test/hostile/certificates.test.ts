import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { ALICE, World, type KeyPair } from '../harness/index.ts';
import { survives } from './survives.ts';

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

test('V16: a good certificate whose user field is missing, empty, doubled or odd opens nothing, with a password neither', async () => {
  const { authority } = world;
  const certificates: [string, KeyPair][] = [
    ['no UID', await authority.client('v16-none', '/CN=alice')],
    ['no subject at all', await authority.client('v16-empty', '/')],
    ['two UIDs', await authority.client('v16-two', '/UID=alice/UID=bob')],
    ['the same UID twice', await authority.client('v16-twice', '/UID=alice/UID=alice')],
    ['a path', await authority.client('v16-path', '/UID=..\\/..\\/alice')],
    ['a blank', await authority.client('v16-blank', '/UID= ')],
  ];
  // The CA says who they are: they are not the user whose password is given.
  const others: [string, KeyPair][] = [
    ['another user', await authority.client('v16-other', '/UID=bob')],
    ['nobody whom we know', await authority.client('v16-nobody', '/UID=nobody')],
    ['the name in other letters', await authority.client('v16-case', '/UID=ALICE')],
  ];
  await survives(
    world,
    async () => {
      for (const [what, certificate] of certificates) {
        const alone = await world.anyConnect({ certificate }).init('card');
        assert.notEqual(alone.authId, 'success', what);
      }
      for (const [what, certificate] of [...certificates, ...others]) {
        const client = world.anyConnect({ certificate });
        await client.init('both');
        const both = await client.reply({ username: ALICE.name, password: ALICE.password });
        assert.notEqual(both.authId, 'success', what);
      }
    },
    { counter: 'sallyport_auth_attempts_total', labels: { method: 'certificate' }, atLeast: 4 },
  );
});
