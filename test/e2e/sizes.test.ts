import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { formatRequest, readStep, sleep, TlsClient, World, type HttpAnswer } from '../harness/index.ts';

const world = await World.open();
after(() => world.close());

const HEAD: [string, string][] = [
  ['User-Agent', 'Open AnyConnect VPN Agent v9.01'],
  ['X-Aggregate-Auth', '1'],
];
const INIT = `<?xml version="1.0" encoding="UTF-8"?>
<config-auth client="vpn" type="init" aggregate-auth-version="2"><version who="vpn">v9.01</version><device-id>linux-64</device-id><group-access>https://192.0.2.1/</group-access></config-auth>`;

test('row 7: a request in records of one byte is read', async () => {
  const tls = await TlsClient.open({ lab: world.lab });
  for (const byte of formatRequest({ method: 'POST', path: '/', headers: HEAD, body: INIT })) {
    tls.write(Uint8Array.of(byte));
  }
  assert.equal(readStep(await tls.answer('POST')).type, 'auth-request');
  tls.close();
});

test('row 7: a head of 20 KiB and a body of 200 KiB are read', async () => {
  const long: [string, string] = ['X-Long', 'x'.repeat(7000)];
  const head = await send([...HEAD, long, ['X-Long2', long[1]], ['X-Long3', 'y'.repeat(6000)]], INIT);
  assert.equal(readStep(head).type, 'auth-request');
  const body = INIT.replace(
    '<group-access>',
    `<host-scan-reply>${'z'.repeat(200 * 1024)}</host-scan-reply><group-access>`,
  );
  assert.equal(readStep(await send(HEAD, body)).type, 'auth-request');
});

test('row 7: a head over 32 KiB is answered 431, a body over 256 KiB 413, and the connection closes', async () => {
  const long = Array.from({ length: 5 }, (_, index): [string, string] => [
    `X-Long${index}`,
    'x'.repeat(7000),
  ]);
  assert.equal((await send([...HEAD, ...long], INIT)).status, 431);
  const tls = await TlsClient.open({ lab: world.lab });
  tls.write(formatRequest({ method: 'POST', path: '/', headers: HEAD, body: INIT.padEnd(257 * 1024) }));
  assert.equal((await tls.answer('POST')).status, 413);
  assert.ok(await tls.closedByPeer());
});

test('answers carry a length and name neither software nor version', async () => {
  for (const path of ['/', '/nothing-here', '/1/binaries/update.txt']) {
    const tls = await TlsClient.open({ lab: world.lab });
    const answer = await tls.request({ method: 'GET', path, headers: HEAD });
    assert.match(answer.head, /\r\nContent-Length: \d+\r\n/);
    assert.doesNotMatch(answer.head, /server:|x-powered-by|sallyport|node/i);
    tls.close();
  }
});

test('a connection serves one request after another, with pauses', async () => {
  const tls = await TlsClient.open({ lab: world.lab });
  for (let round = 0; round < 3; round++) {
    assert.equal(
      readStep(await tls.request({ method: 'POST', path: '/', headers: HEAD, body: INIT })).authId,
      'main',
    );
    await sleep(50);
  }
  tls.close();
});

async function send(headers: [string, string][], body: string): Promise<HttpAnswer> {
  const tls = await TlsClient.open({ lab: world.lab });
  try {
    return await tls.request({ method: 'POST', path: '/', headers, body });
  } finally {
    tls.close();
  }
}
