import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { after, test } from 'node:test';
import { ALICE, World } from '../harness/index.ts';

const world = await World.open({ settings: { strap: 'strict' } });
after(() => world.close());

for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
  test(`row 12: three CONNECTs in a row over ${version}, each signed with the key before, are accepted`, async () => {
    const client = await world.loggedIn(ALICE, { version, strap: true });
    for (let round = 0; round < 3; round++) {
      const { answer, tls } = await client.connect();
      assert.equal(answer.status, 200, `CONNECT ${round + 1}`);
      tls.close();
    }
  });

  test(`row 12: a CONNECT over ${version} whose answer was lost may be signed with the last key but one`, async () => {
    const client = await world.loggedIn(ALICE, { version, strap: true });
    (await client.connect()).tls.close();
    client.strapKeys.pop();
    const { answer, tls } = await client.connect();
    assert.equal(answer.status, 200);
    tls.close();
  });

  test(`row 12: a wrong key, a foreign connection or no signature over ${version} is answered 401`, async () => {
    const client = await world.loggedIn(ALICE, { version, strap: true });
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const good = client.strapKeys[0];
    assert.ok(good);
    client.strapKeys[0] = { privateKey, spki: publicKey.export({ type: 'spki', format: 'der' }) };
    assert.equal((await client.connect()).answer.status, 401, 'signed with a key that was never announced');

    const thief = world.anyConnect({ version });
    thief.cookies.set('webvpn', client.token);
    assert.equal((await thief.connect()).answer.status, 401, 'not signed at all');

    client.strapKeys.splice(0, client.strapKeys.length, good);
    const { answer, tls } = await client.connect();
    assert.equal(answer.status, 200, 'the owner still can');
    tls.close();
  });
}

test('row 12: the real client keeps its session over reconnects', async () => {
  const client = await world.connected(ALICE);
  for (const count of [2, 3]) {
    client.signal('SIGUSR2');
    await client.whenConnects(count);
  }
  assert.equal(await world.lab.ping(world.lab.lanIpv4), 3);
  assert.equal(await client.stop(), 0);
});

test('row 12: where STRAP is required a client without it is answered 401', async () => {
  assert.equal((await (await world.loggedIn(ALICE)).connect()).answer.status, 401);
});
