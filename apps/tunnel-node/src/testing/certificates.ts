import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { HostCertificates } from '../listener.ts';

export interface KeyFiles {
  cert: string;
  key: string;
}

/** Certificates for tests, made by openssl in a folder of their own; `remove` it. */
export class TestCertificates {
  readonly folder = mkdtempSync(join(tmpdir(), 'sallyport-tls-'));
  readonly ca = this.selfSigned('ca', 'ec', ['-addext', 'keyUsage=critical,keyCertSign,cRLSign']);

  constructor() {
    writeFileSync(this.at('index.txt'), '');
    writeFileSync(this.at('serial'), '1000\n');
    writeFileSync(this.at('crlnumber'), '01\n');
    writeFileSync(this.at('ca.cnf'), this.#configuration());
  }

  at(file: string): string {
    return join(this.folder, file);
  }

  selfSigned(name: string, type: 'rsa' | 'ec', more: string[] = []): KeyFiles {
    const files = { cert: this.at(`${name}.pem`), key: this.at(`${name}.key`) };
    const key = type === 'rsa' ? ['rsa:2048'] : ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];
    this.#openssl('req', '-x509', '-newkey', ...key, '-nodes', '-days', '30', '-subj', `/CN=${name}`, ...more,
      '-keyout', files.key, '-out', files.cert); // prettier-ignore
    return files;
  }

  /** A client certificate of the CA. @param validity openssl's `-startdate` and `-enddate`. */
  client(name: string, validity: string[] = ['-days', '30']): KeyFiles {
    const files = { cert: this.at(`${name}.pem`), key: this.at(`${name}.key`) };
    this.#openssl('req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj',
      `/CN=${name}`, '-keyout', files.key, '-out', this.at(`${name}.csr`)); // prettier-ignore
    this.#openssl('ca', '-batch', '-config', this.at('ca.cnf'), '-notext', ...validity, '-in', this.at(`${name}.csr`),
      '-out', files.cert); // prettier-ignore
    return files;
  }

  /** @returns PEM file of a CRL that names these certificates. */
  revoke(...certificates: KeyFiles[]): string {
    for (const { cert } of certificates) this.#openssl('ca', '-config', this.at('ca.cnf'), '-revoke', cert);
    const file = this.at('crl.pem');
    this.#openssl('ca', '-config', this.at('ca.cnf'), '-gencrl', '-crldays', '30', '-out', file);
    return file;
  }

  host(pairs: KeyFiles[], more: { ca?: string; crl?: string } = {}): HostCertificates {
    return {
      pairs: pairs.map(({ cert, key }) => ({ cert: readFileSync(cert), key: readFileSync(key) })),
      ca: more.ca === undefined ? undefined : readFileSync(more.ca),
      crl: more.crl === undefined ? undefined : readFileSync(more.crl),
      minVersion: 'TLSv1.2',
      maxVersion: 'TLSv1.3',
    };
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  #openssl(...args: string[]): void {
    execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  }

  #configuration(): string {
    return [
      '[ca]\ndefault_ca = test',
      `[test]\ndir = ${this.folder}`,
      'database = $dir/index.txt\nserial = $dir/serial\ncrlnumber = $dir/crlnumber\nnew_certs_dir = $dir',
      'certificate = $dir/ca.pem\nprivate_key = $dir/ca.key\ndefault_md = sha256\npolicy = any\nx509_extensions = client',
      '[any]\ncommonName = supplied',
      '[client]\nextendedKeyUsage = clientAuth\nbasicConstraints = CA:FALSE\n',
    ].join('\n');
  }
}
