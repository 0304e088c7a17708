import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { before, describe, it } from 'node:test';
import { connect } from 'node:tls';
import { helloState, MAX_HELLO_BYTES, MAX_HELLO_RECORDS, serverNameOf } from './client-hello.ts';

describe('ClientHello', () => {
  let hello: Buffer;

  before(async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    const port = typeof address === 'object' && address ? address.port : 0;
    const client = connect({ port, host: '127.0.0.1', servername: 'VPN.Example.test.' });
    client.on('error', () => undefined);
    const [socket] = (await once(server, 'connection')) as [Socket];
    [hello] = (await once(socket, 'data')) as [Buffer];
    client.destroy();
    socket.destroy();
    server.close();
  });

  it('is complete at its last byte and not before', () => {
    for (let length = 0; length < hello.length; length += 1)
      assert.equal(helloState(hello.subarray(0, length)), 'incomplete');
    assert.equal(helloState(hello), 'complete');
    assert.equal(helloState(Buffer.concat([hello, hello])), 'complete');
  });

  it('is told from what is not TLS by its first bytes', () => {
    for (const bytes of [
      'GET / HTTP/1.1',
      '\x16\x02',
      '\x16\x03\x01\x00\x00',
      '\x16\x03\x01\xff\xff',
      '\x80\x2e\x01',
    ])
      assert.equal(helloState(Buffer.from(bytes, 'latin1')), 'not-tls');
  });

  it('is put together from several records, wherever they are cut', () => {
    for (let cut = 1; cut < hello.length - 5; cut += 1) {
      const halves = inRecords(hello, [cut, hello.length - 5 - cut]);
      assert.equal(helloState(halves.subarray(0, 5 + cut)), 'incomplete');
      assert.equal(helloState(halves.subarray(0, -1)), 'incomplete');
      assert.equal(helloState(halves), 'complete');
      assert.equal(serverNameOf(halves), 'vpn.example.test');
    }
  });

  it('is refused in too many records, and when it is too large', () => {
    const pieces = Array.from({ length: MAX_HELLO_RECORDS }, () => 1);
    assert.equal(helloState(inRecords(hello, pieces)), 'not-tls');
    assert.equal(helloState(inRecords(hello, pieces.slice(1))), 'incomplete');
    const large = Buffer.from(hello);
    large.writeUIntBE(MAX_HELLO_BYTES, 6, 3);
    assert.equal(helloState(large), 'not-tls');
  });

  it('gives its server name in lower case, without the dot of the root', () => {
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

/** The message of `hello`, which is one record, in records with `lengths` bytes. */
function inRecords(hello: Buffer, lengths: readonly number[]): Buffer {
  let at = 5;
  return Buffer.concat(
    lengths.flatMap((length) => {
      const header = Buffer.from([22, 3, 1, length >> 8, length & 0xff]);
      at += length;
      return [header, hello.subarray(at - length, at)];
    }),
  );
}
