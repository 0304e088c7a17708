import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, get, type IncomingMessage } from 'node:http';
import { connect, createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { StartError } from './faults.ts';
import { certificateMetrics, configMetrics, MAX_CONNECTIONS, processMetrics, serveHealth } from './health.ts';
import { Metrics } from './metrics.ts';

test('live is always 200; startup and ready are 404 with their reasons until there are none', async () => {
  const facts = { startup: ['services are loading'], ready: [] as string[], notes: ['store away'] };
  const server = await open({
    startup: () => facts.startup,
    ready: () => facts.ready,
    notes: () => facts.notes,
  });
  try {
    assert.equal((await ask(server.port, '/health/live')).status, 200);
    const starting = await ask(server.port, '/health/startup');
    assert.deepEqual([starting.status, starting.body.reasons], [404, ['services are loading']]);
    assert.equal((await ask(server.port, '/health/ready')).status, 404);

    facts.startup = [];
    const ready = await ask(server.port, '/health/ready');
    assert.deepEqual(
      [ready.status, ready.body],
      [200, { status: 'ready', reasons: [], notes: ['store away'] }],
    );

    facts.ready = ['full'];
    const full = await ask(server.port, '/health/ready');
    assert.deepEqual([full.status, full.body.reasons], [404, ['full']]);
    assert.equal((await ask(server.port, '/health/startup')).status, 200);
    assert.equal((await ask(server.port, '/health/')).status, 404);
    assert.equal(
      (await fetch(`http://127.0.0.1:${server.port}/health/live`, { method: 'POST' })).status,
      405,
    );
  } finally {
    await server.close();
    await server.close();
  }
});

test('connections that ask nothing do not lock others out, and those of a scraper stay', async () => {
  const server = await open({ startup: () => [], ready: () => [] });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const idle: Socket[] = [];
  try {
    const scrape = async (): Promise<number> => {
      const request = get({ port: server.port, path: '/health/live', agent });
      const [response] = (await once(request, 'response')) as [IncomingMessage];
      response.resume();
      await once(response, 'end');
      return request.socket?.localPort ?? 0;
    };
    const port = await scrape();
    for (let n = 0; n < MAX_CONNECTIONS + 20; n += 1) {
      const socket = connect(server.port, '127.0.0.1').on('error', () => undefined);
      await once(socket, 'connect');
      idle.push(socket);
      if (n % 50 === 0) assert.equal(await scrape(), port);
    }
    assert.equal((await ask(server.port, '/health/live')).status, 200);
  } finally {
    agent.destroy();
    for (const socket of idle) socket.destroy();
    await server.close();
  }
});

test('metrics of build, configuration, certificates and event loop are served', async () => {
  const metrics = new Metrics();
  processMetrics(metrics, { version: '1.2.3', name: 'gateway' });
  const config = configMetrics(metrics);
  config.applied('aaa', 100);
  config.applied('bbb', 200);
  certificateMetrics(metrics, () => [{ host: '', keyType: 'ec', notAfterSeconds: 300 }]);
  const server = await serveHealth('127.0.0.1:0', metrics, { startup: () => [], ready: () => [] });
  try {
    const text = await (await fetch(`http://127.0.0.1:${server.port}/metrics`)).text();
    assert.match(text, /^sallyport_build_info\{version="1\.2\.3",role="gateway",node_version="v\d+.*"\} 1$/m);
    assert.match(text, /^sallyport_config_revision_info\{revision="bbb"\} 1$/m);
    assert.doesNotMatch(text, /revision="aaa"/);
    assert.match(text, /^sallyport_config_last_reload_success_timestamp_seconds 200$/m);
    assert.match(text, /^sallyport_certificate_not_after_timestamp_seconds\{host="",key_type="ec"\} 300$/m);
    assert.match(text, /^sallyport_event_loop_lag_seconds [\d.e-]+$/m);
  } finally {
    await server.close();
  }
});

test('an address that is taken, or none, is one sentence', async () => {
  const holder = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => holder.once('listening', resolve));
  const bound = holder.address();
  const port = typeof bound === 'object' && bound ? bound.port : 0;
  const facts = { startup: () => [], ready: () => [] };
  try {
    for (const [address, message] of [
      [`127.0.0.1:${port}`, /is taken by another process/],
      ['192.0.2.1:1', /cannot be listened on \(EADDRNOTAVAIL\)/],
      ['nowhere', /is not HOST:PORT/],
    ] as const) {
      await assert.rejects(
        serveHealth(address, new Metrics(), facts),
        (error) => error instanceof StartError && message.test(error.message),
      );
    }
  } finally {
    holder.close();
  }
});

function open(facts: Parameters<typeof serveHealth>[2]) {
  return serveHealth('127.0.0.1:0', new Metrics(), facts);
}

async function ask(port: number, path: string): Promise<{ status: number; body: { reasons?: string[] } }> {
  const answer = await fetch(`http://127.0.0.1:${port}${path}`);
  const body: unknown = await answer.json();
  assert.ok(typeof body === 'object' && body !== null);
  return { status: answer.status, body };
}
