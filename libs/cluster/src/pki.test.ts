import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { X509Certificate } from 'node:crypto';
import { loadPeerMaterial, mayCome, rolesOf } from './peers.ts';
import { initAuthority, issueCertificate, listCertificates, PkiError, renewCertificates } from './pki.ts';

let folder = '';
before(async () => {
  folder = join(await mkdtemp(join(tmpdir(), 'sallyport-ca-')), 'pki');
  await initAuthority(folder, { cluster: 'eu', days: 100 });
});
after(() => rm(join(folder, '..'), { recursive: true }));

test('a certificate names roles and hosts, is signed by the CA, and its key is for its owner only', async () => {
  const made = await issueCertificate(folder, {
    ...{ name: 'n1', roles: ['tunnel-node', 'auth'], hosts: ['n1.example.org', '192.0.2.1', '2001:db8::1'] },
    days: 30,
  });
  assert.deepEqual(made.roles.sort(), ['auth', 'tunnel-node']);
  assert.deepEqual(made.hosts.slice(0, 2), ['n1.example.org', '192.0.2.1']);
  const leaf = new X509Certificate(await readFile(made.file));
  const ca = new X509Certificate(await readFile(join(folder, 'ca.pem')));
  assert.ok(leaf.verify(ca.publicKey) && leaf.checkIssued(ca) && ca.ca && !leaf.ca);
  for (const key of ['ca.key', 'n1.key']) assert.equal((await stat(join(folder, key))).mode & 0o777, 0o600);
  await loadPeerMaterial(files('n1'));
});

test('a second CA, a foreign role and a name that is a path are refused, and change nothing', async () => {
  const before = await readFile(join(folder, 'ca.key'));
  await assert.rejects(initAuthority(folder, { cluster: 'eu' }), /There is a CA/);
  assert.deepEqual(await readFile(join(folder, 'ca.key')), before);
  for (const name of ['../n1', 'ca', '', 'a.b', '-x'])
    await assert.rejects(issueCertificate(folder, { name, roles: ['auth'], hosts: [], days: 1 }), PkiError);
  await assert.rejects(
    issueCertificate(folder, { name: 'x', roles: [], hosts: [], days: 1 }),
    /needs a role/,
  );
  const tooLong = { name: 'x', roles: ['auth'] as const, hosts: [], days: 101 };
  await assert.rejects(issueCertificate(folder, tooLong), /before this certificate would/);
  await assert.rejects(listCertificates(join(folder, 'nowhere')), PkiError);
});

test('renew issues what is in its last third, with the same names, and nothing else', async () => {
  const order = { name: 'p1', roles: ['portal'] as const, hosts: ['p1.example.org'], days: 30 };
  const first = await issueCertificate(folder, order);
  const day = 24 * 3600 * 1000;
  assert.deepEqual(await renewCertificates(folder, { now: Date.now() + 15 * day }), []);
  const renewed = await renewCertificates(folder, { now: Date.now() + 21 * day });
  assert.deepEqual(renewed.map(({ name }) => name).sort(), ['n1', 'p1']);
  const second = renewed.find(({ name }) => name === 'p1');
  assert.deepEqual([second?.roles, second?.hosts], [first.roles, first.hosts]);
  assert.notEqual(second?.serial, first.serial);
  assert.ok(Math.abs((second?.notAfter.getTime() ?? 0) - first.notAfter.getTime()) < 3600_000);
  const only = await renewCertificates(folder, { only: 'p1' });
  assert.deepEqual(
    only.map(({ name }) => name),
    ['p1'],
  );
  await assert.rejects(renewCertificates(folder, { only: 'nobody' }), /no certificate of nobody/);
});

test('roles are taken from names of our own domain only', () => {
  const named = (...names: string[]) => ({ subjectaltname: names.map((name) => `DNS:${name}`).join(', ') });
  assert.deepEqual(rolesOf(named('auth.sallyport.internal', 'a1.auth.sallyport.internal')), ['auth']);
  assert.deepEqual(rolesOf(named('auth.sallyport.internal.example.org', 'auth.example.org')), []);
  assert.deepEqual(rolesOf({}), []);
  const certificate = (text: string) => ({ subjectaltname: text }) as Parameters<typeof mayCome>[0];
  assert.equal(mayCome(certificate('DNS:portal.sallyport.internal'), ['auth']), false);
  assert.equal(mayCome(certificate('DNS:newer.sallyport.internal'), ['auth']), false);
  assert.equal(mayCome(certificate('DNS:host.example.org'), ['auth']), true);
});

test('files that cannot be used are named in one sentence', async () => {
  await issueCertificate(folder, { name: 'd1', roles: ['downloader'], hosts: [], days: 1 });
  await writeFile(join(folder, 'junk.key'), '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n');
  for (const [wrong, expected] of [
    [{ key: join(folder, 'p1.key') }, /p1\.key is not the key of/],
    [{ key: join(folder, 'junk.key') }, /junk\.key holds no private key/],
    [{ cert: join(folder, 'd1.key') }, /d1\.key holds no PEM certificate/],
    [{ ca: join(folder, 'nowhere.pem') }, /nowhere\.pem cannot be read \(ENOENT\)/],
  ] as const)
    await assert.rejects(loadPeerMaterial({ ...files('d1'), ...wrong }), expected);
});

function files(name: string) {
  return {
    ca: join(folder, 'ca.pem'),
    cert: join(folder, `${name}.pem`),
    key: join(folder, `${name}.key`),
  };
}
