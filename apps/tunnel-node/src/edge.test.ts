import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { Metrics } from '@sallyport/chassis';
import { StoreUnavailable, type InsideRequest, type InsideResponse, type Upstream } from '@sallyport/cluster';
import { FIXED_HEADERS } from './answers.ts';
import { Edge, EDGE_LIMITS, type EdgeLimits, type EdgeOptions } from './edge.ts';
import { NodeMetrics } from './metrics.ts';
import { BodyBudget, FREE_BODY_BYTES, type BodyUnderWay } from './requests.ts';
import { TestClock } from './testing/clock.ts';
import { TestClient, type TestAnswer } from './testing/client.ts';
import { PlainStream, silent } from './testing/world.ts';

describe('Edge: requests and answers', () => {
  it('passes a request with its facts and writes the answer as it is spelled', async () => {
    await using edge = await serve();
    const client = await edge.client();
    const answer = await client.request('POST /x?q=%2F HTTP/1.1\r\nHost: vpn\r\nContent-Length: 4', 'body');
    assert.equal(answer.status, 200);
    assert.deepEqual(
      answer.headers.filter(([name]) => name.startsWith('X-Aggr') || name === 'Content-Length'),
      [
        ['X-Aggregate-Auth', '1'],
        ['Content-Length', '5'],
      ],
    );
    assert.equal(answer.body.toString(), 'hello');
    const seen = edge.seen[0];
    assert.equal(seen?.target, '/x?q=%2F');
    assert.equal(Buffer.from(seen?.body ?? []).toString(), 'body');
    assert.equal(seen?.facts.clientAddress, '192.0.2.1');
    assert.equal(seen?.facts.servedLeafSha1, 'AB'.repeat(20));
  });

  it('names neither software nor version, and sends no chunks', async () => {
    await using edge = await serve();
    for (const head of [
      'GET /x HTTP/1.1',
      'GET /nowhere HTTP/1.1',
      'BREW / HTTP/1.1',
      'GET / HTTP/9.9',
      'DELETE / HTTP/1.1',
    ]) {
      const client = await edge.client();
      const answer = await client.request(head);
      for (const name of ['Server', 'X-Powered-By', 'Via', 'Date', 'Transfer-Encoding', 'Keep-Alive'])
        assert.equal(header(answer, name), '', name);
      assert.notEqual(header(answer, 'Content-Length'), '');
      for (const [name, value] of FIXED_HEADERS)
        assert.equal(header(answer, name), value, `${name} of ${head}`);
      assert.doesNotMatch(answer.head, /node|sallyport/i);
    }
  });

  it('strips what only the inside may say, keeps the first of a header, joins cookies', async () => {
    await using edge = await serve();
    const client = await edge.client();
    await client.request(
      'GET / HTTP/1.1\r\nX-Sallyport-Address: 1.2.3.4\r\nx-SALLYPORT-user: root\r\nA: 1\r\na: 2\r\nCookie: x=1\r\nCookie: y=2',
    );
    assert.deepEqual(edge.seen[0]?.headers, { a: '1', cookie: 'x=1; y=2' });
  });

  it('keeps a connection until the client or a limit ends it', async () => {
    await using edge = await serve({ limits: { requestsPerConnection: 3 } });
    const client = await edge.client();
    assert.equal(header(await client.request('GET / HTTP/1.1'), 'Connection'), 'Keep-Alive');
    assert.equal(header(await client.request('HEAD / HTTP/1.1'), 'Connection'), 'Keep-Alive');
    assert.equal(header(await client.request('GET / HTTP/1.1'), 'Connection'), 'close');
    await client.untilClosed();
    for (const head of ['GET / HTTP/1.0', 'GET / HTTP/1.1\r\nConnection: close']) {
      const other = await edge.client();
      assert.equal(header(await other.request(head), 'Connection'), 'close');
      await other.untilClosed();
    }
  });

  it('answers HEAD without a body and an unknown path with 404 and close', async () => {
    await using edge = await serve();
    const client = await edge.client();
    const head = await client.request('HEAD / HTTP/1.1');
    assert.equal(header(head, 'Content-Length'), '5');
    const missing = await client.request('GET /nowhere HTTP/1.1');
    assert.deepEqual(
      [missing.status, header(missing, 'Content-Length'), header(missing, 'Connection')],
      [404, '0', 'close'],
    );
    assert.deepEqual(await client.untilClosed(), Buffer.alloc(0));
  });
});

describe('Edge: bytes that are no request', () => {
  for (const [what, text] of [
    ['Content-Length: -1', 'POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n'],
    ['Content-Length: +5', 'POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\nhello'],
    ['Content-Length: 0x10', 'POST / HTTP/1.1\r\nContent-Length: 0x10\r\n\r\n'],
    ['a huge Content-Length', 'POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n'],
    ['two Content-Lengths', 'POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na'],
    [
      'Content-Length and chunks',
      'POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    [
      'chunks and Content-Length',
      'POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n',
    ],
    ['an unknown transfer encoding', 'POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n'],
    [
      'a chunk of ffffffffffffffff1',
      'POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n',
    ],
    ['a chunk of -1', 'POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n'],
    ['a chunk without its end', 'POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n'],
    ['bare line feeds', 'GET / HTTP/1.1\nHost: x\n\n'],
    ['one bare line feed', 'GET / HTTP/1.1\r\nA: b\nHost: x\r\n\r\n'],
    ['a folded header', 'GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n'],
    ['a blank before the colon', 'GET / HTTP/1.1\r\nHost : x\r\n\r\n'],
    ['a NUL', 'GET / HTTP/1.1\r\nA: a\0b\r\n\r\n'],
    ['two Hosts', 'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n'],
    ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['CONNECT with a body', 'CONNECT /CSCOSSLC/tunnel HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello'],
  ] as const) {
    it(`answers 400 and closes on ${what}`, async () => {
      await using edge = await serve();
      const client = await edge.client();
      client.write(text);
      const answer = await client.answer();
      assert.deepEqual([answer.status, header(answer, 'Connection')], [400, 'close']);
      assert.deepEqual(await client.untilClosed(), Buffer.alloc(0));
      assert.equal(edge.seen.length, 0);
      assert.equal((await edge.refusals('malformed')) + (await edge.refusals('duplicate-header')), 1);
    });
  }

  it('answers the first of two requests sent together and refuses the second', async () => {
    await using edge = await serve();
    const client = await edge.client();
    client.write('GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n'.slice(0, 36));
    assert.equal((await client.answer()).status, 200);
    assert.equal((await client.answer()).status, 400);
    await client.untilClosed();
    assert.equal(edge.seen.length, 1);
    assert.equal(await edge.refusals('pipelined'), 1);
  });

  it('closes when CONNECT or a third request comes while an answer is pending', async () => {
    await using edge = await serve();
    for (const text of [
      'GET / HTTP/1.1\r\n\r\nCONNECT /CSCOSSLC/tunnel HTTP/1.1\r\n\r\n',
      'GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n',
    ]) {
      const client = await edge.client();
      client.write(text);
      await client.untilClosed();
    }
    assert.equal(edge.connects, 0);
  });
});

describe('Edge: limits', () => {
  it('takes 20 KiB of headers and 200 KiB of body in small pieces', async () => {
    await using edge = await serve();
    const client = await edge.client();
    const body = Buffer.alloc(200 * 1024, 'a');
    client.write(`POST / HTTP/1.1\r\nX: ${'h'.repeat(20 * 1024)}\r\nContent-Length: ${body.length}\r\n\r\n`);
    for (let at = 0; at < body.length; at += 1000) client.write(body.subarray(at, at + 1000));
    assert.equal((await client.answer()).status, 200);
    assert.equal(edge.seen[0]?.body.length, body.length);
  });

  it('refuses what is larger than a limit, each with its status and counter', async () => {
    await using edge = await serve();
    const kib = 1024;
    const chunk = `${(64 * kib).toString(16)}\r\n${'a'.repeat(64 * kib)}\r\n`;
    const many = Array.from({ length: 7000 }, (_, n) => `a${n}:`).join('\r\n');
    for (const [text, status, cause] of [
      [`GET / HTTP/1.1\r\nX: ${'h'.repeat(33 * kib)}\r\n\r\n`, 431, 'header-too-large'],
      [`GET / HTTP/1.1\r\n${many}\r\n\r\n`, 431, 'header-too-large'],
      [`GET /${'u'.repeat(2 * kib)} HTTP/1.1\r\n\r\n`, 414, 'request-line-too-long'],
      [`POST / HTTP/1.1\r\nContent-Length: ${256 * kib + 1}\r\n\r\n`, 413, 'body-too-large'],
      [
        `POST / HTTP/1.1\r\nContent-Length: 10000000000\r\n\r\n${'a'.repeat(500 * kib)}`,
        413,
        'body-too-large',
      ],
      [`POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n${chunk.repeat(5)}`, 413, 'body-too-large'],
      ['DELETE / HTTP/1.1\r\n\r\n', 405, 'method'],
      ['GET / HTTP/1.1\r\nExpect: tea\r\n\r\n', 417, 'expectation'],
    ] as const) {
      const before = await edge.refusals(cause);
      const client = await edge.client();
      client.write(text);
      const answer = await client.answer();
      assert.equal(answer.status, status, text.slice(0, 40));
      assert.equal(header(answer, 'Connection'), 'close');
      await client.untilClosed();
      assert.equal(await edge.refusals(cause), before + 1);
    }
    const client = await edge.client();
    const largest = await client.request(
      `POST / HTTP/1.1\r\nContent-Length: ${EDGE_LIMITS.bodyBytes}`,
      'a'.repeat(EDGE_LIMITS.bodyBytes),
    );
    assert.equal(largest.status, 200);
  });

  it('bounds the bodies of all connections together, and lets the largest yield', async () => {
    await using edge = await serve({ limits: { bodyBytesInAll: 50_000 } });
    const post = (bytes: number) =>
      [`POST / HTTP/1.1\r\nContent-Length: ${bytes}`, 'a'.repeat(bytes)] as const;
    const stalled = [await edge.client(), await edge.client()];
    for (const client of stalled)
      client.write(`POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n${'a'.repeat(30_000)}`);
    await until(() => edge.received > 60_000);
    const small = await edge.client();
    assert.equal((await small.request(...post(FREE_BODY_BYTES))).status, 200);
    assert.equal((await small.request(...post(FREE_BODY_BYTES + 10_000))).status, 200, 'the largest yields');
    assert.equal((await stalled[0]?.answer())?.status, 503);
    assert.equal(stalled[1]?.closed, false);
    const large = await edge.client();
    assert.equal((await large.request(...post(90_000))).status, 503, 'it is the largest itself');
    stalled[1]?.stream.destroy();
    await until(() => edge.size === 1);
    const again = await edge.client();
    assert.equal((await again.request(...post(50_000))).status, 200);
  });

  it('serves a login while a thousand bodies stall', async () => {
    const bytes = EDGE_LIMITS.bodyBytes - 1;
    const budget = new BodyBudget(EDGE_LIMITS.bodyBytesInAll);
    for (let n = 0; n < 1000; n += 1) {
      const body: BodyUnderWay = { bytes: 0, yieldPlace: () => budget.release(body) };
      for (let sent = 0; sent < bytes; sent += 65_536) budget.take(body, Math.min(65_536, bytes - sent));
    }
    const login: BodyUnderWay = { bytes: 0, yieldPlace: () => assert.fail('the login yields') };
    assert.equal(budget.take(login, FREE_BODY_BYTES), true);
    assert.equal(budget.take(login, 20_000), true);
  });

  it('gives heads, bodies and idle connections only so much time', async () => {
    const clock = new TestClock();
    await using edge = await serve({ clock });
    const head = await edge.client();
    for (let second = 0; second < EDGE_LIMITS.headerSeconds; second += 1) {
      head.write(second === 0 ? 'GET / HTTP/1.1\r\nX: ' : 'a');
      await until(() => edge.size === 1);
      assert.equal(head.closed, false);
      clock.pass(1, edge);
    }
    assert.equal((await head.answer()).status, 408);
    const body = await edge.client();
    const answer = body.request('POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 10', 'a');
    assert.equal((await answer).status, 100);
    clock.pass(EDGE_LIMITS.bodySeconds, edge);
    assert.equal((await body.answer()).status, 408);
    await body.untilClosed();
    const idle = await edge.client();
    await idle.request('GET / HTTP/1.1');
    clock.pass(EDGE_LIMITS.keepAliveSeconds - 1, edge);
    assert.equal((await idle.request('GET / HTTP/1.1')).status, 200, 'a person may be typing');
    clock.pass(EDGE_LIMITS.keepAliveSeconds, edge);
    assert.deepEqual(await idle.untilClosed(), Buffer.alloc(0));
    assert.equal(await edge.refusals('timeout'), 2);
  });

  it('lets the connection that has idled longest go when there are too many', async () => {
    await using edge = await serve({ limits: { connections: 2 } });
    const [first, second] = [await edge.client(), await edge.client()];
    await second.request('GET / HTTP/1.1');
    const third = await edge.client();
    assert.equal((await third.request('GET / HTTP/1.1')).status, 200);
    await first.untilClosed();
    assert.equal(second.closed, false);
  });

  it('goes by the time that a connection has idled, not by its age, and takes bodies when none idles', async () => {
    const clock = new TestClock();
    await using edge = await serve({ clock, limits: { connections: 2 } });
    const [old, idle] = [await edge.client(), await edge.client()];
    await idle.request('GET / HTTP/1.1');
    clock.pass(1, edge);
    await old.request('GET / HTTP/1.1');
    await edge.client();
    await idle.untilClosed();
    assert.equal(old.closed, false);

    await using busy = await serve({ limits: { connections: 1 } });
    const body = await busy.client();
    body.write('POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\na');
    await until(() => busy.received > 0);
    const next = await busy.client();
    assert.equal((await next.request('GET / HTTP/1.1')).status, 200);
    await body.untilClosed();
  });

  it('refuses a newcomer when all connections wait for a service', async () => {
    let asked = 0;
    await using edge = await serve({
      portal: () => new Promise(() => (asked += 1)),
      limits: { connections: 1 },
    });
    const waiting = await edge.client();
    waiting.write('GET / HTTP/1.1\r\n\r\n');
    await until(() => asked === 1);
    const refused = await edge.client();
    await refused.untilClosed();
    assert.deepEqual([edge.size, waiting.closed, await edge.refusals('busy')], [1, false, 1]);
  });

  it('cuts off a service that does not answer and a client that does not read', async () => {
    const clock = new TestClock();
    let asked = false;
    await using edge = await serve({
      clock,
      portal: () => new Promise(() => (asked = true)),
    });
    const waiting = await edge.client();
    waiting.write('GET / HTTP/1.1\r\n\r\n');
    await until(() => asked);
    clock.pass(EDGE_LIMITS.upstreamSeconds - 1, edge);
    assert.equal(edge.size, 1);
    clock.pass(1, edge);
    assert.deepEqual(await waiting.untilClosed(), Buffer.alloc(0));

    const file = new CountingFile(50_000_000);
    const body = { file, start: 0, length: 50_000_000 };
    await using other = await serve({
      portal: async () => ({ status: 200, headers: [], body }),
      limits: { stalledSeconds: 0.3 },
    });
    const stalled = await other.client();
    stalled.stream.pause();
    stalled.write('GET / HTTP/1.1\r\n\r\n');
    await until(() => file.closed === 1);
    assert.equal(other.size, 0);
  });

  it('lets a client read the last answer at its own pace', async () => {
    const clock = new TestClock();
    const body = Buffer.alloc(8_000_000, 'a');
    await using edge = await serve({ clock, portal: async () => ({ status: 200, headers: [], body }) });
    for (const head of ['GET / HTTP/1.1\r\nConnection: close', 'GET / HTTP/1.1']) {
      const client = await edge.client();
      client.stream.pause();
      const before = edge.sent;
      client.write(`${head}\r\n\r\n`);
      await until(() => edge.sent - before > body.length);
      clock.pass(EDGE_LIMITS.keepAliveSeconds, edge);
      client.stream.resume();
      assert.equal((await client.answer()).body.length, body.length);
      // The edge may not know yet that all of it is sent, and then the time begins later.
      await until(() => {
        clock.pass(EDGE_LIMITS.keepAliveSeconds, edge);
        return client.closed;
      });
    }
  });

  it('lets requests wait for services that load, a bounded number of them for a bounded time', async () => {
    let ready: (portal: Upstream) => void = () => undefined;
    const loaded = new Promise<Upstream>((resolve) => (ready = resolve));
    await using edge = await serve({ loaded, limits: { startWaiting: 1, startSeconds: 2 } });
    const waiting = await edge.client();
    waiting.write('GET / HTTP/1.1\r\n\r\n');
    await until(() => edge.received > 0);
    const refused = await (await edge.client()).request('GET / HTTP/1.1');
    assert.deepEqual([refused.status, header(refused, 'X-Reason')], [503, 'The gateway is starting.']);
    assert.equal((await waiting.answer()).status, 503);
    const served = await edge.client();
    served.write('GET / HTTP/1.1\r\n\r\n');
    ready(edge.portal);
    assert.equal((await served.answer()).status, 200);
  });

  it('answers 503 when a service fails, without saying how', async () => {
    for (const [error, text] of [
      [new Error('secret detail'), 'The connection failed.'],
      [new StoreUnavailable('secret detail'), 'The session store cannot be reached.'],
    ] as const) {
      await using edge = await serve({ portal: () => Promise.reject(error) });
      const client = await edge.client();
      const answer = await client.request('GET / HTTP/1.1');
      assert.deepEqual([answer.status, header(answer, 'X-Reason')], [503, text]);
      assert.doesNotMatch(answer.head + answer.body.toString(), /secret/);
    }
  });
});

describe('Edge: hand-over', () => {
  it('streams a range of a file at the pace of the client and closes the file', async () => {
    const file = new CountingFile(49_000_000);
    await using edge = await serve({
      portal: async () => ({ status: 206, headers: [], body: { file, start: 1000, length: 48_000_000 } }),
    });
    const client = await edge.client();
    client.stream.pause();
    client.write('GET / HTTP/1.1\r\n\r\n');
    await until(() => file.bytesRead > 0);
    await new Promise((resolve) => setTimeout(resolve, 300));
    // Much more than the buffers of two sockets hold.
    assert.ok(file.bytesRead < 44_000_000, 'it reads ahead of the client');
    client.stream.resume();
    const answer = await client.answer();
    assert.deepEqual(answer.body, file.bytes(1000, 48_000_000));
    assert.equal(file.closed, 1);
    assert.equal((await client.request('HEAD / HTTP/1.1')).body.length, 0);
    assert.equal(file.closed, 2);
  });

  it('closes the file when the client goes away, and cuts the answer when the file is too short', async () => {
    const file = new CountingFile(50_000_000);
    await using edge = await serve({
      portal: async () => ({ status: 200, headers: [], body: { file, start: 0, length: 50_000_000 } }),
    });
    const client = await edge.client();
    client.stream.pause();
    client.write('GET / HTTP/1.1\r\n\r\n');
    await until(() => file.bytesRead > 0);
    client.destroy();
    await until(() => file.closed === 1);

    const short = new CountingFile(100);
    await using other = await serve({
      portal: async () => ({ status: 200, headers: [], body: { file: short, start: 0, length: 200 } }),
    });
    const victim = await other.client();
    await assert.rejects(victim.request('GET / HTTP/1.1'), /ended/);
    assert.equal(short.closed, 1);
  });

  it('hands a CONNECT over with its early bytes and forgets the connection', async () => {
    await using edge = await serve();
    const client = await edge.client();
    await client.request('GET / HTTP/1.1');
    client.write('CONNECT /CSCOSSLC/tunnel HTTP/1.1\r\nX-CSTP-MTU: 1\r\n\r\nearly');
    assert.equal((await client.untilClosed()).toString(), 'taken: /CSCOSSLC/tunnel early');
    assert.equal(edge.size, 0);
    assert.deepEqual(
      edge.listenersLeft.filter((name) => !['error', 'end', 'finish'].includes(name)),
      [],
    );
  });
});

interface ServeOptions {
  limits?: Partial<EdgeLimits>;
  portal?: Upstream;
  loaded?: Promise<Upstream>;
  clock?: TestClock;
}

/** An edge on plain TCP: it must not notice that there is no TLS. */
async function serve(options: ServeOptions = {}) {
  const metrics = new Metrics();
  const seen: InsideRequest[] = [];
  const clients: TestClient[] = [];
  let connects = 0;
  let listenersLeft: string[] = [];
  const answer: InsideResponse = {
    status: 200,
    headers: [['X-Aggregate-Auth', '1']],
    body: Buffer.from('hello'),
  };
  const portal: Upstream =
    options.portal ??
    (async (request) => {
      seen.push(request);
      return answer;
    });
  const upstreams = (options.loaded ?? Promise.resolve(portal)).then((loaded) => ({
    portal: loaded,
    downloader: loaded,
  }));
  const tunnels: EdgeOptions['tunnels'] = {
    open: async (stream, head) => {
      connects += 1;
      listenersLeft = stream.duplex.eventNames().map(String);
      stream.farewell(Buffer.from(`taken: ${head.target} ${Buffer.from(head.early).toString()}`));
    },
  };
  const edge = new Edge({
    route: (target) => (target.startsWith('/nowhere') ? undefined : 'portal'),
    upstreams,
    tunnels,
    metrics: new NodeMetrics(metrics),
    log: silent,
    ...(options.limits && { limits: options.limits }),
    ...(options.clock && { now: options.clock.now }),
  });
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    edge.accept(new PlainStream(socket));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address ? address.port : 0;
  return {
    seen,
    portal,
    get connects() {
      return connects;
    },
    get listenersLeft() {
      return listenersLeft;
    },
    handleTick: () => edge.handleTick(),
    /** Bytes that it has read from all its clients. */
    get received() {
      return sockets.reduce((sum, socket) => sum + socket.bytesRead, 0);
    },
    /** Bytes that it has written, or wants to write, to all of them. */
    get sent() {
      return sockets.reduce((sum, socket) => sum + socket.bytesWritten, 0);
    },
    get size() {
      return edge.size;
    },
    async client(): Promise<TestClient> {
      const client = await TestClient.plain(port);
      clients.push(client);
      return client;
    },
    async refusals(cause: string): Promise<number> {
      const line = `sallyport_http_refusals_total{cause="${cause}"} `;
      const found = (await metrics.text()).split('\n').find((text) => text.startsWith(line));
      return Number(found?.slice(line.length) ?? 0);
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients) client.destroy();
      server.close();
      await edge.close();
    },
  };
}

class CountingFile {
  closed = 0;
  bytesRead = 0;

  constructor(private readonly size: number) {}

  bytes(start: number, length: number): Buffer {
    const all = Buffer.alloc(length);
    for (let at = 0; at < length; at += 1) all[at] = (start + at) % 251;
    return all;
  }

  async read(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ bytesRead: number }> {
    const bytesRead = Math.max(0, Math.min(length, this.size - position));
    buffer.set(this.bytes(position, bytesRead), offset);
    this.bytesRead += bytesRead;
    return { bytesRead };
  }

  async close(): Promise<void> {
    this.closed += 1;
  }
}

function header(answer: TestAnswer, name: string): string {
  return answer.headers.find(([key]) => key === name)?.[1] ?? '';
}

async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 60_000;
  while (!condition()) {
    if (Date.now() > end) assert.fail('did not happen in time');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
