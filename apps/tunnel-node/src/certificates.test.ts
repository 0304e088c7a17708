import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import type { TlsSettings } from '@sallyport/cluster';
import { CertificateError, loadCertificates } from './certificates.ts';
import { TestCertificates, type KeyFiles } from './testing/certificates.ts';

describe('loadCertificates', () => {
  let files: TestCertificates;
  let rsa: KeyFiles;
  let ecdsa: KeyFiles;
  let crl: string;

  before(() => {
    files = new TestCertificates();
    rsa = files.selfSigned('rsa', 'rsa');
    ecdsa = files.selfSigned('ecdsa', 'ec');
    crl = files.revoke();
    writeFileSync(files.at('garbage'), 'not PEM');
  });
  after(() => files.remove());

  it('reads RSA and ECDSA together, CAs, a CRL in both forms, and virtual hosts', async () => {
    const der = files.at('crl.der');
    execFileSync('openssl', ['crl', '-in', crl, '-outform', 'DER', '-out', der]);
    for (const crlFile of [crl, der]) {
      const loaded = await loadCertificates({
        tls: settings({
          certFiles: [rsa.cert, ecdsa.cert],
          keyFiles: [rsa.key, ecdsa.key],
          caFile: files.ca.cert,
          crlFile,
        }),
        vhosts: { 'VPN.example.test': { tls: settings(), profiles: [] } },
      });
      assert.deepEqual([...loaded.hosts.keys()], ['', 'vpn.example.test']);
      assert.equal(loaded.hosts.get('')?.pairs.length, 2);
      assert.match(loaded.hosts.get('')?.crl?.toString() ?? '', /^-----BEGIN X509 CRL-----/);
    }
  });

  it('refuses each bad file by its name', async () => {
    const encrypted = files.at('encrypted.key');
    execFileSync(
      'openssl',
      ['ec', '-in', ecdsa.key, '-aes256', '-passout', 'pass:secret', '-out', encrypted],
      { stdio: 'ignore' },
    );
    const garbage = files.at('garbage');
    for (const [changed, message] of [
      [{ certFiles: [] }, /^server-cert: no certificate/],
      [{ certFiles: [files.at('missing')] }, /missing: cannot be read \(ENOENT\)/],
      [{ certFiles: [garbage] }, /garbage: no PEM certificate/],
      [{ keyFiles: [garbage] }, /garbage: no PEM private key/],
      [{ keyFiles: [encrypted] }, /encrypted\.key: no PEM private key in it, or it is encrypted/],
      [{ keyFiles: [rsa.key] }, /rsa\.key: this is not the key of .*ecdsa\.pem/],
      [{ certFiles: [ecdsa.cert, rsa.cert] }, /each certificate needs its key/],
      [{ caFile: garbage }, /garbage: no PEM certificate/],
      [{ caFile: files.ca.cert, crlFile: garbage }, /garbage: no certificate revocation list/],
      [{ crlFile: crl }, /crl\.pem: a CRL needs a ca-cert/],
    ] as const) {
      const attempt = loadCertificates({ tls: settings({ ...changed } as Partial<TlsSettings>), vhosts: {} });
      await assert.rejects(
        attempt,
        (error) => error instanceof CertificateError && message.test(error.message),
      );
    }
  });

  function settings(changed: Partial<TlsSettings> = {}): TlsSettings {
    return {
      certFiles: [ecdsa.cert],
      keyFiles: [ecdsa.key],
      caFile: '',
      crlFile: '',
      minVersion: 'TLSv1.2',
      maxVersion: 'TLSv1.3',
      ...changed,
    };
  }
});
