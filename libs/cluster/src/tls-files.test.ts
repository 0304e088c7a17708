import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { TlsSettings } from './settings.ts';
import { certificateWarnings, EXPIRY_WARNING_MS } from './tls-files.ts';

const DAY_MS = 24 * 3600 * 1000;
const folder = mkdtempSync(join(tmpdir(), 'sallyport-tls-files-'));
after(() => rmSync(folder, { recursive: true }));

test('a server certificate is warned of before it ends, after it, and when it is that of a CA', async () => {
  const leaf = certificate('leaf', 'FALSE');
  const said = async (file: string, afterMs: number) =>
    (await certificateWarnings({ tls: tlsOf(file), vhosts: {} }, Date.now() + afterMs)).map((warning) => {
      assert.ok(warning.startsWith(`server-cert ${file} `), warning);
      return warning.slice(`server-cert ${file} `.length).split(/[:(]/)[0]?.trim();
    });
  assert.deepEqual(await said(leaf, 0), []);
  assert.deepEqual(await said(leaf, 30 * DAY_MS - EXPIRY_WARNING_MS - 3600_000), []);
  assert.deepEqual(await said(leaf, 30 * DAY_MS - EXPIRY_WARNING_MS + 3600_000), ['expires soon']);
  assert.deepEqual(await said(leaf, 31 * DAY_MS), ['has expired']);
  const [early] = await said(leaf, -DAY_MS);
  assert.match(early ?? '', /^is not valid before/);
  assert.deepEqual(await said(certificate('ca', 'TRUE'), 0), ['begins with the certificate of a CA']);
});

test('certificates of vhosts count, each file once', async () => {
  const file = certificate('both', 'TRUE');
  const vhosts = { 'a.test': { tls: tlsOf(file), profiles: [] } };
  assert.equal((await certificateWarnings({ tls: tlsOf(file), vhosts }, Date.now())).length, 1);
  assert.equal(
    (await certificateWarnings({ tls: tlsOf(join(folder, 'none')), vhosts }, Date.now())).length,
    1,
  );
});

function certificate(name: string, isCa: 'TRUE' | 'FALSE'): string {
  const file = join(folder, `${name}.pem`);
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  const constraints = ['-addext', `basicConstraints=critical,CA:${isCa}`];
  const out = ['-keyout', join(folder, `${name}.key`), '-out', file];
  execFileSync(
    'openssl',
    ['req', '-x509', '-days', '30', '-subj', `/CN=${name}`, ...key, ...constraints, ...out],
    {
      stdio: 'ignore',
    },
  );
  return file;
}

function tlsOf(file: string): TlsSettings {
  return {
    ...{ certFiles: [file], keyFiles: [], caFile: '', crlFile: '' },
    ...{ minVersion: 'TLSv1.2', maxVersion: 'TLSv1.3' },
  };
}
