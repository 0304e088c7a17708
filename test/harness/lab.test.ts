import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ConnectionRefused, eventually, Lab, leftovers, run, sweep } from './index.ts';

test('client, gateway and LAN reach each other over IPv4 and IPv6', async () => {
  const lab = await Lab.open({ clients: 2, forwarding: true });
  assert.equal(await lab.ping(lab.lanIpv4), 3);
  assert.equal(await lab.ping(lab.lanIpv6, { namespace: lab.client(1) }), 3);
  await lab.close();
  assert.deepEqual(leftovers(), []);
});

test('a connection from a namespace carries bytes, the end of the stream, and refusals', async () => {
  const lab = await Lab.open();
  const echo =
    "require('net').createServer({ allowHalfOpen: true }, (s) => s.pipe(s)).listen(7, '198.51.100.1', () => console.log('ready'))";
  const server = lab.spawn(lab.gateway, [process.execPath, '-e', echo]);
  await eventually('server', () => server.output().includes('ready'));
  const socket = await lab.dial(lab.lan, '198.51.100.1', 7);
  const received: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => received.push(chunk));
  socket.end('hello');
  await once(socket, 'end');
  assert.equal(Buffer.concat(received).toString(), 'hello');
  await assert.rejects(lab.dial(lab.lan, '198.51.100.1', 8), ConnectionRefused);
  await lab.close();
});

for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
  test(`what a process leaves that ended by ${signal} is removed, with its processes`, async () => {
    const child = await labInOtherProcess();
    const mine = `sp-${child.pid}-`;
    assert.match(await namespaces(), new RegExp(mine));
    child.kill(signal);
    await once(child, 'close');
    if (signal === 'SIGKILL') sweep();
    assert.doesNotMatch(await namespaces(), new RegExp(mine));
  });
}

async function labInOtherProcess() {
  const index = fileURLToPath(new URL('./index.js', import.meta.url));
  const code = `import(${JSON.stringify(index)}).then(async ({ Lab }) => {
    const lab = await Lab.open();
    lab.spawn(lab.client(), ['sleep', '600']);
    console.log('up');
  })`;
  const child = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  return child;
}

async function namespaces(): Promise<string> {
  return (await run(['ip', 'netns', 'list'])).stdout;
}
