/** A Redis or a Kafka that is not what the configuration says: refused at the start, in one line, with exit code 1. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { initAuthority, issueCertificate } from '@sallyport/cluster';
import { eventually, ROOT, run, type SettingsDocument } from '../harness/index.ts';

const folder = mkdtempSync(join(tmpdir(), 'sallyport-refused-'));
const started: ChildProcess[] = [];
const inFolder = (name: string) => join(folder, name);

before(async () => {
  const pki = inFolder('pki');
  await initAuthority(pki, { cluster: 'test' });
  await issueCertificate(pki, { name: 'auth', roles: ['auth'], hosts: [], days: 2 });
  await issueCertificate(pki, { name: 'node', roles: ['tunnel-node'], hosts: [], days: 2 });
  for (const name of ['redis', 'stranger']) await selfSigned(name);
  writeFileSync(inFolder('users'), '', { mode: 0o600 });
  writeFileSync(inFolder('right'), `${SECRET}\n`, { mode: 0o600 });
  writeFileSync(inFolder('wrong'), 'not-the-secret\n', { mode: 0o600 });
});
after(async () => {
  for (const child of started) {
    child.kill('SIGTERM');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }
  rmSync(folder, { recursive: true });
});

describe('a Redis that is not as configured, to auth and to a tunnel node', () => {
  let [plain, locked, secure] = [0, 0, 0];
  const tls = (more: SettingsDocument = {}) => ({ ca: inFolder('redis.pem'), ...more });

  before(async () => {
    [plain, locked, secure] = [await freePort(), await freePort(), await freePort()];
    await Promise.all([
      redis('plain', ['--port', String(plain)]),
      redis('locked', ['--port', String(locked), '--requirepass', SECRET]),
      redis('secure', [
        ...['--port', '0', '--tls-port', String(secure), '--tls-cert-file', inFolder('redis.pem')],
        ...['--tls-key-file', inFolder('redis.key'), '--tls-ca-cert-file', inFolder('redis.pem')],
      ]),
    ]);
  });

  const cases: [string, () => SettingsDocument, RegExp][] = [
    [
      'has no password, and one is configured',
      () => ({ url: at('redis', plain), 'password-file': inFolder('right') }),
      /^redis: 127\.0\.0\.1:\d+ has no password, but password-file is set$/,
    ],
    [
      'asks for a password, and none is configured',
      () => ({ url: at('redis', locked) }),
      /^redis: 127\.0\.0\.1:\d+ asks for a password: set password-file$/,
    ],
    [
      'has another password',
      () => ({ url: at('redis', locked), 'password-file': inFolder('wrong') }),
      /^redis: 127\.0\.0\.1:\d+ refuses the password$/,
    ],
    [
      'speaks no TLS, and TLS is configured',
      () => ({ url: at('rediss', plain), tls: tls() }),
      /^redis: 127\.0\.0\.1:\d+ does not speak TLS on this port: /,
    ],
    [
      'speaks TLS, and plain text is configured',
      () => ({ url: at('redis', secure) }),
      /^redis: 127\.0\.0\.1:\d+ speaks TLS on this port: set tls/,
    ],
    [
      'has a certificate of another CA',
      () => ({ url: at('rediss', secure), tls: tls({ ca: inFolder('stranger.pem') }) }),
      /^redis: 127\.0\.0\.1:\d+ fails the TLS handshake: /,
    ],
    [
      'has a certificate for another name',
      () => ({
        url: at('rediss', secure),
        tls: tls({
          'server-name': 'other.example',
          cert: inFolder('redis.pem'),
          key: inFolder('redis.key'),
        }),
      }),
      /^redis: 127\.0\.0\.1:\d+ fails the TLS handshake: /,
    ],
    [
      'wants a certificate of ours, and none is configured',
      () => ({ url: at('rediss', secure), tls: tls() }),
      /^redis: 127\.0\.0\.1:\d+ fails the TLS handshake: .*certificate/,
    ],
    [
      'does not trust our certificate',
      () => ({
        url: at('rediss', secure),
        tls: tls({ cert: inFolder('stranger.pem'), key: inFolder('stranger.key') }),
      }),
      /^redis: 127\.0\.0\.1:\d+ fails the TLS handshake: /,
    ],
  ];
  for (const [what, settings, line] of cases) {
    test(what, async () => {
      const roles = ['auth', 'tunnel-node'] as const;
      const lines = await Promise.all(roles.map((role) => refusal(role, { redis: settings() })));
      for (const said of lines) assert.match(said, line);
    });
  }
});

describe('a Kafka that is not as configured, to auth', () => {
  let [store, plain, secure, guarded] = [0, 0, 0, 0];
  const kafka = (port: number, more: SettingsDocument = {}) => ({
    redis: { url: at('redis', store) },
    kafka: { brokers: [`127.0.0.1:${port}`], prefix: 'refused', 'replication-factor': 1, ...more },
  });
  const sasl = (password: string) => ({
    mechanism: 'plain',
    username: 'outbox',
    'password-file': inFolder(password),
  });

  before(async () => {
    store = await freePort();
    await redis('store', ['--port', String(store)]);
    writeFileSync(inFolder('store.pem'), ['redis.key', 'redis.pem'].map((name) => readFileSync(inFolder(name), 'utf8')).join('')); // prettier-ignore
    const users = `org.apache.kafka.common.security.plain.PlainLoginModule required user_outbox="${SECRET}";`;
    writeFileSync(
      inFolder('kafka.properties'),
      [
        'sasl.enabled.mechanisms=PLAIN',
        `listener.name.secure.plain.sasl.jaas.config=${users}`,
        `listener.name.guarded.plain.sasl.jaas.config=${users}`,
        'listener.name.secure.ssl.keystore.type=PEM',
        `listener.name.secure.ssl.keystore.location=${inFolder('store.pem')}`,
        '',
      ].join('\n'),
    );
    const listeners = ['--listener', 'SECURE=SASL_SSL', '--listener', 'GUARDED=SASL_PLAINTEXT'];
    const argv = ['--dir', inFolder('kafka'), ...listeners, '--properties', inFolder('kafka.properties')];
    const child = spawn(process.execPath, [`${ROOT}tools/kafka.mjs`, ...argv], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    started.push(child);
    const [said] = (await once(child.stdout.setEncoding('utf8'), 'data')) as [string];
    const { port, listeners: ports } = JSON.parse(said) as {
      port: number;
      listeners: Record<string, number>;
    };
    [plain, secure, guarded] = [port, ports['SECURE'] ?? 0, ports['GUARDED'] ?? 0];
  });

  const tls = (ca: string, more: SettingsDocument = {}) => ({ ca: inFolder(ca), ...more });
  const cases: [string, () => SettingsDocument, RegExp][] = [
    [
      'has no password, and one is configured',
      () => kafka(plain, { sasl: sasl('right') }),
      /takes no user name and password on this port: remove kafka\.sasl or use another port\.$/,
    ],
    [
      'asks for a password, and none is configured',
      () => kafka(guarded),
      /asks for a user name and password: set kafka\.sasl\.$/,
    ],
    [
      'has another password',
      () => kafka(guarded, { sasl: sasl('wrong') }),
      /did not accept the user name and password: check kafka\.sasl/,
    ],
    [
      'speaks no TLS, and TLS is configured',
      () => kafka(plain, { tls: tls('redis.pem') }),
      /does not speak TLS on this port: remove kafka\.tls or use its TLS port\.$/,
    ],
    [
      'speaks TLS, and plain text is configured',
      () => kafka(secure, { sasl: sasl('right') }),
      /speaks TLS on this port: set kafka\.tls\.$/,
    ],
    [
      'has a certificate of another CA',
      () => kafka(secure, { sasl: sasl('right'), tls: tls('stranger.pem') }),
      /has a certificate that kafka\.tls does not trust/,
    ],
    [
      'has a certificate for another name',
      () => kafka(secure, { sasl: sasl('right'), tls: tls('redis.pem', { 'server-name': 'other.example' }) }),
      /has a certificate that kafka\.tls does not trust/,
    ],
  ];
  for (const [what, settings, line] of cases) {
    test(what, async () => {
      const said = await refusal('auth', settings());
      assert.match(said, /^Kafka at 127\.0\.0\.1:\d+ /);
      assert.match(said, line);
    });
  }

  test('that is away is no reason: auth serves', async () => {
    const child = spawn(
      process.execPath,
      await argvOf('auth', { ...kafka(await freePort(), { sasl: sasl('right') }), 'log-level': 'info' }),
    );
    started.push(child);
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
    await eventually('auth serves', () => said.includes('auth is ready') || child.exitCode !== null, 60_000);
    assert.equal(child.exitCode, null, said);
  });
});

/** The one line that a role says before it ends with 1. */
async function refusal(role: 'auth' | 'tunnel-node', settings: SettingsDocument): Promise<string> {
  const { code, stderr } = await run([process.execPath, ...(await argvOf(role, settings))], {
    anyCode: true,
    timeoutMs: 120_000,
  });
  assert.equal(code, 1, stderr);
  const lines = stderr.trimEnd().split('\n');
  assert.equal(lines.length, 1, stderr);
  assert.ok(!stderr.includes(SECRET));
  return lines[0] ?? '';
}

let configurations = 0;

async function argvOf(role: 'auth' | 'tunnel-node', settings: SettingsDocument): Promise<string[]> {
  const [admin, own] = [await freePort(), await freePort()];
  const number = ++configurations;
  const name = role === 'auth' ? 'auth' : 'node';
  const file = inFolder(`${number}.yaml`);
  const files = { ca: 'ca.pem', cert: `${name}.pem`, key: `${name}.key` };
  const pki = Object.fromEntries(Object.entries(files).map(([key, of]) => [key, inFolder(`pki/${of}`)]));
  const document = {
    ...{
      'server-cert': inFolder('redis.pem'),
      'server-key': inFolder('redis.key'),
      'users-file': inFolder('users'),
    },
    ...{ 'ipv4-network': '10.90.0.0/24', 'return-path': 'none', 'admin-address': `127.0.0.1:${admin}`, pki },
    services: { auth: ['127.0.0.1:1'], portal: ['127.0.0.1:1'], downloader: ['127.0.0.1:1'] },
    listen: { [role === 'auth' ? 'auth' : 'node']: `127.0.0.1:${own}` },
    'log-level': 'error',
    node: { name: `${name}-${number}`, number: 1 },
    ...settings,
  };
  writeFileSync(file, `${JSON.stringify(document, null, 1)}\n`);
  return [`${ROOT}bin/sallyport`, role, '--config', file, '--state-dir', inFolder(`state-${number}`)];
}

async function redis(name: string, more: string[]): Promise<void> {
  const dir = inFolder(`redis-${name}`);
  mkdirSync(dir);
  const argv = ['--bind', '127.0.0.1', '--dir', dir, '--save', '', '--appendonly', 'yes', ...more];
  const child = spawn('redis-server', argv, { stdio: ['ignore', 'pipe', 'inherit'] });
  started.push(child);
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
  await eventually(`redis ${name} serves`, () => said.includes('Ready to accept'), 60_000);
}

async function selfSigned(name: string): Promise<void> {
  const files = ['-keyout', inFolder(`${name}.key`), '-out', inFolder(`${name}.pem`)];
  const subject = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1'];
  await run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', ...files, ...subject]);
}

function at(scheme: string, port: number): string {
  return `${scheme}://127.0.0.1:${port}/0`;
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === 'object' ? (address?.port ?? 0) : 0));
    });
  });
}

const SECRET = 'swordfish-17';
