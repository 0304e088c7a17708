import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { after, describe, it } from 'node:test';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { Log } from '@sallyport/chassis';
import { CROWD_CONNECTIONS } from './crowd.ts';
import { TlsListener } from './listener.tls.ts';
import type { AddressRules, ClientStream } from './listener.ts';
import { TestCertificates } from './testing/certificates.ts';
import { silent } from './testing/world.ts';

const files = new TestCertificates();
const pair = files.selfSigned('ecdsa', 'ec');
after(() => files.remove());

const TRUSTED = '127.0.0.2';
const STRANGER = '127.0.0.1';
const V1 = Buffer.from('PROXY TCP4 192.0.2.77 198.51.100.1 40001 443\r\n');
const V2 = Buffer.from(
  '0d0a0d0a000d0a515549540a2121002420010db8000000000000000000000077' +
    '20010db80000000000000000000000019c4101bb',
  'hex',
);
const V2_LOCAL = Buffer.from('0d0a0d0a000d0a515549540a20000000', 'hex');

describe('TlsListener behind balancers', () => {
  it('takes the client of a trusted proxy from its header, of both versions', async () => {
    await using server = await serve();
    for (const [header, address, local] of [
      [V1, '192.0.2.77', '198.51.100.1'],
      [V2, '2001:db8::77', '2001:db8::1'],
    ] as const) {
      const { facts } = await server.connect(TRUSTED, header);
      assert.deepEqual([facts.peerAddress, facts.peerPort, facts.localAddress], [address, 40_001, local]);
    }
  });

  it('takes a header and a hello that come byte by byte', async () => {
    await using server = await serve();
    const socket = await server.dial(TRUSTED);
    for (const byte of V2) {
      socket.write(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    const { facts } = await server.handshake(socket);
    assert.equal(facts.peerAddress, '2001:db8::77');
  });

  it('lets the proxy speak for itself: its health check', async () => {
    await using server = await serve();
    assert.equal((await server.connect(TRUSTED, V2_LOCAL)).facts.peerAddress, TRUSTED);
    const tcpOnly = await server.dial(TRUSTED);
    tcpOnly.end();
    await until(() => tcpOnly.closed);
    assert.deepEqual(server.listener.stats.refused, {});
  });

  it('refuses a trusted proxy that sends no header or a bad one, and says so once', async () => {
    const told: string[] = [];
    await using server = await serve({ log: tellingLog(told) });
    await assert.rejects(server.connect(TRUSTED, Buffer.alloc(0)));
    await assert.rejects(server.connect(TRUSTED, Buffer.from('PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n')));
    const lying = Buffer.from(V2);
    lying.writeUInt16BE(0xffff, 14);
    await assert.rejects(server.connect(TRUSTED, lying));
    assert.deepEqual(server.listener.stats.refused, { 'proxy-header': 3 });
    assert.equal(told.length, 1);
    assert.match(told[0] ?? '', /127\.0\.0\.2.*a trusted proxy must begin with a PROXY header/);
  });

  it('ends a proxy that sends half a header', async () => {
    await using server = await serve({ silentSeconds: 0.3 });
    const socket = await server.dial(TRUSTED);
    socket.write(V2.subarray(0, 20));
    await until(() => socket.closed);
    assert.deepEqual(server.listener.stats.refused, { timeout: 1 });
  });

  it('takes no header from anybody else: nobody chooses his own address', async () => {
    await using server = await serve();
    await assert.rejects(server.connect(STRANGER, V1));
    await assert.rejects(server.connect(STRANGER, V2));
    assert.deepEqual(server.listener.stats.refused, { error: 2 });
    assert.equal((await server.connect(STRANGER, Buffer.alloc(0))).facts.peerAddress, STRANGER);
    // A second header behind the first is the client's, and no TLS.
    await assert.rejects(server.connect(TRUSTED, Buffer.concat([V1, V2])));
  });

  it('counts the connections of each client, not those of the proxy', async () => {
    await using server = await serve({ connectionsPerAddress: 1 });
    const first = await server.connect(TRUSTED, V1);
    await server.connect(TRUSTED, V2);
    await assert.rejects(server.connect(TRUSTED, V1));
    assert.deepEqual(server.listener.stats.refused, { 'address-limit': 1 });
    first.destroy();
    await until(() => server.listener.stats.open === 1);
    await server.connect(TRUSTED, V1);
  });

  it('takes a new list for connections from then on', async () => {
    await using server = await serve();
    server.follow({ trustedProxies: ['127.0.0.1/32', '2001:db8::/32'] });
    assert.equal((await server.connect(STRANGER, V1)).facts.peerAddress, '192.0.2.77');
    await assert.rejects(server.connect(TRUSTED, V1));
    server.follow({ trustedProxies: [] });
    await assert.rejects(server.connect(STRANGER, V1));
  });

  it('notices a balancer that hides its clients, once, and says what to do', async () => {
    const told: string[] = [];
    await using server = await serve({ log: tellingLog(told), trusted: [] });
    for (let at = 0; at < CROWD_CONNECTIONS; at++) await server.connect(STRANGER, Buffer.alloc(0));
    await until(() => told.length > 0);
    assert.match(
      told[0] ?? '',
      /"address":"127\.0\.0\.1","connections":100.*trusted-proxies.*very few addresses/,
    );
    await new Promise((resolve) => setTimeout(resolve, 600));
    assert.equal(told.length, 1);
  });
});

interface ServeOptions {
  log?: Log;
  trusted?: string[];
  connectionsPerAddress?: number;
  silentSeconds?: number;
}

async function serve(options: ServeOptions = {}) {
  const {
    log = silent,
    trusted = [`${TRUSTED}/32`],
    connectionsPerAddress = 0,
    silentSeconds = 10,
  } = options;
  const listener = new TlsListener({
    ...{ host: '127.0.0.1', port: 0, log },
    limits: { silentSeconds },
  });
  const follow = (rules: Partial<AddressRules>) =>
    listener.prepare(
      { hosts: new Map([['', files.host([pair])]]) },
      { connectionsPerAddress, trustedProxies: trusted, ...rules },
    )();
  follow({});
  const streams: ClientStream[] = [];
  const sockets: (Socket | TLSSocket)[] = [];
  await listener.listen((stream) => streams.push(stream));
  const dial = async (from: string): Promise<Socket> => {
    const socket = connectTcp({ port: listener.port, host: '127.0.0.1', localAddress: from });
    socket.on('error', () => undefined);
    sockets.push(socket);
    await once(socket, 'connect');
    return socket;
  };
  /** @throws when the server closes instead. */
  const handshake = async (socket: Socket): Promise<ClientStream> => {
    const before = streams.length;
    const client = connectTls({ socket, rejectUnauthorized: false });
    sockets.push(client);
    const refused = new Promise<never>((_, reject) => {
      client.on('error', reject);
      client.on('close', () => reject(new Error('closed')));
    });
    refused.catch(() => undefined);
    await Promise.race([once(client, 'secureConnect'), refused]);
    await until(() => streams.length > before);
    const stream = streams.at(-1);
    assert.ok(stream);
    return stream;
  };
  return {
    listener,
    follow,
    dial,
    handshake,
    async connect(from: string, header: Buffer): Promise<ClientStream> {
      const socket = await dial(from);
      socket.write(header);
      return handshake(socket);
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      for (const stream of streams) stream.destroy();
      await listener.close();
    },
  };
}

function tellingLog(told: string[]): Log {
  return { ...silent, warn: (fields, message) => told.push(`${JSON.stringify(fields)} ${message}`) };
}

async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 60_000;
  while (!condition()) {
    if (Date.now() > end) assert.fail('did not happen in time');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
