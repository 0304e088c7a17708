import assert from 'node:assert/strict';
import { appendFile, chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { after, before, beforeEach, test } from 'node:test';
import { createLog, StartError } from '@sallyport/chassis';
import {
  DEFAULT_GRANT,
  forGrantFields,
  LoginFailures,
  MemoryCounters,
  MemoryEventLog,
  MemoryNodes,
  MemorySessions,
  hashToken,
  newToken,
  StoreUnavailable,
} from '@sallyport/cluster';
import type { NodeService, Session, TunnelInfo } from '@sallyport/cluster';
import type { Origin } from '@sallyport/protocol';
import { serveAdmin } from '../admin/serve-admin.ts';
import type { AdminServer } from '../admin/serve-admin.ts';
import type { Account, AccountOrder, ReloadResult } from '../admin/ports.ts';
import { Tally } from '../admin/tally.ts';
import { AdminClient } from './admin-client.ts';
import { columns, duration, bytes } from './occtl-form.ts';
import { SESSION_KEYS, STATUS_KEYS, TUNNEL_KEYS } from './occtl-keys.fake.ts';
import { sallyportProgram } from './program.ts';

// Every verb through a real AdminService on a real Unix socket; behind it a real session table and a node in memory.

const NOW = Date.parse('2026-11-24T12:00:00Z');

class FakeNode implements NodeService {
  readonly silent = new Set<string>();
  list: TunnelInfo[] = [];
  disconnected: string[] = [];
  tunnels = async () => this.list;
  disconnect = async (ids: string[]) => {
    this.disconnected.push(...ids);
    return ids.length;
  };
}

const world = {
  folder: '',
  socket: '',
  node: new FakeNode(),
  events: new MemoryEventLog(),
  nodes: new MemoryNodes(() => BigInt(NOW) * 1000n),
  accounts: new Map<string, Account>(),
  failures: new LoginFailures(new MemoryCounters()),
  orders: [] as AccountOrder[],
  reload: { applied: true, revision: 'r2', waiting: [], errors: [], files: [], warnings: [] } as ReloadResult,
  stopped: false,
  notes: [] as string[],
};
let sessions: MemorySessions;
let server: AdminServer;
const log = createLog({ name: 'test', level: 'silent' });

before(async () => {
  world.folder = await mkdtemp(join(tmpdir(), 'sallyport-cli-'));
  world.socket = join(world.folder, 'sallyport.sock');
  sessions = await MemorySessions.open({ events: world.events });
  server = await serveAdmin(parts(), world.socket);
});
after(async () => {
  await server.close();
  await sessions.close();
  await rm(world.folder, { recursive: true });
});
beforeEach(() => {
  world.node.list = [];
  world.node.disconnected = [];
  world.orders = [];
});

test('the socket is for its owner only', async () => {
  assert.equal((await stat(world.socket)).mode & 0o777, 0o600);
});

test('a second gateway on the same socket is refused, a stale socket is replaced', async () => {
  await assert.rejects(serveAdmin(parts(), world.socket), /Another gateway runs/);
  const stale = join(world.folder, 'stale.sock');
  // A socket that is left behind: its process ended without unlinking it.
  const holder = createServer().listen(stale);
  await new Promise((resolve) => holder.once('listening', resolve));
  const { rename } = await import('node:fs/promises');
  await rename(stale, `${stale}.moved`);
  holder.close();
  await rename(`${stale}.moved`, stale);
  const second = await serveAdmin(parts(), stale);
  await second.close();
  await assert.rejects(stat(stale));
});

test('show users has the keys of occtl in their order, and our Node', async () => {
  world.node.list = [tunnel(7, 'alice'), tunnel(8, 'bob', { dtlsCipher: 'PSK-AES', routes: [] })];
  const { json } = await run('-j', 'show', 'users');
  assert.ok(Array.isArray(json));
  const first: unknown = json[0];
  assert.ok(typeof first === 'object' && first !== null);
  assert.deepEqual(Object.keys(first), TUNNEL_KEYS);
  assert.deepEqual(
    [
      'ID',
      'Username',
      'MTU',
      'DPD',
      'RX',
      '_RX',
      'Average RX',
      'Connected at',
      '_Connected at',
      'raw_connected_at',
      'Full session',
      'Session',
      'Node',
    ].map((key) => field(first, key)),
    [
      7,
      'alice',
      '1434',
      '20',
      '17823',
      '17.8 KB',
      '297 bytes/sec',
      local(NOW - 60_000),
      '   60s',
      NOW / 1000 - 60,
      'session-alice-7',
      'sessio',
      'n1',
    ],
  );
  assert.deepEqual(field(json[1], 'Routes'), ['defaultroute']);
  assert.equal(field(json[1], 'DTLS cipher'), 'PSK-AES');

  const { text } = await run('show', 'users');
  assert.match(
    text,
    /^id +user +group +ip +vpn-ip +device +since +dtls-cipher +status +node\n7 +alice +staff +192\.0\.2\.7 +10\.90\.0\.7 /,
  );
});

test('options stand before or after the verb', async () => {
  world.node.list = [tunnel(7, 'alice')];
  const before = await run('-j', 'show', 'user', 'alice');
  const after = await run('show', 'user', 'alice', '-n', '--json');
  assert.deepEqual(before.json, after.json);
  const elsewhere = await run('show', 'status', '-s', join(world.folder, 'nothing.sock'));
  assert.equal(elsewhere.code, 1);
  assert.match(elsewhere.error, /^No gateway is running \(nobody answers on .*nothing\.sock\)/);
});

test('show user and show id find theirs only, and say when there is none', async () => {
  world.node.list = [tunnel(7, 'alice'), tunnel(8, 'alice'), tunnel(9, 'bob')];
  assert.deepEqual(idsOf((await run('-j', 'show', 'user', 'alice')).json), [7, 8]);
  assert.deepEqual(idsOf((await run('-j', 'show', 'id', '9')).json), [9]);
  assert.match((await run('show', 'id', '9')).text, /^ {2}ID: 9\n {2}Username: bob\n/);
  world.node.list = [tunnel(9, 'bob', { routes: [] })];
  assert.match((await run('show', 'id', '9')).text, /^ {2}Routes: default \(everything\)$/m);
  for (const [args, message] of [
    [['user', 'carol'], /User carol has no tunnel/],
    [['id', '1'], /no tunnel with the id 1/],
    [['id', 'x'], /x is no id/],
  ] as const) {
    const { code, error, text } = await run('show', ...args);
    assert.deepEqual([code, text], [1, '']);
    assert.match(error, message);
  }
});

test('ten thousand tunnels come whole and in order, page by page', async () => {
  world.node.list = Array.from({ length: 10_000 }, (_, i) => tunnel(i + 1, `user${i}`));
  const { json } = await run('-j', 'show', 'users');
  assert.deepEqual(
    idsOf(json),
    Array.from({ length: 10_000 }, (_, i) => i + 1),
  );
});

test('show status has the keys of occtl and counts what happened', async () => {
  const session = await createSession('dave');
  await sessions.end(session.id, 'idle-timeout');
  world.events.append([
    {
      v: 1,
      at: 1n,
      type: 'auth.failed',
      user: 'x',
      profile: 'p',
      method: 'local',
      address: '',
      reason: 'login-failed',
    },
  ]);
  const before = field((await run('-j', 'show', 'status')).json, 'raw_rx');
  const up = await createSession('dora');
  world.node.list = [tunnel(7, 'dora', { sessionId: up.id }), tunnel(8, 'bob', { mtuBytes: 1300 })];
  const { json } = await run('-j', 'show', 'status');
  assert.equal(field(json, 'raw_rx'), Number(before) + 17_823, 'a tunnel that is up counts');
  assert.ok(typeof json === 'object' && json !== null);
  assert.deepEqual(Object.keys(json), STATUS_KEYS);
  assert.deepEqual(
    [
      'Status',
      'uptime',
      'raw_up_since',
      '_Up since',
      'Active sessions',
      'Authentication failures',
      'Timed out (idle) sessions',
      'Min MTU',
      'Max MTU',
      'Version',
    ].map((key) => field(json, key)),
    ['online', 3660, NOW / 1000 - 3660, ' 1h:01m', 2, 1, 1, 1300, 1434, '9.9.9'],
  );
  const unmeasured = field(json, 'Not measured');
  assert.deepEqual(unmeasured, ['Median latency', 'STDEV latency', 'Average auth time', 'Max auth time']);
  for (const key of unmeasured) assert.equal(field(json, key), 'unknown');
  const { text } = await run('show', 'status');
  assert.match(text, /Status: online\n {2}Version: 9\.9\.9\n/);
  assert.doesNotMatch(text, /latency|auth time/);
});

test('show status says why balancers send nobody, also while the store is away', async () => {
  sessions.list = () => Promise.reject(new StoreUnavailable('away'));
  world.notes = ['isolated: the session store answers other nodes and not this one'];
  assert.deepEqual(field((await run('-j', 'show', 'status')).json, 'Notes'), world.notes);
  assert.match((await run('show', 'status')).text, /\n {2}Note: isolated: the session store answers/);
  world.notes = [];
  Reflect.deleteProperty(sessions, 'list');
});

test('sessions are listed, found by the beginning of their id, and terminated', async () => {
  const session = await createSession('erin');
  const { json } = await run('-j', 'show', 'sessions', 'valid');
  assert.ok(Array.isArray(json));
  const shown: unknown = json.find((one) => field(one, 'Username') === 'erin');
  assert.deepEqual(Object.keys(fields(shown)).slice(0, SESSION_KEYS.length), SESSION_KEYS);
  assert.equal(field(shown, 'Full session'), session.id);

  const short = session.id.slice(0, 8);
  assert.match((await run('show', 'session', short)).text, /Username: erin/);
  assert.equal((await run('terminate', 'session', session.id.slice(0, 3))).code, 1);
  assert.equal((await sessions.get(session.id))?.state, 'authed');
  assert.equal((await run('terminate', 'session', short)).code, 0);
  assert.equal((await sessions.get(session.id))?.endReason, 'terminated');
  const again = await run('terminate', 'session', short);
  assert.deepEqual([again.code, again.error], [1, `There is no session ${short}.`]);
});

test('disconnect closes tunnels and keeps sessions; terminate by user or id ends them', async () => {
  const session = await createSession('frank');
  world.node.list = [tunnel(7, 'frank', { sessionId: session.id }), tunnel(8, 'gina')];
  const byUser = await run('disconnect', 'user', 'frank');
  assert.equal(byUser.text, 'user frank: 1 tunnel ended\n');
  assert.deepEqual(world.node.disconnected, [session.id]);
  assert.deepEqual((await run('-j', 'disconnect', 'id', '8')).json, { count: 1 });
  assert.equal((await sessions.get(session.id))?.state, 'authed');
  assert.match(
    (await run('disconnect', 'user', 'nobody')).error,
    /nothing to end: user nobody has no tunnel/,
  );

  assert.equal((await run('terminate', 'id', '7')).code, 0);
  assert.equal((await sessions.get(session.id))?.endReason, 'terminated');
  await createSession('frank');
  assert.deepEqual((await run('-j', 'terminate', 'user', 'frank')).json, { count: 1 });
});

test('events come as lines, with what administrators did', async () => {
  const session = await createSession('hugo');
  await run('terminate', 'user', 'hugo');
  const { text } = await run('-j', 'show', 'events', '--last', '3', '--once');
  const events = text
    .trim()
    .split('\n')
    .map((line): unknown => JSON.parse(line));
  assert.deepEqual(
    events.map((event) => ['type', 'user', 'reason', 'detail'].map((key) => field(event, key))),
    [
      ['started', 'hugo', undefined, undefined],
      ['ended', 'hugo', 'terminated', undefined],
      ['admin.changed', undefined, undefined, 'terminate user hugo'],
    ],
  );
  assert.equal(field(events[1], 'sessionId'), session.id);
  const { text: human } = await run('show', 'events', '--last', '2', '--once');
  assert.match(
    human,
    /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ended +user=hugo profile=staff session=\S{6} reason=terminated\n/,
  );
});

test('an event of an administrator names the user, also when he was named by an id', async () => {
  const session = await createSession('heidi');
  world.node.list = [tunnel(7, 'heidi', { sessionId: session.id })];
  await run('disconnect', 'id', '7');
  await run('terminate', 'session', session.id.slice(0, 8));
  const { text } = await run('show', 'events', '--last', '3', '--once');
  assert.match(text, /admin\.changed +disconnect id 7 of user heidi\n/);
  assert.match(text, /admin\.changed +terminate session \S{8} of user heidi\n/);
});

test('events are followed until the gateway goes away, which is one sentence', async () => {
  const socket = join(world.folder, 'second.sock');
  const second = await serveAdmin(parts(), socket);
  const client = await AdminClient.open(socket);
  const followed = client.events({ last: 0, follow: true });
  const next = followed.next();
  const fact = { v: 1, at: 5n, type: 'config.applied', revision: 'r7', detail: '' } as const;
  // The call reaches the service at some time; what happened before is not followed.
  const again = setInterval(() => world.events.append([fact]), 20);
  const first = await next;
  clearInterval(again);
  assert.ok(!first.done);
  assert.deepEqual([first.value.type, first.value.detail], ['config.applied', 'r7']);
  const rest = (async () => {
    for await (const _event of followed);
  })();
  await Promise.all([assert.rejects(rest, /The gateway went away/), second.close()]);
  client.close();
});

test('a reload says what waits, and with errors that the old configuration stays', async () => {
  const none = { waiting: [], errors: [], files: [], warnings: [] };
  world.reload = { ...none, applied: true, revision: 'r2', waiting: ['tcp-port'] };
  const good = await run('reload');
  assert.equal(good.text, 'configuration r2 is in use\ntcp-port changed: takes effect at the next start\n');
  world.reload = {
    ...none,
    applied: true,
    revision: 'r2',
    files: ['/t/c.pem'],
    warnings: ['c.pem has expired'],
  };
  assert.equal(
    (await run('reload')).text,
    'configuration r2 is in use\n/t/c.pem has changed and is in use\nwarning: c.pem has expired\n',
  );
  world.reload = { ...none, applied: false, revision: 'r1', errors: ['x.yaml:1: no'] };
  const bad = await run('reload');
  assert.deepEqual([bad.code, bad.text, bad.error], [1, '', 'The old configuration stays.\nx.yaml:1: no']);
});

test('stop needs the word now', async () => {
  assert.equal((await run('stop')).code, 1);
  assert.equal(world.stopped, false);
  assert.equal((await run('stop', 'now')).code, 0);
  await new Promise(setImmediate);
  assert.equal(world.stopped, true);
});

test('user verbs go through the running gateway, the password never in an argument', async () => {
  const added = await run({ stdin: 'pa ss\nmore\n' }, 'user', 'add', 'ida', '--group', 'staff,admins');
  assert.equal(added.text, 'user ida: added\n');
  await run({ stdin: 'new' }, 'user', 'passwd', 'ida');
  await run('user', 'lock', 'ida');
  assert.deepEqual((await run('-j', 'user', 'list')).json, [
    { Username: 'ida', Groups: ['staff', 'admins'], Locked: true },
  ]);
  await run('user', 'unlock', 'ida');
  await run('user', 'delete', 'ida');
  assert.deepEqual(world.orders, [
    { verb: 'add', name: 'ida', groups: ['staff', 'admins'], password: 'pa ss' },
    { verb: 'passwd', name: 'ida', password: 'new' },
    { verb: 'lock', name: 'ida' },
    { verb: 'unlock', name: 'ida' },
    { verb: 'delete', name: 'ida' },
  ]);
  const refused = await run('user', 'lock', 'nobody');
  assert.deepEqual([refused.code, refused.error], [1, "there is no user 'nobody'"]);
  assert.match((await run({ stdin: '' }, 'user', 'passwd', 'ida')).error, /No password came/);
  assert.equal((await run('user', 'add', 'x', 'secret')).code, 1);
});

test('a group takes one value, so that the name may stand after it', async () => {
  const added = await run({ stdin: 'secret' }, 'user', 'add', '--group', 'staff', '-g', 'a,b', 'erin');
  assert.equal(added.text, 'user erin: added\n');
  assert.deepEqual(world.orders, [
    { verb: 'add', name: 'erin', groups: ['staff', 'a', 'b'], password: 'secret' },
  ]);
});

test('user verbs work on the users-file when no gateway runs', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-off-'));
  try {
    const socket = join(folder, 'sallyport.sock');
    const none = await run('-s', socket, 'user', 'list');
    assert.match(none.error, /name the configuration with user --config FILE/);
    await writeFile(
      join(folder, 'sallyport.yaml'),
      'server-cert: c\nserver-key: k\nipv4-network: 10.90.0.0/16\nusers-file: people\n',
    );
    assert.equal(
      (await run({ stdin: 'secret' }, '-s', socket, 'user', 'add', 'ida', '-g', 'staff')).error,
      '',
    );
    await run('-s', socket, 'user', 'lock', 'ida');
    const config = ['--config', join(folder, 'sallyport.yaml')];
    const listed = await run('-j', 'user', ...config, 'list');
    assert.deepEqual(listed.json, [{ Username: 'ida', Groups: ['staff'], Locked: true }]);
    assert.deepEqual(world.orders, []);
    assert.equal((await stat(join(folder, 'people'))).mode & 0o777, 0o600);

    await appendFile(join(folder, 'sallyport.yaml'), CLUSTER_KEYS);
    const before = await readFile(join(folder, 'people'), 'utf8');
    const refused = await run('-s', socket, 'user', 'delete', 'ida');
    assert.match(refused.error, /is the configuration of a cluster.*name the socket of an auth with -s/);
    assert.equal(await readFile(join(folder, 'people'), 'utf8'), before);
    const named = await run('user', ...config, 'lock', 'ida');
    assert.match(named.error, /leave --config out and name the socket of an auth with -s/);
    assert.deepEqual([named.code, await readFile(join(folder, 'people'), 'utf8')], [1, before]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('check-config gives all errors and the exit code, as text and as JSON', async () => {
  const file = join(world.folder, 'x.yaml');
  await writeFile(file, 'tcp-prot: 443\nipv4-network: 10.90.0.0/16\n');
  const { code, error, text } = await run('check-config', file);
  assert.deepEqual([code, text], [1, '']);
  assert.match(error, /x\.yaml:1: unknown key "tcp-prot"; did you mean "tcp-port"\?/);
  const { json } = await run('-j', 'check-config', file);
  assert.deepEqual(field(json, 'errors'), error.split('\n'));
});

test('check-config asks of which role a configuration of a cluster is, and takes it for that one', async () => {
  const file = join(world.folder, 'cluster.yaml');
  await writeFile(file, CLUSTER_KEYS);
  assert.match(
    (await run('check-config', file)).error,
    /configuration of a cluster: say of which role with --role/,
  );
  const { code, error } = await run('check-config', '--role', 'portal', file);
  assert.equal(code, 1);
  assert.match(error, /services names no auth, and portal needs it/);
  assert.doesNotMatch(error, /server-cert|users-file|ipv4-network/);
});

test('a socket that may not be opened is named', { skip: process.getuid?.() === 0 }, async () => {
  await chmod(world.socket, 0o000);
  assert.match((await run('show', 'status')).error, /You may not open/);
  await chmod(world.socket, 0o600);
});

test('times, sizes and columns read as those of occtl', () => {
  assert.deepEqual(
    [0, 7, 60, 62, 3600, 90_000, 200_000].map(duration),
    ['    0s', '    7s', '   60s', ' 1m:02s', ' 1h:00m', '25h:00m', ' 2days'].map((text) => text),
  );
  assert.deepEqual([0, 999, 1000, 17_823, 5e6, 3e9].map(bytes), [
    '0 bytes',
    '999 bytes',
    '1.0 KB',
    '17.8 KB',
    '5.0 MB',
    '3.0 GB',
  ]);
  assert.equal(
    columns(
      ['a', 'b'],
      [
        ['long', 'x'],
        ['s', ''],
      ],
    ),
    'a     b\nlong  x\ns',
  );
});

test('an id that several nodes have ends nothing until its node is named', async () => {
  world.node.list = [tunnel(7, 'alice'), tunnel(7, 'bob', { node: 'n2' })];
  const unclear = await run('disconnect', 'id', '7');
  assert.equal(unclear.code, 1);
  assert.match(unclear.error, /n1\/7 and n2\/7 have this id, say which/);
  assert.deepEqual(world.node.disconnected, []);
  assert.equal((await run('disconnect', 'id', 'n2/7')).code, 0);
  assert.deepEqual(world.node.disconnected, ['session-bob-7']);
  assert.deepEqual(idsOf((await run('-j', 'show', 'id', '7')).json), [7, 7]);
});

test('nodes are shown, drained and taken back by name', async () => {
  const node = { incarnation: 'i1', number: 1, address: '10.0.0.1:9495', version: '1.2.3', tunnels: 4 };
  for (const name of ['n1', 'n2']) await world.nodes.heartbeat({ ...node, name, unready: false }, 0n);
  assert.match((await run('drain', 'node', 'n2')).text, /node n2 drains/);
  const { json } = await run('-j', 'show', 'nodes');
  assert.ok(Array.isArray(json));
  assert.deepEqual(
    json.map((one) => [field(one, 'Name'), field(one, 'State'), field(one, 'Tunnels')]),
    [
      ['n1', 'online', 4],
      ['n2', 'draining', 4],
    ],
  );
  assert.equal((await run('undrain', 'node', 'n2')).code, 0);
  assert.match((await run('show', 'nodes')).text, /n2 +online/);
  const missing = await run('drain', 'node', 'n9');
  assert.deepEqual([missing.code, missing.text], [1, '']);
  assert.match(missing.error, /There is no node n9/);
});

test('a node that does not answer is named on standard error, and the result stays JSON', async () => {
  const node = { incarnation: 'i1', number: 1, address: '10.0.0.1:9495', version: '1.2.3', tunnels: 4 };
  for (const name of ['n1', 'n2']) await world.nodes.heartbeat({ ...node, name, unready: false }, 0n);
  world.node.silent.add('n2');
  try {
    const shown = await run('-j', 'show', 'users');
    assert.deepEqual([shown.json, shown.code], [[], 0]);
    assert.equal(shown.warned, 'node n2 does not answer: its tunnels are not in this\n');
    for (const verb of ['disconnect', 'terminate'])
      assert.match((await run(verb, 'user', 'nobody')).warned, /^node n2 does not answer.*\n$/);
    assert.match((await run('show', 'nodes')).text, /n2 +silent/);
  } finally {
    world.node.silent.clear();
  }
  assert.equal((await run('show', 'users')).warned, '');
});

test('explain user says why the last login failed and where each value comes from', async () => {
  world.events.append([
    {
      ...{ v: 1, at: BigInt(NOW - 60_000) * 1000n, type: 'auth.failed', user: 'alice', profile: 'main' },
      ...{ method: 'local', address: '192.0.2.9', reason: 'user-locked' },
    },
  ]);
  const { json } = await run('-j', 'explain', 'user', 'alice', '--profile', 'ops');
  assert.equal(field(json, 'Profile'), 'ops');
  assert.equal(field(field(json, 'Last failure'), 'Reason'), 'user-locked');
  for (const user of ['alice', 'alice', 'bob']) await world.failures.add(user, '192.0.2.9');
  const { text } = await run('explain', 'user', 'alice');
  assert.match(text, /failures within .*20m.*: 2; of anybody from 192\.0\.2\.9: 3\n/);
  assert.match(text, /last failure: .*user-locked \(This account is locked\.\) .* from 192\.0\.2\.9/);
  assert.match(text, /dpd +30 +group staff\n/);
  assert.match((await run('explain', 'user', 'zoe')).text, /zoe: is not known/);
});

test('show pools counts addresses', async () => {
  const { json } = await run('-j', 'show', 'pools');
  assert.ok(Array.isArray(json));
  for (const pool of json) assert.ok(Number(field(pool, 'Size')) >= Number(field(pool, 'Used')));
});

const CLUSTER_KEYS = `return-path: nat
redis: { url: "redis://127.0.0.1:1" }
node: { name: n1 }
pki: { ca: ca.pem, cert: me.pem, key: me.key }
`;

// Helpers

function parts(): Parameters<typeof serveAdmin>[0] {
  return {
    sessions,
    node: world.node,
    nodes: world.nodes,
    events: world.events,
    tally: new Tally(world.events),
    notes: () => world.notes,
    log,
    now: () => BigInt(NOW) * 1000n,
    failures: world.failures,
    accounts: {
      explain: async (user, profile) => ({
        ...{ known: user === 'alice', locked: false, groups: ['staff'], profile: profile || 'main' },
        refused: '',
        values: [
          { key: 'dpd', value: '30', scope: 'group', name: 'staff' },
          { key: 'mtu', value: '0', scope: 'default', name: '' },
        ],
      }),
      list: () => [...world.accounts.values()],
      apply: async (order) => {
        const account = world.accounts.get(order.name);
        if (order.verb !== 'add' && !account) throw new Error(`there is no user '${order.name}'`);
        world.orders.push(order);
        if (order.verb === 'delete') world.accounts.delete(order.name);
        else {
          const groups = order.verb === 'add' ? order.groups : (account?.groups ?? []);
          world.accounts.set(order.name, { name: order.name, groups, locked: order.verb === 'lock' });
        }
      },
    },
    lifecycle: {
      status: () => ({
        state: 'online',
        version: '9.9.9',
        node: 'n1',
        revision: 'r1',
        startedAt: BigInt(NOW - 3_660_000) * 1000n,
      }),
      reload: async () => world.reload,
      stop: () => {
        world.stopped = true;
      },
    },
  };
}

interface Ran {
  code: number;
  text: string;
  error: string;
  /** What went to standard error while it went on. */
  warned: string;
  json: unknown;
}

async function run(...args: (string | { stdin: string })[]): Promise<Ran> {
  const words = args.filter((arg) => typeof arg === 'string');
  const given = args.find((arg) => typeof arg === 'object');
  const input = new PassThrough();
  input.end(given?.stdin ?? '');
  let text = '';
  let error = '';
  let warned = '';
  const prompts = new PassThrough().on('data', (chunk: Buffer) => (warned += chunk.toString()));
  const program = sallyportProgram({
    version: '9.9.9',
    socketVariable: world.socket,
    input: Object.assign(input, {
      isTTY: false,
      setRawMode: () => undefined,
    }) as unknown as NodeJS.ReadStream,
    prompts: prompts as unknown as NodeJS.WriteStream,
    out: (chunk) => (text += chunk),
    now: () => NOW,
    runGateway: async () => undefined,
    runRole: async () => undefined,
    supervise: async () => undefined,
    interrupted: async () => undefined,
  });
  let code = 0;
  silence(program);
  try {
    await program.parseAsync(words, { from: 'user' });
  } catch (fault) {
    code = 1;
    if (fault instanceof StartError) error = fault.message;
  }
  return {
    code,
    text,
    error,
    warned,
    json: words.some((word) => word === '-j' || word === '--json') && text ? safeJson(text) : undefined,
  };
}

/** Commander's own errors are thrown, its help goes nowhere. */
function silence(command: ReturnType<typeof sallyportProgram>): void {
  command.exitOverride().configureOutput({ writeErr: () => undefined });
  command.commands.forEach((sub) => silence(sub));
}

function safeJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // lines of JSON
  }
}

function fields(json: unknown): Record<string, unknown> {
  assert.ok(typeof json === 'object' && json !== null);
  return { ...json };
}

function field(json: unknown, key: string): unknown {
  return fields(json)[key];
}

function idsOf(json: unknown): unknown[] {
  assert.ok(Array.isArray(json));
  return json.map((one) => field(one, 'ID'));
}

function tunnel(tunnelId: number, user: string, more: Partial<TunnelInfo> = {}): TunnelInfo {
  return {
    tunnelId,
    sessionId: `session-${user}-${tunnelId}`,
    epoch: 1n,
    node: 'n1',
    user,
    group: 'staff',
    profile: 'staff',
    device: 'tun0',
    mtuBytes: 1434,
    clientAddress: '192.0.2.7',
    localDeviceAddress: '192.0.2.1',
    hostname: 'laptop',
    userAgent: 'AnyConnect Linux_64 4.10',
    ipv4: `10.90.0.${tunnelId % 250}`,
    ipv6: '',
    rxBytes: 17_823,
    txBytes: 0,
    dpdSeconds: 20,
    keepaliveSeconds: 20,
    connectedAt: BigInt(NOW - 60_000) * 1000n,
    sessionStartedAt: BigInt(NOW - 60_000) * 1000n,
    tlsCipher: 'TLS1.3-AES_256_GCM',
    dtlsCipher: '',
    dns: ['10.0.0.53'],
    nbns: [],
    splitDns: [],
    routes: ['10.0.0.0/8'],
    noRoutes: [],
    ...more,
  };
}

function createSession(user: string): Promise<Session> {
  return sessions.create({
    tokenHash: hashToken(newToken()),
    user,
    profile: 'staff',
    grant: { ...DEFAULT_GRANT, group: 'staff', ipv4Pools: ['10.90.0.0/16'] },
    origins: forGrantFields((): Origin => ({ scope: 'default', name: '' })),
    client: { address: '192.0.2.7', userAgent: 'AnyConnect', platform: 'linux-64', hostname: 'laptop' },
    strapKey: '',
  });
}

function local(ms: number): string {
  const shifted = new Date(ms - new Date(ms).getTimezoneOffset() * 60_000);
  return shifted.toISOString().slice(0, 16).replace('T', ' ');
}
