import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { ConnectionEnded, PATIENCE_MS, TlsClient, within, World } from '../harness/index.ts';
import { survives } from './survives.ts';

const world = await World.open();
after(() => world.close());

const INIT = '<config-auth client="vpn" type="init" aggregate-auth-version="2"/>';
const MALFORMED = { counter: 'sallyport_http_refusals_total', labels: { cause: 'malformed' } };
const post = (headers: string, body = INIT) => `POST / HTTP/1.1\r\nHost: vpn\r\n${headers}\r\n\r\n${body}`;

test('V6: lengths that are no length are refused, nothing hangs', async () => {
  const lengths = ['-1', '+5', '0x10', '99999999999999999999', '1e3', '5 5', '', '5,5', '\u0665'];
  await survives(
    world,
    async () => {
      for (const length of lengths) await refused(post(`Content-Length: ${length}`), `length ${length}`);
      await refused(post(`Content-Length: 5\r\nContent-Length: 66`), 'two lengths');
      await refused(
        post(`Transfer-Encoding: chunked\r\nContent-Length: 5`, '0\r\n\r\n'),
        'length and chunks',
      );
      await refused(post('Transfer-Encoding: chunked, identity'), 'odd encoding');
      await refused(post('Transfer-Encoding: xchunked'), 'unknown encoding');
    },
    { ...MALFORMED, atLeast: 6 },
  );
});

test('V14: two requests at once, desync tricks and bytes after CONNECT are never read as another request', async () => {
  const get = 'GET /1/binaries/update.txt HTTP/1.1\r\nHost: vpn\r\n\r\n';
  await survives(
    world,
    async () => {
      const answers = [
        await exchange(get + get),
        await exchange(`${post(`Content-Length: ${INIT.length}`)}${get}`),
        await exchange(`GET / HTTP/1.1\r\nHost: vpn\r\nContent-Length: ${get.length}\r\n\r\n${get}`),
      ];
      for (const text of answers) {
        assert.ok([...text.matchAll(/HTTP\/1\.1 200/g)].length <= 1, text);
        assert.equal([...text.matchAll(/HTTP\/1\.1 5/g)].length, 0);
      }
      await refused(`GET / HTTP/1.1\nHost: vpn\n\n`, 'bare LF');
      await refused(`GET / HTTP/1.1\r\nHost: vpn\r\nX-A: 1\r\n folded\r\n\r\n`, 'folded header', true);
      await refused(`GET / HTTP/1.1\r\nHost: vpn\r\nX A: 1\r\n\r\n`, 'blank in a name');
      await refused(`GET / HTTP/1.1\r\nHost : vpn\r\n\r\n`, 'blank before the colon');
      await refused(`GET / HTTP/1.1\r\nHost: vpn\r\nX: a\0b\r\n\r\n`, 'NUL');
      await refused(
        `CONNECT /CSCOSSLC/tunnel HTTP/1.1\r\nHost: vpn\r\nCookie: webvpn=x\r\n\r\n${get}`,
        'GET after CONNECT',
      );
      await refused(
        `CONNECT /CSCOSSLC/tunnel HTTP/1.1\r\nHost: vpn\r\nContent-Length: 4\r\n\r\nabcd`,
        'CONNECT with a body',
      );
      await refused('\x16\x03\x01\x02\x00', 'TLS in TLS');
      await refused('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'HTTP/2');
    },
    { ...MALFORMED, atLeast: 3 },
  );
});

test('V22: chunk sizes of attackers are refused, and we never send chunks', async () => {
  const sizes = [
    'ffffffff',
    '-1',
    '7fffffffffffffff',
    'ffffffffffffffffff',
    '0x5',
    '5;'.padEnd(20_000, 'x'),
    'g',
  ];
  await survives(
    world,
    async () => {
      for (const size of sizes)
        await refused(
          post('Transfer-Encoding: chunked', `${size}\r\n${HUGE.test(size) ? LARGE : 'hello\r\n0\r\n\r\n'}`),
          `chunk ${size.slice(0, 20)}`,
        );
      await refused(post('Transfer-Encoding: chunked', '5\r\nhelloXX0\r\n\r\n'), 'no line end after a chunk');
      const trailer = await exchange(
        post(
          'Transfer-Encoding: chunked',
          `${INIT.length.toString(16)}\r\n${INIT}\r\n0\r\nX-Sallyport-Client: 1\r\n\r\n`,
        ),
      );
      assert.match(trailer, /^HTTP\/1\.1 (200|400|411|501) /);
      assert.doesNotMatch(trailer, /transfer-encoding/i);
    },
    MALFORMED,
  );
});

test('V6: headers of the inside, forged by a client, change nothing', async () => {
  const forged = [
    'X-Sallyport-Client-Address: 127.0.0.1',
    'X-Sallyport-Certificate: x',
    'X-Sallyport-Certificate-Verified: true',
  ];
  const text = await exchange(post(`${forged.join('\r\n')}\r\nContent-Length: ${INIT.length}`));
  assert.match(text, /^HTTP\/1\.1 200 /);
  assert.doesNotMatch(text, /session-token/);
});

async function refused(bytes: string, what: string, mayServe = false): Promise<void> {
  const text = await exchange(bytes);
  if (mayServe && /^HTTP\/1\.1 200 /.test(text)) return;
  assert.ok(text === '' || /^HTTP\/1\.1 4\d\d /.test(text), `${what}: ${text.slice(0, 200)}`);
  assert.doesNotMatch(text, /config-auth/);
}

/** Everything that comes back: an answer and what follows until the gateway closes or falls silent; '' = it closed. */
async function exchange(bytes: string): Promise<string> {
  const tls = await TlsClient.open({ lab: world.lab });
  tls.write(Buffer.from(bytes, 'latin1'));
  const head = await within(PATIENCE_MS, 'an answer or a close', tls.reader.until('\r\n\r\n')).catch(
    (error: unknown) => {
      if (error instanceof ConnectionEnded) return Buffer.alloc(0);
      throw error;
    },
  );
  await tls.closedByPeer(SILENCE_MS);
  const text = head.toString('latin1') + tls.reader.release().toString('latin1');
  tls.close();
  return text;
}

const SILENCE_MS = 500;
/** A size that can be: it is waited for, and refused when the body gets too large. */
const HUGE = /^(f|7)f{7,15}$/;
const LARGE = 'x'.repeat(300_000);
