import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { readSettings, type TlsSettings } from '@sallyport/cluster';
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

  it('takes what the check of a configuration takes, and nothing else', async () => {
    const der = files.at('checked.der');
    execFileSync('openssl', ['crl', '-in', crl, '-outform', 'DER', '-out', der]);
    const garbage = files.at('garbage');
    for (const [crlFile, good] of [
      [crl, true],
      [der, true],
      [garbage, false],
    ] as const) {
      const file = files.at('sallyport.yaml');
      const lines = [
        ...[`server-cert: ${ecdsa.cert}`, `server-key: ${ecdsa.key}`, `ca-cert: ${files.ca.cert}`],
        ...[`crl: ${crlFile}`, 'ipv4-network: 10.90.0.0/16', 'profiles: { a: { methods: certificate } }'],
      ];
      writeFileSync(file, lines.join('\n'));
      const read = await readSettings(file);
      const errors = 'errors' in read ? read.errors.map((error) => error.replace(`${file}:4: `, '')) : [];
      const loaded = await loadCertificates({
        tls: settings({ caFile: files.ca.cert, crlFile }),
        vhosts: {},
      }).then(
        () => [],
        (error: unknown) => [String(error).replace(/^CertificateError: (.*)\.$/, '$1')],
      );
      assert.deepEqual(errors, loaded);
      assert.equal(errors.length, good ? 0 : 1);
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
      [{ certFiles: [] }, /^no server-cert is configured\.$/],
      [{ certFiles: [files.at('missing')] }, /^server-cert .*missing does not exist\.$/],
      [{ certFiles: [garbage] }, /^server-cert .*garbage holds no PEM certificate/],
      [{ keyFiles: [garbage] }, /^server-key .*garbage holds no PEM private key/],
      [{ keyFiles: [encrypted] }, /encrypted\.key holds no PEM private key, or it is encrypted/],
      [{ keyFiles: [rsa.key] }, /rsa\.key is not the key of server-cert .*ecdsa\.pem/],
      [{ certFiles: [ecdsa.cert, rsa.cert] }, /each certificate needs its key/],
      [{ caFile: garbage }, /^ca-cert .*garbage holds no PEM certificate/],
      [{ caFile: files.ca.cert, crlFile: garbage }, /^crl .*garbage holds no certificate revocation list/],
      [{ crlFile: crl }, /crl\.pem needs ca-cert/],
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
