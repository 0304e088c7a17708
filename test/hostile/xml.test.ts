import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { formatRequest, readStep, TlsClient, World, type HttpAnswer } from '../harness/index.ts';
import { survives } from './survives.ts';

const world = await World.open();
after(() => world.close());

const OPEN = '<config-auth client="vpn" type="init" aggregate-auth-version="2">';
const INIT = `${OPEN}<version who="vpn">1</version></config-auth>`;
const MALFORMED = { counter: 'sallyport_http_refusals_total', labels: { cause: 'malformed' } };

test('V1: unexpected, repeated, nested and unclosed elements are answered, and the connection goes on', async () => {
  const documents = [
    `${OPEN}${'<host-scan-reply>x</host-scan-reply>'.repeat(500)}</config-auth>`,
    `${OPEN}<opaque is-for="sg"><opaque is-for="sg"><opaque/></opaque></opaque><opaque/></config-auth>`,
    `${OPEN}<auth><username>a</username><username>b</username></auth><auth/></config-auth>`,
    INIT.replace('init', 'host-scan-reply'),
    INIT.replace('init', 'complete'),
    INIT.replace('init', 'hello'),
    INIT.replace('type="init"', ''),
    INIT.replace('type="init"', 'type="init" type="logout"'),
    '<config-auth type="auth-reply"/>',
    '<config-auth type="logout"/>',
    `${OPEN}<group-select>`,
    `${OPEN}<a><b></a></b></config-auth>`,
    '<config-auth',
    '<',
    '</config-auth>',
    `${INIT}${INIT}`,
  ];
  await survives(
    world,
    async () => {
      for (const body of documents) {
        const answer = await post(body);
        assert.ok([200, 400].includes(answer.status), `${answer.status} to ${body.slice(0, 60)}`);
        if (answer.status === 200 && answer.body.length > 0)
          assert.notEqual(readStep(answer).authId, 'success');
      }
      const tls = await TlsClient.open({ lab: world.lab });
      for (let round = 0; round < 20; round++) {
        assert.equal(readStep(await tls.request(request(INIT))).authId, 'main');
      }
      tls.write(formatRequest(request(INIT)).subarray(0, -20));
      tls.close();
    },
    MALFORMED,
  );
});

test('V2: DTDs, entities, other encodings, depth and size are refused', async () => {
  const bomb = Array.from(
    { length: 10 },
    (_, index) => `<!ENTITY l${index + 1} "${`&l${index};`.repeat(10)}">`,
  ).join('');
  const documents: [string, string | Buffer][] = [
    [
      'billion laughs',
      `<!DOCTYPE c [<!ENTITY l0 "ha">${bomb}]>${OPEN}<group-select>&l10;</group-select></config-auth>`,
    ],
    [
      'external entity',
      `<!DOCTYPE c [<!ENTITY x SYSTEM "file:///etc/passwd">]>${OPEN}<group-select>&x;</group-select></config-auth>`,
    ],
    ['parameter entity', `<!DOCTYPE c [<!ENTITY % p SYSTEM "http://192.0.2.2/x">%p;]>${INIT}`],
    ['DOCTYPE in lower case', `<!doctype c>${INIT}`],
    ['DOCTYPE after a comment', `<!-- x --><!DOCTYPE c>${INIT}`],
    ['unknown entity', `${OPEN}<group-select>&nobody;</group-select></config-auth>`],
    ['UTF-16', Buffer.from(`\ufeff<?xml version="1.0" encoding="UTF-16"?>${INIT}`, 'utf16le')],
    ['100,000 levels', `${OPEN}${'<a>'.repeat(60_000)}`],
    ['40 levels', `${OPEN}${'<a>'.repeat(40)}${'</a>'.repeat(40)}</config-auth>`],
    ['many elements', `${OPEN}${'<a/>'.repeat(50_000)}</config-auth>`],
    ['a long attribute', `${OPEN}<a b="${'x'.repeat(300_000)}"/></config-auth>`],
    ['NUL', `${OPEN}<group-select>a\0b</group-select></config-auth>`],
    [
      'bytes that are no UTF-8',
      Buffer.concat([
        Buffer.from(`${OPEN}<group-select>`),
        Buffer.from([0xc0, 0x80, 0xff]),
        Buffer.from('</group-select></config-auth>'),
      ]),
    ],
  ];
  await survives(
    world,
    async () => {
      for (const [what, body] of documents) {
        const answer = await post(body);
        const refused = answer.status === 400 || answer.status === 413;
        // Bytes that do not begin with '<' are no XML; they get the form of the other dialect.
        const formOnly = answer.status === 200 && !answer.body.toString().includes('success');
        assert.ok(refused || formOnly, `${what}: ${answer.status}`);
        assert.doesNotMatch(answer.body.toString(), /root:|hahaha/);
      }
    },
    { ...MALFORMED, atLeast: 5 },
  );
});

function request(body: string | Buffer) {
  return { method: 'POST', path: '/', headers: [['X-Aggregate-Auth', '1'] as const], body };
}

async function post(body: string | Buffer): Promise<HttpAnswer> {
  const tls = await TlsClient.open({ lab: world.lab });
  try {
    return await tls.request(request(body));
  } finally {
    tls.close();
  }
}
