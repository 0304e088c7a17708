import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { Socket } from 'node:net';
import { eventually, PATIENCE_MS, sleep, TlsClient, World } from '../harness/index.ts';
import { survives, validLogin } from './survives.ts';

const world = await World.open();
after(() => world.close());

test('2,000 silent connections take no slot and block no login', async () => {
  const sockets: Socket[] = [];
  await survives(
    world,
    async () => {
      while (sockets.length < SILENT) {
        const batch = Array.from({ length: 100 }, () =>
          world.lab.dial(world.lab.client(), world.lab.gatewayIpv4, 443),
        );
        sockets.push(...(await Promise.all(batch)));
      }
      await eventually(
        'they are counted',
        async () =>
          (await world.gateway.metric('sallyport_connections', { stage: 'silent' })) >= SILENT * 0.9,
      );
      await validLogin(world);
    },
    { counter: 'sallyport_connections_accepted_total', atLeast: SILENT },
  );
  for (const socket of sockets) socket.destroy();
  await eventually(
    'they are gone',
    async () => (await world.gateway.metric('sallyport_connections', { stage: 'silent' })) < 10,
  );
});

test('half a ClientHello is cut off in time', async () => {
  const sockets: Socket[] = [];
  await survives(
    world,
    async () => {
      for (let count = 0; count < 100; count++) {
        const socket = await world.lab.dial(world.lab.client(), world.lab.gatewayIpv4, 443);
        socket.write(Buffer.from('16030102000100', 'hex'));
        sockets.push(socket);
      }
      for (const socket of sockets) socket.resume();
      await eventually(
        'all closed',
        () => sockets.every((socket) => socket.readableEnded || socket.destroyed),
        PATIENCE_MS,
        250,
      );
    },
    { counter: 'sallyport_tls_handshakes_total', labels: { result: 'timeout' }, atLeast: 50 },
  );
});

test('slow heads and slow bodies are cut off in time (slowloris)', async () => {
  await survives(
    world,
    async () => {
      const clients = await Promise.all(Array.from({ length: 40 }, () => TlsClient.open({ lab: world.lab })));
      let open = clients.length;
      for (const client of clients) void client.reader.ended.then(() => open--);
      for (const [index, client] of clients.entries()) {
        client.write(
          index % 2 === 0
            ? 'GET / HTTP/1.1\r\nX-Slow: '
            : 'POST / HTTP/1.1\r\nHost: vpn\r\nContent-Length: 1000\r\n\r\n<',
        );
      }
      const end = performance.now() + PATIENCE_MS;
      while (open > 0) {
        assert.ok(performance.now() < end, `${open} are still open`);
        for (const client of clients) if (!client.socket.destroyed) client.write('a');
        await sleep(500);
      }
    },
    { counter: 'sallyport_http_refusals_total', labels: { cause: 'timeout' }, atLeast: 30 },
  );
});

const SILENT = 2_000;
