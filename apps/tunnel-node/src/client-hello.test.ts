import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { before, describe, it } from 'node:test';
import { connect } from 'node:tls';
import { helloRecord, serverNameOf } from './client-hello.ts';

describe('ClientHello', () => {
  let hello: Buffer;

  before(async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    const port = typeof address === 'object' && address ? address.port : 0;
    const client = connect({ port, host: '127.0.0.1', servername: 'VPN.Example.test' });
    client.on('error', () => undefined);
    const [socket] = (await once(server, 'connection')) as [Socket];
    [hello] = (await once(socket, 'data')) as [Buffer];
    client.destroy();
    socket.destroy();
    server.close();
  });

  it('is complete at its last byte and not before', () => {
    for (let length = 0; length < hello.length; length += 1)
      assert.equal(helloRecord(hello.subarray(0, length)), 'incomplete');
    assert.equal(helloRecord(hello), 'complete');
    assert.equal(helloRecord(Buffer.concat([hello, hello])), 'complete');
  });

  it('is told from what is not TLS by its first bytes', () => {
    for (const bytes of [
      'GET / HTTP/1.1',
      '\x16\x02',
      '\x16\x03\x01\x00\x00',
      '\x16\x03\x01\xff\xff',
      '\x80\x2e\x01',
    ])
      assert.equal(helloRecord(Buffer.from(bytes, 'latin1')), 'not-tls');
  });

  it('gives its server name in lower case', () => {
    assert.equal(serverNameOf(hello), 'vpn.example.test');
  });

  it('gives a name or nothing, and never throws, whatever its bytes are', () => {
    for (let at = 5; at < hello.length; at += 1) {
      for (const value of [0x00, 0x7f, 0xff]) {
        const broken = Buffer.from(hello);
        broken[at] = value;
        assert.ok(serverNameOf(broken).length <= 255);
      }
      assert.equal(typeof serverNameOf(hello.subarray(0, at)), 'string');
    }
  });
});
