import assert from 'node:assert/strict';
import { connect as connectHttp2, constants } from 'node:http2';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { Server, type ServiceDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import type { LoginAnswer } from './auth-service.ts';
import { TestAuthority } from './peers.fake.ts';
import { PeerCertificates, type PeerRole } from './peers.ts';
import { ServiceUnavailable } from './replicas.ts';
import { authClient, rpcServer } from './rpc.ts';
import { MAX_RPC_MESSAGE_BYTES } from './rpc-client.ts';
import { StoreUnavailable } from './sessions.ts';
import { AUTH_WIRE, STORE_UNAVAILABLE } from './wire.ts';

/* Real servers of the contract on real sockets, with certificates of a real CA. */

let ours: TestAuthority;
let theirs: TestAuthority;
let portal: PeerCertificates;
const closers: (() => void)[] = [];

before(async () => {
  [ours, theirs] = await Promise.all([TestAuthority.open(), TestAuthority.open()]);
  portal = await ours.peer('p1', ['portal']);
});
after(async () => {
  for (const close of closers) close();
  await Promise.all([ours.close(), theirs.close()]);
});

describe('mutual TLS', () => {
  test('a certificate of the cluster with the right role is served', async () => {
    const server = await serve('a1');
    const auth = await client([server.address], portal);
    assert.deepEqual(await auth.begin(BEGIN), FORM);
    assert.equal(server.calls.length, 1);
  });

  test('no certificate, one of another CA, and one of another role are refused, and the service hears nothing', async () => {
    const server = await serve('a1');
    const stranger = await theirs.peer('p1', ['portal']);
    const node = await ours.peer('n1', ['tunnel-node']);
    const nobody = await authClient({ addresses: [server.address] });
    closers.push(() => nobody.close());
    await assert.rejects(
      (await client([server.address], stranger)).lookup({ token: 't' }),
      ServiceUnavailable,
    );
    await assert.rejects(nobody.lookup({ token: 't' }), ServiceUnavailable);
    await assert.rejects((await client([server.address], node)).lookup({ token: 't' }), /not for this role/);
    assert.deepEqual(server.calls, []);
  });

  test('a server that has another role, or is of another CA, is not spoken to', async () => {
    const wrongRole = await serve('d1', { role: 'downloader' });
    const wrongCa = await serve('a1', { authority: theirs, callers: ['portal'] });
    for (const { address, calls } of [wrongRole, wrongCa]) {
      await assert.rejects((await client([address], portal)).begin(BEGIN), ServiceUnavailable);
      assert.deepEqual(calls, []);
    }
  });

  test('renewed files are in use without a restart; a pair that does not fit is not', async () => {
    const server = await serve('a2');
    const firstSerial = (await ours.issue('p2', ['portal'])).cert;
    const peer = await PeerCertificates.open(ours.files('p2'), SILENT, 3600_000);
    closers.push(() => peer.close());
    const before = peer.current.cert;
    assert.equal(await peer.reload(), false);
    await ours.issue('p2', ['portal']);
    await ours.issue('a2', ['auth']);
    const mixed = { ...ours.files('p2'), key: ours.files('a2').key };
    await assert.rejects(PeerCertificates.open(mixed, SILENT), /is not the key of/);
    assert.equal(await peer.reload(), true);
    assert.notDeepEqual(peer.current.cert, before);
    assert.ok(firstSerial);
    assert.equal(await server.certificates.reload(), true);
    assert.deepEqual(await (await client([server.address], peer)).begin(BEGIN), FORM);
  });
});

describe('replicas', () => {
  test('calls go to all that are well, and to the others when one says that it stops', async () => {
    const [a, b] = [await serve('a1'), await serve('a2')];
    const auth = await client([a.address, b.address], portal, 50);
    const ask = async (times: number) => {
      const before = a.calls.length;
      for (let i = 0; i < times; i++) await auth.lookup({ token: 't' });
      return a.calls.length - before;
    };
    while (a.calls.length < 3 || b.calls.length < 3) await ask(1);
    a.health.serving = 'NOT_SERVING';
    // Until a check has heard it; from then on never again.
    while ((await ask(2)) > 0) await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(await ask(10), 0);
  });

  test('one that is killed in the middle of a call: a call that may be repeated is answered by the other', async () => {
    const a = await serve('a1', { hang: true });
    const b = await serve('a2');
    const auth = await client([a.address, b.address], portal, 50);
    // Until the turn comes to the one that hangs.
    const answers = Promise.all([auth.reply(REPLY), auth.reply(REPLY)]);
    await a.called;
    a.kill();
    assert.deepEqual(await answers, [FORM, FORM]);
  });

  test(
    'one that dies and comes back, again and again, costs no call a wait',
    { timeout: 300_000 },
    async () => {
      const b = await serve('a2');
      let a = await serve('a1');
      const { address } = a;
      // Who waits for a connection that cannot be made waits longer than this test may take.
      const auth = await client([address, b.address], portal, 50, 600_000);
      for (let round = 0; round < 3; round++) {
        await callUntil(auth, a);
        a.kill();
        for (let i = 0; i < 6; i++) assert.deepEqual(await auth.begin(BEGIN), FORM);
        a = await serve('a1', { listen: address });
      }
    },
  );

  test('when none is there, a call waits for one that is being started again', async () => {
    const a = await serve('a1');
    const auth = await client([a.address, '127.0.0.1:1'], portal, 50, 60_000);
    await callUntil(auth, a);
    a.kill();
    const answer = auth.begin(BEGIN);
    await new Promise((resolve) => setTimeout(resolve, 300));
    await serve('a1', { listen: a.address });
    assert.deepEqual(await answer, FORM);
  });

  test('nobody there is ServiceUnavailable at once, and a store that is away says so', async () => {
    const auth = await client(['127.0.0.1:1', '127.0.0.1:2'], portal);
    await assert.rejects(auth.begin(BEGIN), (error) => {
      assert.ok(error instanceof ServiceUnavailable);
      assert.equal(error.reason, 'service-unavailable');
      return true;
    });
    const away = await serve('a1', { storeAway: true });
    await assert.rejects((await client([away.address], portal)).begin(BEGIN), StoreUnavailable);
  });
});

describe('bytes on the internal RPC that break the contract (V17)', () => {
  test('a message cut at every byte, with lengths of 2^31 or over the limit: refused, and the next is served', async () => {
    const server = await serve('a1');
    const whole = serializedBegin();
    const cuts = Array.from({ length: whole.length }, (_, at) => frame(whole.subarray(0, at)));
    const lies = [2 ** 31, 2 ** 32 - 1, MAX_RPC_MESSAGE_BYTES + 1].map((length) => frame(whole, length));
    const nested = [
      Buffer.from([0x1a, 0xff, 0xff, 0xff, 0xff, 0x07]),
      Buffer.from([0x1a, 0x80, 0x80, 0x80, 0x80, 0x08]),
    ];
    const statuses = new Map<string, number>();
    const session = connectHttp2(`https://${server.address}`, {
      ...portal.current,
      checkServerIdentity: () => undefined,
    });
    session.on('error', () => undefined);
    try {
      for (const bytes of [...cuts, ...lies, ...nested.map((inner) => frame(inner))]) {
        const status = await post(session, bytes);
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      }
    } finally {
      session.destroy();
    }
    // 0 OK for a cut between fields; INTERNAL or RESOURCE_EXHAUSTED else; never a hang, never a crash.
    for (const status of statuses.keys())
      assert.match(status, /^(?:0|3|8|13)$/, JSON.stringify([...statuses]));
    assert.ok((statuses.get('8') ?? 0) >= 1, JSON.stringify([...statuses]));
    assert.deepEqual(await (await client([server.address], portal)).begin(BEGIN), FORM);
  });

  test('an answer without any member, or with an unknown one, is no answer', async () => {
    for (const answer of [{}, { refused: { reason: 'newer-than-we', text: 'no' } }]) {
      const server = await serve('a1', { answer });
      const auth = await client([server.address], portal);
      if ('refused' in answer)
        assert.deepEqual(await auth.begin(BEGIN), { refused: { reason: 'unspecified', text: 'no' } });
      else await assert.rejects(auth.begin(BEGIN), /no answer/);
    }
  });
});

/** Until a certain replica had a call. */
async function callUntil(
  auth: { begin(request: typeof BEGIN): Promise<unknown> },
  { calls }: { calls: unknown[] },
) {
  const before = calls.length;
  while (calls.length === before) {
    await auth.begin(BEGIN);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

interface ServeOptions {
  listen?: string;
  role?: PeerRole;
  authority?: TestAuthority;
  callers?: PeerRole[];
  hang?: boolean;
  storeAway?: boolean;
  answer?: object;
}

async function serve(name: string, options: ServeOptions = {}) {
  const { role = 'auth', authority = ours, callers = ['portal'] } = options;
  const certificates = await authority.peer(name, [role]);
  const { options: transport, health } = await rpcServer({
    ...{ listen: options.listen ?? '127.0.0.1:0', services: [{ wire: AUTH_WIRE, callers }], certificates },
  });
  const server = new Server(transport.channelOptions);
  const calls: unknown[] = [];
  let wasCalled: (value: unknown) => void = () => undefined;
  const called = new Promise((resolve) => (wasCalled = resolve));
  const handle = (
    { request }: { request: unknown },
    answer: (error: object | null, answer?: object) => void,
  ) => {
    calls.push(request);
    wasCalled(request);
    if (options.hang) return;
    if (options.storeAway) return answer({ code: 14, details: STORE_UNAVAILABLE });
    answer(null, options.answer ?? FORM);
  };
  const look = (_call: object, answer: (error: null, answer: object) => void) => {
    calls.push('lookup');
    answer(null, { live: false });
  };
  server.addService(serviceOf(), { Begin: handle, Reply: handle, Lookup: look, Logout: look });
  transport.onLoadPackageDefinition({}, server);
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync(transport.url, transport.credentials, (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  const kill = () => server.forceShutdown();
  closers.push(kill);
  return { address: `127.0.0.1:${port}`, calls, called, health, kill, certificates };
}

async function client(
  addresses: string[],
  certificates: PeerCertificates,
  checkEveryMs?: number,
  connectMs?: number,
) {
  const auth = await authClient({ addresses, certificates, checkEveryMs, connectMs });
  closers.push(() => auth.close());
  return auth;
}

function serviceOf(): ServiceDefinition {
  const contract = loadSync(AUTH_WIRE.protoPath, AUTH_WIRE.loader)[
    `${AUTH_WIRE.package}.${AUTH_WIRE.service}`
  ];
  assert.ok(contract && !('format' in contract));
  return contract;
}

function serializedBegin(): Buffer {
  return serviceOf()['Begin']?.requestSerialize(BEGIN) ?? Buffer.alloc(0);
}

/** gRPC's frame: compressed or not, length, message. */
function frame(message: Buffer, length = message.length): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, message]);
}

async function post(session: ReturnType<typeof connectHttp2>, bytes: Buffer): Promise<string> {
  const stream = session.request({
    [constants.HTTP2_HEADER_METHOD]: 'POST',
    [constants.HTTP2_HEADER_PATH]: '/sallyport.auth.v1.AuthService/Begin',
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  let status = 'none';
  stream.on('response', (headers) => (status = String(headers['grpc-status'] ?? status)));
  stream.on('trailers', (headers) => (status = String(headers['grpc-status'] ?? status)));
  stream.on('error', () => undefined);
  stream.resume();
  stream.end(bytes);
  await once(stream, 'close');
  return status;
}

const { QUIET: SILENT } = await import('./peers.fake.ts');
const CLIENT = { address: '192.0.2.1', userAgent: 'a', platform: 'linux-64', strapKey: '', serverName: '' };
const BEGIN = { profile: 'staff', urlProfile: '', client: CLIENT, certificateFailed: false, loginId: '' };
const REPLY = { loginId: 'x.1', answers: { username: 'a', password: 'b' }, profile: '', client: CLIENT };
const FORM: LoginAnswer = {
  form: {
    loginId: 'x.1',
    id: 'main',
    title: 'Login',
    banner: '',
    message: '',
    error: '',
    fields: [{ name: 'username', kind: 'text', label: 'User', value: '' }],
    profiles: [],
    profile: { name: 'staff', label: 'Staff' },
  },
};
