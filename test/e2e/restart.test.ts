import assert from 'node:assert/strict';
import { appendFileSync, readFileSync } from 'node:fs';
import { after, afterEach, beforeEach, test } from 'node:test';
import { ALICE, eventually, header, World, type Openconnect } from '../harness/index.ts';

/** Her password takes a while to check. */
const SLOW = {
  name: 'sarah',
  password: 'x',
  hash: '$5$rounds=200000$abcdefgh$0HxxVyshRGNz56BcI07LSPQINISxxkSs0Pe4WbcBTu6',
};
const world = await World.open();
appendFileSync(world.usersFile, `${SLOW.name}:staff:${SLOW.hash}\n`);
await world.gateway.cli(['reload']);
after(() => world.close());
let client: Openconnect;
let address: string;
let posts: number;

beforeEach(async () => {
  client = await world.connected(ALICE);
  address = client.tunnel?.ipv4 ?? '';
  posts = client.posts;
  assert.equal(await world.lab.ping(world.lab.lanIpv4), 3);
});
afterEach(() => client.stop());

test('row 21: a reset TCP connection is continued at once with the same address', async () => {
  const { lab } = world;
  const rule =
    'table inet cut { chain out { type filter hook output priority 0; tcp dport 443 limit rate 1/minute burst 1 packets reject with tcp reset; }; }';
  await lab.exec(lab.client(), ['nft', '-f', '-'], { input: rule });
  await lab.ping(lab.lanIpv4, { count: 2 });
  await lab.exec(lab.client(), ['nft', 'delete', 'table', 'inet', 'cut']);
  await client.whenConnects(2);
  await assertBack();
});

test('row 21: kill -9 of the gateway and a new start: the client is back by itself, same address, no password', async () => {
  const parked = await world.loggedIn();
  await world.gateway.kill();
  await world.gateway.start();
  await client.whenConnects(2);
  await assertBack();
  const { answer, tls } = await parked.connect();
  assert.equal(answer.status, 200, 'a login that had no tunnel yet survives too');
  tls.close();
});

test('row 21: a planned stop and start: no DISCONNECT, the client is back by itself, same address, no password', async () => {
  const scripted = await (await world.loggedIn()).connect();
  assert.equal(await world.gateway.stop(), 0);
  await scripted.channel.whenClosed();
  assert.deepEqual(
    scripted.channel.frames.filter((one) => one.type === 5 || one.type === 9),
    [],
  );
  await world.gateway.start();
  await client.whenConnects(2);
  await assertBack();
});

test('a planned stop lets a login under way finish', async () => {
  const login = world.anyConnect();
  await login.init();
  const before = cpuTicks();
  const step = login.reply({ username: SLOW.name, password: SLOW.password });
  await eventually('the password is being checked', () => cpuTicks() > before + 4, undefined, 5);
  const [{ authId, error }] = await Promise.all([step, world.gateway.stop()]);
  assert.equal(authId, 'success', error);
  await world.gateway.start();
  const { answer, tls } = await login.connect();
  assert.equal(answer.status, 200);
  tls.close();
});

test('a token that was ended stays dead over kill -9 and a new start', async () => {
  const ended = await world.loggedIn();
  const tunnel = await ended.connect();
  const before = header(tunnel.answer, 'X-CSTP-Address');
  tunnel.channel.bye(0xb0);
  await tunnel.channel.whenClosed();
  await world.gateway.kill();
  await world.gateway.start();
  const { answer } = await ended.connect();
  assert.equal(answer.status, 401, `was ${before}`);
});

/** Time that the gateway has computed, 1/100 s: nothing else here takes as long as a check of her password. */
function cpuTicks(): number {
  const fields = readFileSync(`/proc/${world.gateway.pid}/stat`, 'utf8').split(' ');
  return Number(fields[13]) + Number(fields[14]);
}

async function assertBack(): Promise<void> {
  assert.ok(client.alive);
  await eventually(
    'ping comes through',
    async () => (await world.lab.ping(world.lab.lanIpv4, { count: 1 })) === 1,
  );
  assert.equal(client.posts, posts, 'no new login');
  const shown = await world.gateway.users();
  assert.deepEqual(
    shown.filter((user) => user['IPv4'] === address).map((user) => user['Username']),
    [ALICE.name],
  );
}
