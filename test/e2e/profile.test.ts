import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ALICE, header, World } from '../harness/index.ts';

const profile = (name: string) => `<?xml version="1.0" encoding="UTF-8"?>
<AnyConnectProfile xmlns="http://schemas.xmlsoap.org/encoding/">
<ServerList><HostEntry><HostName>${name}</HostName><HostAddress>vpn.example.test</HostAddress></HostEntry></ServerList>
</AnyConnectProfile>
`;
let file = '';
const world = await World.open({
  settings: ({ folder }) => {
    file = join(folder, 'staff.xml');
    writeFileSync(file, profile('First'));
    return { 'profile-file': file };
  },
});
after(() => world.close());

test('row 28: openconnect fetches the profile when its copy has another hash, and not when it is the same', async () => {
  const copy = join(world.lab.folder, 'copy.xml');
  writeFileSync(copy, profile('Stale'));
  const first = await world.connected(ALICE, { group: 'Staff', more: ['--xmlconfig', copy] });
  await first.stop();
  assert.equal(readFileSync(copy, 'utf8'), profile('First'));
  writeFileSync(copy, profile('First'));
  const second = await world.connected(ALICE, { group: 'Staff', more: ['--xmlconfig', copy] });
  assert.equal(second.count(/^GET https?:.*profile/m), 0);
  await second.stop();
});

test('row 28: the announced hash is that of the bytes served', async () => {
  const client = await world.loggedIn();
  const [got] = (await client.download()).filter((item) => item.announcedSha1 !== '');
  assert.equal(got?.body.toString(), profile('First'));
});

test('row 28: the profile needs the cookie of a live session', async () => {
  const client = await world.loggedIn();
  const [got] = (await client.download()).filter((item) => item.announcedSha1 !== '');
  assert.ok(got);
  assert.equal((await world.anyConnect().exchange('GET', got.path)).status, 401);
  await client.logout();
  client.cookies.set('webvpn', client.token);
  assert.equal((await client.exchange('GET', got.path)).status, 401);
});

test('row 28: after a reload a changed profile is announced with its new hash; a broken one is refused', async () => {
  writeFileSync(file, profile('Second'));
  await world.gateway.cli(['reload']);
  const client = await world.loggedIn();
  const [got] = (await client.download()).filter((item) => item.announcedSha1 !== '');
  assert.equal(got?.body.toString(), profile('Second'));

  writeFileSync(file, '<AnyConnectProfile><ServerList></AnyConnectProfile>');
  const refused = await world.gateway.cli(['reload'], { anyCode: true });
  assert.notEqual(refused.code, 0);
  assert.match(refused.stdout + refused.stderr, /staff\.xml/);
  const later = await world.loggedIn();
  const [same] = (await later.download()).filter((item) => item.announcedSha1 !== '');
  assert.equal(same?.body.toString(), profile('Second'));
});

test('row 28: downloads know ETag and Range', async () => {
  const client = await world.loggedIn();
  const [got] = (await client.download()).filter((item) => item.announcedSha1 !== '');
  assert.ok(got);
  const answer = await client.exchange('GET', got.path);
  assert.ok(header(answer, 'ETag'));
});
