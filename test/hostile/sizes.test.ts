import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, test } from 'node:test';
import { ALICE, formatRequest, sleep, TlsClient, World, type HttpAnswer } from '../harness/index.ts';
import { survives } from './survives.ts';

const world = await World.open();
after(() => world.close());

test('V12: cookies too long, too many, doubled or not base64 are no login and no session', async () => {
  const cookies = [
    `webvpncontext=${'QUFB'.repeat(250)}`,
    `webvpn=${'QUFB'.repeat(250)}`,
    `webvpn=${'A'.repeat(7000)}`,
    'webvpncontext=%%%; webvpn=\x7f\x80',
    'webvpn=a; webvpn=b; webvpn=c',
    'webvpn',
    'webvpn=; ;;;===;webvpncontext==',
    Array.from({ length: 4096 }, (_, index) => `c${index}=1`)
      .join(';')
      .slice(0, 30_000),
    `webvpn="${'x'.repeat(20)}`,
  ];
  await survives(
    world,
    async () => {
      for (const cookie of cookies) {
        for (const method of ['POST', 'CONNECT'] as const) {
          const answer = await ask(method, cookie);
          assert.ok(
            answer.status < 500 && !answer.body.toString().includes('success'),
            `${method} ${cookie.slice(0, 40)}: ${answer.status}`,
          );
          if (method === 'CONNECT') assert.notEqual(answer.status, 200);
        }
      }
    },
    { counter: 'sallyport_connects_total', labels: { result: 'token-missing' }, atLeast: 3 },
  );
});

test('V28: a body without end and a million headers are cut off, memory stays', async () => {
  await survives(
    world,
    async () => {
      const bodies = await TlsClient.open({ lab: world.lab });
      bodies.write('POST / HTTP/1.1\r\nHost: vpn\r\nTransfer-Encoding: chunked\r\n\r\n');
      await flood(bodies, Buffer.from(`10000\r\n${'A'.repeat(65_536)}\r\n`));
      const announced = await TlsClient.open({ lab: world.lab });
      announced.write(
        formatRequest({ method: 'POST', path: '/', headers: [['Content-Length', '10737418240']] }),
      );
      assert.equal((await announced.answer('POST')).status, 413);
      announced.close();
      const headers = await TlsClient.open({ lab: world.lab });
      headers.write('GET / HTTP/1.1\r\nHost: vpn\r\n');
      await flood(headers, Buffer.from('a: b\r\n'.repeat(2000)));
      const gzip = await TlsClient.open({ lab: world.lab });
      const answer = await gzip.request({
        method: 'POST',
        path: '/',
        headers: [['Content-Encoding', 'gzip']],
        body: Buffer.from('H4sIAAAAAAAAA+3BAQ0AAADCoPdPbQ8HFAAAAPBvDpZ4', 'base64'),
      });
      assert.ok(answer.status < 500);
      gzip.close();
    },
    { counter: 'sallyport_http_refusals_total', labels: { cause: 'body-too-large' } },
  );
});

/** Writes until the gateway closes. @throws if it takes a gigabyte. */
async function flood(tls: TlsClient, piece: Buffer): Promise<void> {
  let ended = false;
  void tls.reader.ended.then(() => (ended = true));
  for (let written = 0; !ended; written += piece.length) {
    assert.ok(written < 1 << 30, 'the gateway reads on and on');
    if (!tls.socket.write(piece))
      await Promise.race([once(tls.socket, 'drain').catch(() => {}), tls.reader.ended, sleep(5_000)]);
  }
  tls.close();
}

async function ask(method: 'POST' | 'CONNECT', cookie: string): Promise<HttpAnswer> {
  const tls = await TlsClient.open({ lab: world.lab });
  try {
    const headers = [['Cookie', cookie] as const, ['X-Aggregate-Auth', '1'] as const];
    if (method === 'CONNECT') return await tls.request({ method, path: '/CSCOSSLC/tunnel', headers });
    const body = `<config-auth client="vpn" type="auth-reply" aggregate-auth-version="2"><auth><username>${ALICE.name}</username><password>not ${ALICE.password}</password></auth></config-auth>`;
    return await tls.request({ method, path: '/', headers, body });
  } finally {
    tls.close();
  }
}
