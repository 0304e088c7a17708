import assert from 'node:assert/strict';
import { test } from 'node:test';
import { exchangesOf, headersOf, tlsOf } from './wire.ts';

const OUTPUT = `POST https://192.0.2.1/
Connected to 192.0.2.1:443
Connected to HTTPS on 192.0.2.1 with ciphersuite (TLS1.3)-(ECDHE-SECP256R1)-(ECDSA-SECP256R1-SHA256)-(AES-256-GCM)
> POST / HTTP/1.1
> Host: 192.0.2.1
> X-Aggregate-Auth: 1
>
> <?xml version="1.0"?>
> <config-auth type="init"/>
GROUP: [Staff|Guests]:Got HTTP response: HTTP/1.1 200 OK
Content-Type: text/xml; charset=utf-8
Set-Cookie: webvpncontext=abc; path=/
HTTP body length:  (20)
< <config-auth
<   type="auth-request"/>
Please enter your password.
> CONNECT /CSCOSSLC/tunnel HTTP/1.1
> Cookie: webvpn=secret
>
Got CONNECT response: HTTP/1.1 200 CONNECTED
X-CSTP-Address: 10.77.0.2
CSTP connected. DPD 20, Keepalive 20
`;

test('requests and answers are read from the output of openconnect', () => {
  const [first, second, ...more] = exchangesOf(OUTPUT);
  assert.deepEqual(more, []);
  assert.equal(first?.requestBody, '<?xml version="1.0"?>\n<config-auth type="init"/>\n');
  assert.deepEqual(first.requestHeaders, [
    ['Host', '192.0.2.1'],
    ['X-Aggregate-Auth', '1'],
  ]);
  assert.equal(first.status, 200);
  assert.deepEqual(headersOf(first.headers, 'set-cookie'), ['webvpncontext=abc; path=/']);
  assert.equal(first.body, '<config-auth\n  type="auth-request"/>\n');
  assert.equal(second?.method, 'CONNECT');
  assert.deepEqual(second.headers, [['X-CSTP-Address', '10.77.0.2']]);
  assert.equal(tlsOf(OUTPUT), 'TLS 1.3, AES-256-GCM');
});
