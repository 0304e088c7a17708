import { X509Certificate } from 'node:crypto';
import type { Settings } from '@sallyport/cluster';
import { markOf, type Directory } from '../directory.ts';
import type { Method, MethodContext, MethodResult } from '../method.ts';
import { userNameProblem } from '../names.ts';

/**
 * A client certificate that the edge has verified; the user stands in the field `cert-user-field`.
 * Exactly one value, or nobody: a certificate without the field, with an empty or a doubled one, or with a name that
 * is no name (NUL, control characters) is refused, whatever else the profile asks for.
 */
export class CertificateMethod implements Method {
  readonly name = 'certificate';
  readonly fields = [];
  readonly message = '';
  readonly #directory: Directory;
  readonly #settings: () => Pick<Settings, 'certUserField'>;

  constructor(directory: Directory, settings: () => Pick<Settings, 'certUserField'>) {
    this.#directory = directory;
    this.#settings = settings;
  }

  async verify(context: MethodContext): Promise<MethodResult> {
    const { certificate } = context.client;
    if (!certificate) return { type: 'refused', reason: 'certificate-required', user: '' };
    if (!certificate.verified) return { type: 'refused', reason: 'certificate-invalid', user: '' };
    const user = userOfCertificate(certificate.der, this.#settings().certUserField);
    if (user === '') return { type: 'refused', reason: 'certificate-user-missing', user: '' };
    const record = this.#directory.find(user);
    if (record?.locked) return { type: 'refused', reason: 'login-failed', cause: 'user-locked', user };
    return { type: 'proven', user, mark: markOf(record) };
  }
}

/** @param der the leaf. @returns '' = the certificate names no user, or not clearly one. */
export function userOfCertificate(der: Uint8Array, field: Settings['certUserField']): string {
  let values: string[];
  try {
    const certificate = new X509Certificate(der);
    values =
      field === 'CN' || field === 'UID'
        ? subjectValues(certificate, field)
        : alternativeNames(
            certificate.subjectAltName ?? '',
            field === 'SAN(upn)' ? UPN_PREFIX : EMAIL_PREFIX,
          );
  } catch {
    // Fail closed: what cannot be read names nobody.
    return '';
  }
  const [value = '', ...more] = values;
  return more.length === 0 && userNameProblem(value) === '' ? value : '';
}

function subjectValues(certificate: X509Certificate, field: 'CN' | 'UID'): string[] {
  const subject: unknown = certificate.toLegacyObject().subject;
  if (typeof subject !== 'object' || subject === null) return [];
  const value = new Map<string, unknown>(Object.entries(subject)).get(field);
  // A field that stands several times comes as a list.
  const values: unknown[] = Array.isArray(value) ? value : value === undefined ? [] : [value];
  return values.map((one) => (typeof one === 'string' ? one : ''));
}

/**
 * The values of one kind in Node's text form of a SAN: `KIND:VALUE, KIND:VALUE`. Node puts a value with any odd
 * character into a JSON string (othername: `othername:"UPN:…"`), so neither a comma nor a NUL can pretend to be
 * another name.
 */
function alternativeNames(text: string, prefix: string): string[] {
  const values: string[] = [];
  let rest = text;
  while (rest !== '') {
    const match = ONE_NAME.exec(rest);
    if (!match) throw new Error('alternative names cannot be read');
    rest = rest.slice(match[0].length);
    const [, kind = '', quoted, plain = ''] = match;
    const name = `${kind}:${quoted === undefined ? plain : String(JSON.parse(quoted))}`;
    if (name.startsWith(prefix)) values.push(name.slice(prefix.length));
  }
  return values;
}

const EMAIL_PREFIX = 'email:';
const UPN_PREFIX = 'othername:UPN:';
const ONE_NAME = /^([A-Za-z ]+):(?:("(?:[^"\\]|\\.)*")|([^",]*))(?:, |$)/;
