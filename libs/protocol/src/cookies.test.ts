import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  clearCookie,
  formatContextCookie,
  formatHintsCookie,
  formatTokenCookie,
  MAX_COOKIE_VALUE_LENGTH,
  MAX_COOKIES,
  parseCookies,
} from './index.ts';

const hash = 'CEEFB74C4F62234EDFD0042A696F526951AF3792';

test('our cookies are found among others, in any order', () => {
  assert.deepEqual(
    parseCookies('sdesktop=1; webvpn=a-b_c=; webvpnc=bu:/; webvpncontext=q/9+Z==;sdesktop=2'),
    {
      webvpn: 'a-b_c=',
      webvpncontext: 'q/9+Z==',
    },
  );
  for (const none of [
    '',
    ';;;',
    '=x',
    'webvpn',
    'Webvpn=a',
    'webvpnx=a',
    'webvpn=',
    'webvpn=a b',
    'webvpn="a"',
    'webvpn=a,b',
  ])
    assert.deepEqual(parseCookies(none), { webvpn: '', webvpncontext: '' }, none);
});

test('of a name that comes twice the first counts, also when it is no good', () => {
  assert.equal(parseCookies('webvpn=a; webvpn=b').webvpn, 'a');
  assert.equal(parseCookies('webvpn=; webvpn=b').webvpn, '');
  assert.equal(parseCookies('webvpn=<; webvpn=b').webvpn, '');
});

test('oversized values and floods of cookies are as good as none', () => {
  const value = (length: number) => parseCookies(`webvpncontext=${'A'.repeat(length)}`).webvpncontext.length;
  assert.equal(value(MAX_COOKIE_VALUE_LENGTH), MAX_COOKIE_VALUE_LENGTH);
  assert.equal(value(MAX_COOKIE_VALUE_LENGTH + 1), 0);
  assert.equal(value(1_000_000), 0);
  assert.equal(parseCookies(`${'a=1;'.repeat(MAX_COOKIES - 1)}webvpn=x`).webvpn, 'x');
  assert.equal(parseCookies(`${'a=1;'.repeat(MAX_COOKIES)}webvpn=x`).webvpn, '');
  assert.equal(parseCookies(`${'a=1;'.repeat(4096)}webvpn=x`).webvpn, '');
});

test('cookies we set are those that clients know', () => {
  assert.equal(formatContextCookie('q_3'), 'webvpncontext=q_3; Path=/; Secure; HttpOnly');
  assert.equal(formatTokenCookie('t-1'), 'webvpn=t-1; Path=/; Secure; HttpOnly');
  assert.equal(clearCookie('webvpnc'), 'webvpnc=; Expires=Thu, 01 Jan 1970 22:00:00 GMT; Path=/; Secure');
  assert.equal(
    formatHintsCookie({
      serverCertificateSha1: hash,
      profileUri: '/CACHE/stc/profiles/eng.xml',
      profileSha1: hash,
    }),
    `webvpnc=bu:/&p:t&iu:1/&sh:${hash}&lu:/+CSCOT+/translation-table?textdomain%3DAnyConnect%26type%3Dmanifest` +
      `&fu:profiles%2Feng.xml&fh:${hash}; Path=/; Secure`,
  );
  assert.equal(
    formatHintsCookie({ serverCertificateSha1: hash, profileUri: '', profileSha1: '' }).includes('fu:'),
    false,
  );
});

test('what is set is read back', () => {
  const token = 'Zk0-_'.repeat(8);
  assert.equal(parseCookies(formatTokenCookie(token)).webvpn, token);
  assert.equal(parseCookies(formatContextCookie(token)).webvpncontext, token);
});
