import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import { after, describe, it } from 'node:test';
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls';
import { LISTENER_LIMITS, TlsListener, type ListenerLimits } from './listener.tls.ts';
import type { ClientStream, HostCertificates } from './listener.ts';
import { TestCertificates, type KeyFiles } from './testing/certificates.ts';
import { TestClock } from './testing/clock.ts';
import { silent } from './testing/world.ts';

const files = new TestCertificates();
const rsa = files.selfSigned('rsa', 'rsa');
const ecdsa = files.selfSigned('ecdsa', 'ec');
const other = files.selfSigned('other', 'ec');
after(() => files.remove());

describe('TlsListener: TLS', () => {
  it('presents the certificate that the client can check and says which one it was', async () => {
    await using server = await serve({ '': files.host([rsa, ecdsa]) });
    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      for (const [sigalgs, pair] of [
        ['ecdsa_secp256r1_sha256', ecdsa],
        ['rsa_pss_rsae_sha256', rsa],
      ] as const) {
        const { stream } = await server.connect({ minVersion: version, maxVersion: version, sigalgs });
        assert.equal(stream.facts.tlsVersion, version);
        assert.equal(stream.facts.servedLeafSha1, sha1(pair));
        assert.equal(stream.facts.clientFinished?.length, version === 'TLSv1.2' ? 12 : 48);
      }
    }
  });

  it('refuses TLS below the floor, static RSA key exchange and other application protocols', async () => {
    await using server = await serve({ '': files.host([rsa, ecdsa]) });
    const legacy = { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const;
    await assert.rejects(server.connect(legacy));
    await assert.rejects(server.connect({ maxVersion: 'TLSv1.2', ciphers: 'AES128-SHA:AES128-GCM-SHA256' }));
    await assert.rejects(server.connect({ ALPNProtocols: ['h2'] }));
    const { client } = await server.connect({ ALPNProtocols: ['h2', 'http/1.1'] });
    assert.equal(client.alpnProtocol, 'http/1.1');
    assert.equal(server.listener.stats.refused['error'], 3);
  });

  it('lets the server choose the cipher', async () => {
    await using server = await serve({ '': files.host([ecdsa]) });
    const ciphers = 'ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384';
    const { stream } = await server.connect({ maxVersion: 'TLSv1.2', ciphers });
    assert.equal(stream.facts.cipher, 'ECDHE-ECDSA-AES256-GCM-SHA384');
  });

  it('chooses the host by server name, and the default one for no or an unknown name', async () => {
    await using server = await serve({ '': files.host([ecdsa]), 'vpn.example.test': files.host([other]) });
    for (const [servername, pair, expected] of [
      ['VPN.example.test', other, 'vpn.example.test'],
      ['unknown.example.test', ecdsa, 'unknown.example.test'],
      ['', ecdsa, ''],
    ] as const) {
      const { stream } = await server.connect({ servername });
      assert.equal(stream.facts.servedLeafSha1, sha1(pair));
      assert.equal(stream.facts.serverName, expected);
    }
  });

  it('asks for a client certificate without requiring one, and judges it without refusing it', async () => {
    const good = files.client('good');
    const expired = files.client('expired', ['-startdate', '20200101000000Z', '-enddate', '20200201000000Z']);
    const revoked = files.client('revoked');
    const stranger = files.selfSigned('stranger', 'ec');
    const crl = files.revoke(revoked);
    await using server = await serve({ '': files.host([ecdsa], { ca: files.ca.cert, crl }) });
    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      const connect = (pair?: KeyFiles) =>
        server.connect({
          minVersion: version,
          maxVersion: version,
          ...(pair && { cert: readFileSync(pair.cert), key: readFileSync(pair.key) }),
        });
      assert.equal((await connect()).stream.facts.certificate, undefined);
      const accepted = (await connect(good)).stream.facts.certificate;
      assert.equal(accepted?.problem, '');
      assert.equal(accepted?.verified, true);
      assert.deepEqual(accepted?.der, new X509Certificate(readFileSync(good.cert)).raw);
      for (const [pair, problem] of [
        [expired, 'cert has expired'],
        [revoked, 'cert revoked'],
        [stranger, /crl|self signed|issuer/],
      ] as const) {
        const facts = (await connect(pair)).stream.facts.certificate;
        assert.equal(facts?.verified, false);
        if (typeof problem === 'string') assert.equal(facts?.problem, problem);
        else assert.match(facts?.problem ?? '', problem);
      }
    }
  });

  it('does a full handshake with certificate when a client tries to resume', async () => {
    const pair = files.client('again');
    await using server = await serve({ '': files.host([ecdsa], { ca: files.ca.cert }) });
    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      const options = {
        minVersion: version,
        maxVersion: version,
        cert: readFileSync(pair.cert),
        key: readFileSync(pair.key),
      };
      const first = await server.connect(options);
      const session = first.client.getSession();
      assert.ok(session);
      const second = await server.connect({ ...options, session });
      assert.equal(second.client.isSessionReused(), false);
      assert.equal(second.stream.facts.certificate?.verified, true);
    }
  });

  it('exports keys without a context, as the client does', async () => {
    await using server = await serve({ '': files.host([ecdsa]) });
    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      const { client, stream } = await server.connect({ minVersion: version, maxVersion: version });
      const exporter: { exportKeyingMaterial(length: number, label: string, context?: Buffer): Buffer } =
        client;
      const label = 'EXPORTER-openconnect-psk';
      assert.deepEqual(stream.exportKey(label, 32), exporter.exportKeyingMaterial(32, label));
    }
  });
});

describe('TlsListener: connections', () => {
  it('takes a ClientHello that comes byte by byte', async () => {
    await using server = await serve({ '': files.host([ecdsa]) });
    const hello = await clientHello();
    const socket = connectTcp(server.listener.port, '127.0.0.1');
    socket.setNoDelay(true);
    for (const byte of hello) {
      socket.write(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    const [answer] = (await once(socket, 'data')) as [Buffer];
    assert.equal(answer[0], 22);
    socket.destroy();
  });

  it('gives silent sockets no handshake slot, and lets the oldest go when there are too many', async () => {
    await using server = await serve({ '': files.host([ecdsa]) }, { silent: 3, handshakes: 1 });
    const idle = await Promise.all(Array.from({ length: 3 }, () => server.dial()));
    await until(() => server.listener.stats.silent === 3);
    assert.equal(server.listener.stats.handshaking, 0);
    await server.connect({});
    await until(() => idle.filter((socket) => socket.closed).length === 1);
    assert.equal(server.listener.stats.refused['limit'], 1);
  });

  it('stays below the number of sockets that it may have, and lets silent ones go for others', async () => {
    await using server = await serve({ '': files.host([ecdsa]) }, { connections: 3 });
    const idle = await Promise.all(Array.from({ length: 5 }, () => server.dial()));
    await until(() => idle.filter((socket) => socket.closed).length === 2);
    for (let n = 0; n < 3; n += 1) await server.connect({});
    await assert.rejects(server.connect({}), 'all are in use');
    assert.equal(server.listener.stats.refused['limit'], 6);
  });

  it('ends what stays silent, and a hello that never gets complete', async () => {
    await using server = await serve({ '': files.host([ecdsa]) });
    const idle = await server.dial();
    const slow = await server.dial();
    const hello = await clientHello();
    await until(() => server.listener.stats.silent === 2);
    for (let second = 0; second < LISTENER_LIMITS.silentSeconds; second += 1) {
      assert.equal(idle.closed || slow.closed, false);
      slow.write(hello.subarray(second, second + 1));
      server.pass(1);
    }
    await until(() => idle.closed && slow.closed);
    assert.equal(server.listener.stats.refused['timeout'], 2);
    assert.equal(server.listener.stats.silent, 0);
  });

  it('ends a handshake that does not go on, and meanwhile lets others wait for the slot', async () => {
    await using server = await serve({ '': files.host([ecdsa]) }, { handshakes: 1, waiting: 1 });
    const stalled = await server.dial();
    stalled.write(await clientHello());
    await until(() => server.listener.stats.handshaking === 1);
    server.pass(LISTENER_LIMITS.handshakeSeconds - 1);
    const waiting = server.connect({});
    await until(() => server.listener.stats.accepted === 2 && server.listener.stats.silent === 0);
    await assert.rejects(server.connect({}), 'one more than may wait');
    assert.equal(server.listener.stats.refused['limit'], 1);
    server.pass(1);
    const { stream } = await waiting;
    assert.equal(stream.facts.tlsVersion, 'TLSv1.3');
    await until(() => stalled.closed);
    assert.equal(server.listener.stats.refused['timeout'], 1);
  });

  it('serves others while one hello after the other holds a slot and says nothing more', async () => {
    await using server = await serve({ '': files.host([ecdsa]) }, { handshakes: 1 });
    const stalled = await server.dial();
    stalled.write(await clientHello());
    await until(() => server.listener.stats.handshaking === 1);
    const waiting = server.connect({});
    await until(() => server.listener.stats.accepted === 2 && server.listener.stats.silent === 0);
    server.pass(LISTENER_LIMITS.yieldSeconds);
    assert.equal((await waiting).stream.facts.tlsVersion, 'TLSv1.3');
    await until(() => stalled.closed);
  });

  it('closes what is not TLS at once', async () => {
    await using server = await serve({ '': files.host([ecdsa]) });
    const socket = await server.dial();
    socket.write('GET / HTTP/1.1\r\n\r\n');
    await until(() => socket.closed);
    assert.equal(server.listener.stats.refused['error'], 1);
  });

  it('gives the first bytes of a hello in two records no slot, and answers when the rest is there', async () => {
    await using server = await serve({ '': files.host([ecdsa]), 'vpn.example.test': files.host([other]) });
    const hello = await clientHello('vpn.example.test');
    const socket = connectTcp(server.listener.port, '127.0.0.1');
    const header = (length: number) => Buffer.from([22, 3, 1, length >> 8, length & 0xff]);
    socket.write(Buffer.concat([header(1), hello.subarray(5, 6)]));
    await until(() => server.listener.stats.silent === 1);
    assert.equal(server.listener.stats.handshaking, 0, 'a slot for six bytes');
    socket.write(Buffer.concat([header(hello.length - 6), hello.subarray(6)]));
    const [answer] = (await once(socket, 'data')) as [Buffer];
    assert.equal(answer[0], 22);
    socket.destroy();
  });

  it('limits the connections of one address, and not with 0', async () => {
    await using server = await serve({ '': files.host([ecdsa]) });
    const certificates = { hosts: new Map([['', files.host([ecdsa])]]) };
    server.listener.prepare(certificates, { ...NO_LIMIT, connectionsPerAddress: 2 })();
    const first = await server.connect({});
    await server.connect({});
    await assert.rejects(server.connect({}));
    assert.equal(server.listener.stats.refused['address-limit'], 1);
    first.client.destroy();
    await until(() => server.listener.stats.open === 1);
    await server.connect({});
    server.listener.prepare(certificates, NO_LIMIT)();
    await server.connect({});
  });

  it('takes new certificates for handshakes from then on and keeps the old ones when the new are bad', async () => {
    await using server = await serve({ '': files.host([ecdsa]) });
    const before = await server.connect({});
    const bad = { ...files.host([ecdsa]), pairs: [{ cert: Buffer.from('no'), key: Buffer.from('no') }] };
    assert.throws(() => server.listener.prepare({ hosts: new Map([['', bad]]) }, NO_LIMIT));
    const takeOver = server.listener.prepare({ hosts: new Map([['', files.host([other])]]) }, NO_LIMIT);
    assert.equal((await server.connect({})).stream.facts.servedLeafSha1, sha1(ecdsa));
    takeOver();
    assert.equal((await server.connect({})).stream.facts.servedLeafSha1, sha1(other));
    assert.equal(before.client.destroyed, false);
  });

  it('says in one sentence that the port is taken', async () => {
    const busy = createServer().listen(0, '127.0.0.1');
    await once(busy, 'listening');
    const address = busy.address();
    const port = typeof address === 'object' && address ? address.port : 0;
    const listener = new TlsListener({ host: '127.0.0.1', port, log: silent });
    listener.prepare({ hosts: new Map([['', files.host([ecdsa])]]) }, NO_LIMIT)();
    await assert.rejects(
      listener.listen(() => undefined),
      /TCP port \d+ is taken by another program/,
    );
    busy.close();
  });

  it('says in one sentence that what was handed over is no socket for it', async () => {
    const fd = openSync(process.execPath, 'r');
    const listener = new TlsListener({ host: '', port: 443, log: silent, inherited: { fd, name: 'tcp' } });
    listener.prepare({ hosts: new Map([['', files.host([ecdsa])]]) }, NO_LIMIT)();
    await assert.rejects(
      listener.listen(() => undefined),
      /^Error: Descriptor \d+ \(LISTEN_FDS\) is no socket that accepts TCP connections/,
    );
    closeSync(fd);
  });
});

async function serve(hosts: Record<string, HostCertificates>, limits: Partial<ListenerLimits> = {}) {
  const clock = new TestClock();
  const listener = new TlsListener({
    host: '127.0.0.1',
    port: 0,
    log: silent,
    limits,
    now: clock.now,
  });
  listener.prepare({ hosts: new Map(Object.entries(hosts)) }, NO_LIMIT)();
  const streams: ClientStream[] = [];
  const sockets: Socket[] = [];
  await listener.listen((stream) => streams.push(stream));
  return {
    listener,
    pass: (seconds: number) => clock.pass(seconds, listener),
    async dial(): Promise<Socket> {
      const socket = connectTcp(listener.port, '127.0.0.1');
      socket.on('error', () => undefined);
      socket.resume();
      sockets.push(socket);
      await once(socket, 'connect');
      return socket;
    },
    /** Rejects when the handshake fails or the server closes. */
    async connect(options: ConnectionOptions): Promise<{ client: TLSSocket; stream: ClientStream }> {
      const client = connectTls({
        port: listener.port,
        host: '127.0.0.1',
        rejectUnauthorized: false,
        ...options,
      });
      sockets.push(client);
      await new Promise<void>((resolve, reject) => {
        client.once('secureConnect', resolve);
        client.on('error', reject);
        client.once('close', () => reject(new Error('closed')));
      });
      // A TLS 1.3 client is done before the server is.
      const port = client.localPort;
      const ours = () => streams.find((stream) => stream.facts.peerPort === port);
      await until(() => ours() !== undefined);
      const stream = ours();
      assert.ok(stream);
      client.resume();
      return { client, stream };
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      for (const stream of streams) stream.destroy();
      await listener.close();
    },
  };
}

/** The first record of a real client. */
async function clientHello(servername = ''): Promise<Buffer> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address ? address.port : 0;
  const client = connectTls({ port, host: '127.0.0.1', servername });
  client.on('error', () => undefined);
  const [socket] = (await once(server, 'connection')) as [Socket];
  const [hello] = (await once(socket, 'data')) as [Buffer];
  client.destroy();
  socket.destroy();
  server.close();
  return hello;
}

async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 60_000;
  while (!condition()) {
    if (Date.now() > end) assert.fail('did not happen in time');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const NO_LIMIT = { connectionsPerAddress: 0, trustedProxies: [] };

function sha1({ cert }: KeyFiles): string {
  return new X509Certificate(readFileSync(cert)).fingerprint.replaceAll(':', '');
}
