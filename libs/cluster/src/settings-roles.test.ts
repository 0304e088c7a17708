import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { PeerRole } from './peers.ts';
import { initAuthority, issueCertificate } from './pki.ts';
import { readSettings } from './settings-schema.ts';

const SERVICES = `services: {auth: ["10.0.0.11:9491"], portal: ["10.0.0.11:9492"], downloader: ["10.0.0.11:9493"], catalog: ["10.0.0.11:9494"]}`;
const REDIS = 'redis: {url: "redis://10.0.0.5:6379", password-file: secret}';
const KAFKA = 'kafka: {brokers: ["10.0.0.8:9092"], sasl: {username: sallyport, password-file: kafka-secret}}';

test('each role must have what it needs, and none of what only others use', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-roles-'));
  const errors = async (role: PeerRole, ...lines: string[]) => {
    const file = join(folder, 'c.yaml');
    const pki = `pki: {ca: pki/ca.pem, cert: pki/${role}.pem, key: pki/${role}.key}`;
    await writeFile(file, [pki, ...lines].join('\n'));
    const read = await readSettings(file, role);
    return 'errors' in read ? read.errors.join('\n') : '';
  };
  try {
    await initAuthority(join(folder, 'pki'), { cluster: 'test' });
    for (const role of ['auth', 'portal', 'downloader', 'tunnel-node'] as const)
      await issueCertificate(join(folder, 'pki'), { name: role, roles: [role], hosts: [], days: 2 });
    // No users, no certificate for clients, no pool, no password of Redis or Kafka: a portal uses none of them.
    const listening = (role: string) => `listen: {${role}: "10.0.0.11:9492"}`;
    assert.equal(await errors('portal', REDIS, KAFKA, SERVICES, listening('portal')), '');
    const lost = await errors('portal', REDIS, SERVICES.replace(/auth: .*?\], /, ''), listening('portal'));
    assert.match(lost, /services names no auth, and portal needs it/);
    assert.match(await errors('portal', REDIS, SERVICES), /listen\.portal is missing: 127\.0\.0\.1:9492/);
    assert.match(await errors('portal', SERVICES), /portal is a role of a cluster and needs redis/);

    const auth = await errors('auth', REDIS, KAFKA);
    assert.match(auth, /ipv4-network is missing/);
    assert.match(auth, /users-file \S+ does not exist/);
    assert.match(auth, /password-file \S+\/secret /);
    assert.match(auth, /password-file \S+\/kafka-secret /);
    assert.doesNotMatch(auth, /server-cert/);
    assert.doesNotMatch(await errors('auth', REDIS, 'users-file: ""'), /users-file/);

    const node = await errors('tunnel-node', REDIS, KAFKA, SERVICES);
    assert.match(node, /server-cert and server-key are missing/);
    assert.match(node, /node\.name is missing/);
    assert.match(node, /listen\.node is missing/);
    assert.match(node, /\/secret /);
    assert.doesNotMatch(node, /kafka-secret|users-file/);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('a certificate of another role or of another CA is refused before anything is served', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-roles-'));
  const errors = async (ca: string) => {
    const file = join(folder, 'portal.yaml');
    const listen = 'listen: {portal: "10.0.0.11:9492"}';
    const pki = `pki: {ca: ${ca}/ca.pem, cert: pki/a1.pem, key: pki/a1.key}`;
    await writeFile(file, [pki, REDIS, SERVICES, listen].join('\n'));
    const read = await readSettings(file, 'portal');
    return 'errors' in read ? read.errors : [];
  };
  try {
    await initAuthority(join(folder, 'pki'), { cluster: 'test' });
    await initAuthority(join(folder, 'other'), { cluster: 'other' });
    await issueCertificate(join(folder, 'pki'), { name: 'a1', roles: ['auth'], hosts: [], days: 2 });
    const [role, ...more] = await errors('pki');
    assert.match(role ?? '', /a1\.pem is the certificate of auth, and portal needs its own/);
    assert.deepEqual(more, []);
    assert.match((await errors('other')).join(), /a1\.pem is not of the CA in \S+other\/ca\.pem/);
  } finally {
    await rm(folder, { recursive: true });
  }
});
