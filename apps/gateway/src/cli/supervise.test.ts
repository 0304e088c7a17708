import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { listenPlace, supervise } from './supervise.ts';

const folder = mkdtempSync(join(tmpdir(), 'sallyport-supervise-'));
after(() => rmSync(folder, { recursive: true }));
const config = join(folder, 'x.yaml');
const supervisor = join(folder, 'supervisor');

/** In the place of the supervisor: writes its arguments, and ends as the last one says. */
writeFileSync(
  supervisor,
  `#!/bin/sh\nprintf '%s\\n' "$@" >'${folder}/told'\nfor last; do :; done\neval "$last"\n`,
);
chmodSync(supervisor, 0o755);

const GOOD_AUTH = `ipv4-network: 10.90.0.0/16
redis: {url: "redis://10.0.0.5:6379"}
pki: {ca: ca.pem, cert: a1.pem, key: a1.key}
`;
const GOOD = 'server-cert: c.pem\nserver-key: k.pem\nipv4-network: 10.90.0.0/16\n';

test('the address of the configuration goes to the supervisor, the role and its arguments go below it', async () => {
  writeFileSync(config, `${GOOD}listen-host: "2001:db8::1"\ntcp-port: 4443\nlog-level: warn\n`);
  const args = ['--config', config, '--state-dir', folder, 'exit 7'];
  assert.equal(await run('gateway', args), 7);
  assert.deepEqual(told(), [
    ...['--tcp', '[2001:db8::1]:4443', '--health', '127.0.0.1:9480'],
    ...['--parent', String(process.pid), '--log-level', 'warn'],
    ...['--', 'node', 'bin', 'gateway', ...args],
  ]);
});

test('a role without clients of its own gets no socket; a death by signal is told as shells do', async () => {
  writeFileSync(config, GOOD_AUTH);
  assert.equal(await run('auth', [`--config=${config}`, 'kill -9 $$']), 128 + 9);
  assert.equal(told()[0], '--parent');
});

test('a first run listens where the configuration that it will write says', async () => {
  assert.equal(await run('gateway', ['--state-dir', join(folder, 'new'), '--first-run', 'exit 0']), 0);
  assert.deepEqual(told().slice(0, 2), ['--tcp', '*:443']);
});

test('with errors in the configuration, and without a supervisor, the role runs by itself', async () => {
  const said: string[] = [];
  writeFileSync(config, 'tcp-prot: 1\n');
  assert.equal(await run('gateway', ['--config', config], said), undefined);
  assert.deepEqual(said, []);
  writeFileSync(config, GOOD);
  assert.equal(await run('gateway', ['--config', config], said, join(folder, 'none')), undefined);
  assert.match(said.join(), /^There is no supervisor .*: restarts cost clients 10 s\.$/);
});

test('addresses of both families, and all', () => {
  assert.equal(listenPlace({ listenHost: '', tcpPort: 443 }), '*:443');
  assert.equal(listenPlace({ listenHost: '192.0.2.1', tcpPort: 1 }), '192.0.2.1:1');
  assert.equal(listenPlace({ listenHost: '::', tcpPort: 1 }), '[::]:1');
});

function run(role: string, args: string[], said: string[] = [], program = supervisor) {
  return supervise({
    role,
    args,
    supervisor: program,
    program: ['node', 'bin'],
    say: (line) => said.push(line),
  });
}

function told(): string[] {
  return readFileSync(join(folder, 'told'), 'utf8').trimEnd().split('\n');
}
