import { createHash, X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './run.ts';

export interface KeyPair {
  cert: string;
  key: string;
}

/** A certificate authority in a folder, made with openssl. Paths of PEM files come back. */
export class Authority {
  private constructor(
    private readonly folder: string,
    readonly ca: KeyPair,
  ) {}

  static async create(folder: string, name = 'Test CA'): Promise<Authority> {
    mkdirSync(folder, { recursive: true });
    const ca = { cert: join(folder, 'ca.pem'), key: join(folder, 'ca.key') };
    await run([
      ...[
        'openssl',
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:P-256',
        '-nodes',
        '-days',
        '30',
      ],
      ...['-subj', `/CN=${name}`, '-keyout', ca.key, '-out', ca.cert],
      ...['-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign'],
    ]);
    return new Authority(folder, ca);
  }

  /** @param type `rsa` = RSA-2048, `ecdsa` = P-256. */
  server(type: 'rsa' | 'ecdsa', name: string, addresses: readonly string[]): Promise<KeyPair> {
    const names = [`DNS:${name}`, ...addresses.map((address) => `IP:${address}`)];
    return this.#issue(`server-${type}`, `/CN=${name}`, type, [
      `subjectAltName=${names.join(',')}`,
      'extendedKeyUsage=serverAuth',
    ]);
  }

  /**
   * @param subject openssl's form, `/UID=alice/CN=Alice`; `/` = empty.
   * @param san e.g. `email:alice@example.test`, `otherName:1.3.6.1.4.1.311.20.2.3;UTF8:alice@example.test`
   */
  client(file: string, subject: string, san?: string): Promise<KeyPair> {
    return this.#issue(file, subject, 'ecdsa', [
      'extendedKeyUsage=clientAuth',
      ...(san === undefined ? [] : [`subjectAltName=${san}`]),
    ]);
  }

  async #issue(file: string, subject: string, type: 'rsa' | 'ecdsa', extensions: string[]): Promise<KeyPair> {
    const at = (suffix: string) => join(this.folder, `${file}.${suffix}`);
    const key =
      type === 'rsa' ? ['-newkey', 'rsa:2048'] : ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];
    writeFileSync(at('cnf'), '[req]\ndistinguished_name=dn\nstring_mask=utf8only\n[dn]\n');
    writeFileSync(at('ext'), ['basicConstraints=CA:FALSE', ...extensions, ''].join('\n'));
    await run([
      ...['openssl', 'req', '-new', '-utf8', '-config', at('cnf'), ...key, '-nodes', '-subj', subject],
      ...['-keyout', at('key'), '-out', at('csr')],
    ]);
    await run([
      ...['openssl', 'x509', '-req', '-in', at('csr'), '-CA', this.ca.cert, '-CAkey', this.ca.key],
      ...[
        '-set_serial',
        String(Date.now() * 1000 + serial++),
        '-days',
        '30',
        '-extfile',
        at('ext'),
        '-out',
        at('pem'),
      ],
    ]);
    return { cert: at('pem'), key: at('key') };
  }
}

/** openconnect's form of a pin: `pin-sha256:BASE64` over the SubjectPublicKeyInfo. */
export function pinOf(certFile: string): string {
  const spki = new X509Certificate(readFileSync(certFile)).publicKey.export({ type: 'spki', format: 'der' });
  return `pin-sha256:${createHash('sha256').update(spki).digest('base64')}`;
}

/** SHA-1 of the DER, 40 upper-case hex digits, as in `server-cert-hash`. */
export function sha1Of(certFile: string): string {
  return sha1Hex(new X509Certificate(readFileSync(certFile)).raw);
}

export function sha1Hex(bytes: Uint8Array): string {
  return createHash('sha1').update(bytes).digest('hex').toUpperCase();
}

/** A line of a users file as ocpasswd writes it, with a SHA-256 crypt hash. */
export async function userLine(
  name: string,
  password: string,
  groups: readonly string[] = [],
): Promise<string> {
  const { stdout } = await run(['openssl', 'passwd', '-5', '-stdin'], { input: `${password}\n` });
  return `${name}:${groups.length === 0 ? '*' : groups.join(',')}:${stdout.trim()}\n`;
}

let serial = 1;
