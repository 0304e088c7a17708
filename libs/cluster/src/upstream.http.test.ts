import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { connect } from 'node:tls';
import { ProtocolError } from '@sallyport/protocol';
import { QUIET, TestAuthority } from './peers.fake.ts';
import type { PeerCertificates } from './peers.ts';
import { ServiceUnavailable } from './replicas.ts';
import { StoreUnavailable } from './sessions.ts';
import { httpUpstream } from './upstream.http.ts';
import { serveUpstream, type UpstreamServer } from './upstream.server.ts';
import { factHeaders, factsFrom } from './upstream-wire.ts';
import type { ConnectionFacts, InsideRequest, InsideResponse, Upstream } from './upstream.ts';

/* Both sides on real sockets: what the service sees and answers is what a call in the same process would give. */

let ours: TestAuthority;
let node: PeerCertificates;
let portal: PeerCertificates;
const closers: (() => void | Promise<void>)[] = [];

before(async () => {
  ours = await TestAuthority.open();
  node = await ours.peer('n1', ['tunnel-node']);
  portal = await ours.peer('p1', ['portal']);
});
after(async () => {
  for (const close of closers) await close();
  await ours.close();
});

test('requests arrive and answers come back as in process', async () => {
  let seen: InsideRequest | undefined;
  let result: InsideResponse;
  const server = await serve(async (request) => ((seen = request), result));
  const ask = upstream([server]);
  const certificate = {
    verified: false,
    problem: 'abgelaufen: %\r\nX-Evil: 1',
    der: new Uint8Array([0, 255, 13, 10]),
  };
  const cases: { request: Partial<InsideRequest>; answer: InsideResponse }[] = [
    {
      request: {},
      answer: {
        status: 200,
        headers: [
          ['Set-Cookie', 'a=1'],
          ['Set-Cookie', 'b=2'],
          ['X-Odd-CASE', 'x'],
        ],
        body: utf8('<x/>'),
      },
    },
    {
      request: { method: 'GET', target: '/+CSCOE+/logon.html?a=%2e%2e/&b[]=1', body: utf8('') },
      answer: { status: 404, headers: [], body: utf8(''), close: true },
    },
    { request: { facts: { ...FACTS, certificate } }, answer: { status: 401, headers: [], body: utf8('no') } },
    {
      request: { headers: { host: 'gate', cookie: 'webvpn=a; webvpncontext=b', 'x-latin': 'ü' } },
      answer: { status: 200, headers: [], body: utf8('') },
    },
    {
      request: { body: randomBytes(200_000) },
      answer: { status: 200, headers: [], body: randomBytes(200_000) },
    },
    {
      request: { method: 'GET', body: utf8('') },
      answer: { status: 304, headers: [['ETag', '"x"']], body: utf8('') },
    },
  ];
  for (const { request, answer } of cases) {
    result = answer;
    const sent = { ...REQUEST, ...request };
    const got = await ask(sent);
    assert.deepEqual(plain(seen), plain(sent));
    assert.deepEqual(plain(got), plain(answer));
  }
});

test('a package is passed on as it comes, whole, and its file is closed on both sides', async () => {
  const bytes = randomBytes(3_000_000);
  const state = { closed: 0 };
  const server = await serve(async () => ({ status: 206, headers: [], body: fileOf(bytes, state) }));
  const ask = upstream([server]);
  const { body } = await ask({ ...REQUEST, method: 'GET', body: utf8('') });
  assert.ok(!(body instanceof Uint8Array) && body.length === bytes.length);
  const parts: Buffer[] = [];
  for (let got = 0; got < body.length;) {
    const part = Buffer.alloc(65_536);
    const { bytesRead } = await body.file.read(part, 0, part.length, body.start + got);
    if (bytesRead === 0) break;
    parts.push(part.subarray(0, bytesRead));
    got += bytesRead;
  }
  await body.file.close();
  assert.ok(Buffer.concat(parts).equals(bytes));
  const head = await ask({ ...REQUEST, method: 'HEAD', body: utf8('') });
  assert.equal(head.body.length, bytes.length);
  assert.equal(state.closed, 2);
});

test('errors of the service stay what they are', async () => {
  const faults = [
    new ProtocolError('bad', 413),
    new StoreUnavailable('away'),
    new ServiceUnavailable('auth: gone'),
  ];
  let fault: Error = new Error('bug');
  const ask = upstream([await serve(async () => Promise.reject(fault))]);
  for (fault of faults) {
    await assert.rejects(ask(REQUEST), (error) => {
      assert.equal(error?.constructor, fault.constructor);
      if (error instanceof ProtocolError) assert.equal(error.status, 413);
      return true;
    });
  }
  fault = new Error('bug');
  await assert.rejects(
    ask(REQUEST),
    (error) => error instanceof ServiceUnavailable && error.reason === 'error',
  );
});

test('facts are heard from nodes of the cluster only', async () => {
  let calls = 0;
  const server = await serve(async () => (calls++, { status: 200, headers: [], body: utf8('') }));
  const other = await TestAuthority.open();
  closers.push(() => other.close());
  const peers: [string, PeerCertificates][] = [
    ['another role', portal],
    ['another CA', await other.peer('n1', ['tunnel-node'])],
  ];
  for (const [why, peer] of peers)
    await assert.rejects(upstream([server], peer)(REQUEST), ServiceUnavailable, why);
  // No certificate at all, and plain HTTP.
  assert.match(await raw(server.port, { rejectUnauthorized: false }), /^(?:|error)/);
  assert.equal(calls, 0);
  await upstream([server])(REQUEST);
  assert.equal(calls, 1);
});

test('facts that are missing, doubled, unknown or malformed are refused', () => {
  const good = factHeaders({
    ...FACTS,
    certificate: { verified: true, problem: '', der: new Uint8Array([1]) },
  });
  assert.deepEqual(
    plain(factsFrom(good)),
    plain({ ...FACTS, certificate: { verified: true, problem: '', der: new Uint8Array([1]) } }),
  );
  for (let at = 0; at < good.length; at += 2) {
    const without = [...good.slice(0, at), ...good.slice(at + 2)];
    assert.throws(() => factsFrom(without), ProtocolError, `without ${good[at]}`);
    assert.throws(() => factsFrom([...good, String(good[at]).toUpperCase(), 'x']), ProtocolError);
  }
  assert.throws(() => factsFrom([...good, 'X-Sallyport-Admin', 'yes']), ProtocolError);
  for (const [name, value] of [
    ['X-Sallyport-Served-Leaf-Sha1', 'zz'],
    ['X-Sallyport-Certificate-Verified', 'true'],
    ['X-Sallyport-Certificate', '<>'],
    ['X-Sallyport-Client-Address', '%'],
  ] as const) {
    const at = good.findIndex((text) => text === name);
    assert.throws(
      () => factsFrom([...good.slice(0, at + 1), value, ...good.slice(at + 2)]),
      ProtocolError,
      name,
    );
  }
});

test('a replica that dies in the middle of a request: the other one answers', async () => {
  let begun: (value: unknown) => void = () => undefined;
  const waiting = new Promise((resolve) => (begun = resolve));
  const slow = await serve(() => (begun(0), new Promise(() => undefined)));
  const good = await serve(async () => ({ status: 200, headers: [], body: utf8('well') }));
  const ask = upstream([slow, good]);
  const answers = Promise.all([ask(REQUEST), ask(REQUEST)]);
  await waiting;
  slow.destroy();
  const bodies = (await answers).map(({ body }) => plain(body));
  assert.deepEqual(bodies, [plain(utf8('well')), plain(utf8('well'))]);
});

test('nobody there is refused at once', async () => {
  const { upstream: ask, close } = httpUpstream({
    role: 'portal',
    addresses: ['127.0.0.1:1'],
    certificates: node,
  });
  closers.push(close);
  await assert.rejects(ask(REQUEST), ServiceUnavailable);
});

async function serve(handle: Upstream): Promise<UpstreamServer> {
  const server = await serveUpstream({
    listen: '127.0.0.1:0',
    certificates: portal,
    handle,
    ready: () => true,
    log: QUIET,
  });
  closers.push(() => server.close());
  return server;
}

function upstream(servers: { port: number }[], certificates = node): Upstream {
  const addresses = servers.map(({ port }) => `127.0.0.1:${port}`);
  const { upstream: ask, close } = httpUpstream({
    role: 'portal',
    addresses,
    certificates,
    checkEveryMs: 50,
  });
  closers.unshift(close);
  return ask;
}

function raw(port: number, options: object): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const socket = connect({ port, host: '127.0.0.1', ...options });
    socket.write('GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n');
    socket.on('data', (data) => (text += String(data)));
    socket.on('error', () => resolve('error'));
    socket.on('close', () => resolve(text));
  });
}

function fileOf(bytes: Buffer, state: { closed: number }) {
  return {
    file: {
      async read(buffer: Uint8Array, offset: number, length: number, position: number) {
        const part = bytes.subarray(position, position + length);
        buffer.set(part, offset);
        return { bytesRead: part.length };
      },
      async close() {
        state.closed += 1;
      },
    },
    start: 0,
    length: bytes.length,
  };
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Bytes as lists, so that a Buffer equals a Uint8Array. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return [...value];
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, plain(member)]));
}

const FACTS: ConnectionFacts = {
  clientAddress: '2001:db8::1',
  serverName: 'gate.example.org',
  servedLeafSha1: 'A'.repeat(40),
  tlsVersion: 'TLSv1.3',
};
const REQUEST: InsideRequest = {
  method: 'POST',
  target: '/',
  headers: { host: 'gate', 'user-agent': 'AnyConnect' },
  body: utf8('<config-auth/>'),
  facts: FACTS,
};
