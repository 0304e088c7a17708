import 'reflect-metadata';
import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import { test, type TestContext } from 'node:test';
import { SubjectAlternativeNameExtension, X509CertificateGenerator, type JsonName } from '@peculiar/x509';
import type { CertificateFacts } from '@sallyport/cluster';
import { begin, client, fakeAuth, formOf, grantedOf, line, PASSWORD, reply } from '../auth.fake.ts';
import { fakeProfile } from '../settings.fake.ts';
import { userOfCertificate } from './certificate.ts';

const UID = '0.9.2342.19200300.100.1.1';

test('the user stands in the field that is configured', async () => {
  const der = await certificate(
    [{ CN: ['alice'] }, { [UID]: ['u1'] }],
    [
      { type: 'dns', value: 'pc.example' },
      { type: 'email', value: 'alice@example.org' },
      { type: 'upn', value: 'alice@corp' },
    ],
  );
  assert.equal(userOfCertificate(der, 'CN'), 'alice');
  assert.equal(userOfCertificate(der, 'UID'), 'u1');
  assert.equal(userOfCertificate(der, 'SAN(rfc822name)'), 'alice@example.org');
  assert.equal(userOfCertificate(der, 'SAN(upn)'), 'alice@corp');
  assert.equal(userOfCertificate(await certificate([{ CN: ['Жанна, "x'] }]), 'CN'), 'Жанна, "x');
});

test('a missing, empty, doubled or odd field names nobody', async () => {
  const subjects: [string, JsonName][] = [
    ['missing', [{ O: ['x'] }]],
    ['empty', [{ [UID]: [''] }]],
    ['two in one', [{ [UID]: ['alice', 'bob'] }]],
    ['two', [{ [UID]: ['alice'] }, { [UID]: ['alice'] }]],
    ['NUL', [{ [UID]: ['alice\0.evil'] }]],
    ['line feed', [{ [UID]: ['alice\nUID=bob'] }]],
    ['colon', [{ [UID]: ['alice:*'] }]],
    ['path', [{ [UID]: ['../../etc/passwd'] }]],
    ['too long', [{ [UID]: ['a'.repeat(65)] }]],
  ];
  for (const [name, subject] of subjects)
    assert.equal(userOfCertificate(await certificate(subject), 'UID'), '', name);

  const names: [string, { type: 'email' | 'upn' | 'dns'; value: string }[]][] = [
    ['other kinds only', [{ type: 'dns', value: 'alice' }]],
    ['empty', [{ type: 'email', value: '' }]],
    [
      'two',
      [
        { type: 'email', value: 'a@b' },
        { type: 'email', value: 'c@d' },
      ],
    ],
    ['NUL', [{ type: 'email', value: 'a@b\0' }]],
    ['pretends inside a UPN', [{ type: 'upn', value: 'x, email:root@b' }]],
  ];
  for (const [name, san] of names) {
    assert.equal(userOfCertificate(await certificate([{ O: ['x'] }], san), 'SAN(rfc822name)'), '', name);
  }
  assert.equal(userOfCertificate(new Uint8Array([0x30, 0x03, 1, 2, 3]), 'CN'), '');
});

test('with certificates only there is no form: granted at once, asked for, or refused', async (t) => {
  const { auth, sessions } = await started(t, ['certificate']);
  const alice = await facts('alice');
  const granted = grantedOf(await auth.begin(begin({ client: client({ certificate: alice }) })));
  assert.equal(granted.user, 'alice');
  assert.equal((await auth.lookup({ token: granted.token })).live, true);

  assert.deepEqual(await auth.begin(begin()), { certificateRequest: { loginId: '', profile: 'staff' } });
  assert.equal(
    (await auth.begin(begin({ certificateFailed: true }))).refused?.reason,
    'certificate-required',
  );
  const expired = { ...alice, verified: false, problem: 'expired' };
  const refused = await auth.begin(begin({ client: client({ certificate: expired }) }));
  assert.equal(refused.refused?.reason, 'certificate-invalid');
  assert.equal((await sessions.list()).length, 1);
});

test('a locked user is refused with a certificate too, an unlisted one is not', async (t) => {
  const { auth } = await started(t, ['certificate']);
  const as = async (name: string) =>
    auth.begin(begin({ client: client({ certificate: await facts(name) }) }));
  assert.equal((await as('lena')).refused?.reason, 'login-failed');
  assert.equal(grantedOf(await as('zoe')).user, 'zoe');
});

for (const methods of [
  ['certificate', 'local'],
  ['local', 'certificate'],
]) {
  test(`certificate and password must name the same user: ${methods.join(', ')}`, async (t) => {
    const { auth, sessions } = await started(t, methods);
    const withAlice = client({ certificate: await facts('alice') });
    const form = formOf(await auth.begin(begin({ client: withAlice })));
    assert.equal(form.fields.find((field) => field.name === 'username')?.value, 'alice');

    const mine = { username: 'alice', password: PASSWORD };
    const other = { username: 'bob', password: PASSWORD };
    const guess = formOf(
      await auth.reply(reply(form, { ...other, password: 'wrong' }, { client: withAlice })),
    );
    assert.equal(
      guess.error,
      'Login failed.',
      'nothing is said about the certificate before the password is right',
    );
    const mixed = await auth.reply(reply(guess, other, { client: withAlice }));
    assert.equal(mixed.refused?.reason, 'certificate-user-mismatch');
    assert.equal((await sessions.list()).length, 0);

    const second = formOf(await auth.begin(begin({ client: withAlice })));
    const swapped = client({ certificate: await facts('bob') });
    const other2 = await auth.reply(reply(second, mine, { client: swapped }));
    assert.equal(
      other2.refused?.reason,
      'certificate-user-mismatch',
      "another user's certificate with the reply",
    );

    const third = formOf(await auth.begin(begin({ client: withAlice })));
    assert.equal(
      grantedOf(await auth.reply(reply(third, mine))).user,
      'alice',
      'a reply on a connection without one',
    );
  });
}

test('a password does not make up for a certificate that is missing or names nobody', async (t) => {
  const { auth, sessions, state } = await started(t, ['certificate', 'local']);
  assert.ok((await auth.begin(begin())).certificateRequest);
  const answers = { username: 'alice', password: PASSWORD };
  const posted = await auth.reply({ loginId: '', profile: '', client: client(), answers });
  assert.equal(posted.refused?.reason, 'certificate-required');
  state.settings = { ...state.settings, certUserField: 'UID' };
  const nameless = client({ certificate: await facts('alice') });
  const refused = await auth.begin(begin({ client: nameless }));
  assert.equal(refused.refused?.reason, 'certificate-user-missing');
  assert.equal((await sessions.list()).length, 0);
});

test('methods that change while a login is under way void it', async (t) => {
  const { auth, state } = await started(t, ['local']);
  const form = formOf(await auth.begin(begin()));
  state.settings = {
    ...state.settings,
    profiles: { staff: fakeProfile('staff', { methods: ['certificate', 'local'] }) },
  };
  const refused = await auth.reply(reply(form, { username: 'alice', password: PASSWORD }));
  assert.equal(refused.refused?.reason, 'login-expired');
});

test('who has no certificate sees a form if he chose nothing and another profile needs none', async (t) => {
  const { auth, state } = await started(t, ['certificate']);
  state.settings = { ...state.settings, profiles: { ...state.settings.profiles, pw: fakeProfile('pw') } };
  assert.ok((await auth.begin(begin())).certificateRequest);
  assert.equal(formOf(await auth.begin(begin({ certificateFailed: true }))).profile.name, 'pw');
  const chosen = await auth.begin(begin({ profile: 'staff', certificateFailed: true }));
  assert.equal(chosen.refused?.reason, 'certificate-required');
});

async function started(t: TestContext, methods: string[]) {
  const users =
    (await line('alice', '*')) + (await line('bob', '*')) + (await line('lena', '*', { locked: true }));
  const fake = await fakeAuth({
    users,
    settings: { profiles: { staff: fakeProfile('staff', { methods }) } },
  });
  t.after(() => fake.close());
  return fake;
}

async function facts(name: string): Promise<CertificateFacts> {
  return { verified: true, problem: '', der: await certificate([{ CN: [name] }]) };
}

async function certificate(
  name: JsonName,
  san: { type: 'email' | 'upn' | 'dns'; value: string }[] = [],
): Promise<Uint8Array> {
  const keys = await webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, [
    'sign',
    'verify',
  ]);
  const made = await X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: '01',
      name,
      notBefore: new Date(0),
      notAfter: new Date(4e12),
      signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
      keys,
      extensions: san.length > 0 ? [new SubjectAlternativeNameExtension(san)] : [],
    },
    webcrypto,
  );
  return new Uint8Array(made.rawData);
}
