import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import {
  ALICE,
  echoRequest,
  FRAME,
  frame,
  header,
  headers,
  sleep,
  World,
  type Connected,
} from '../harness/index.ts';
import { survives } from './survives.ts';

const LONG_BANNER = 'b'.repeat(496);
const world = await World.open({ settings: { banner: LONG_BANNER, 'default-domain': 'example.test' } });
after(() => world.close());

test('V13: no MTU that a client claims makes ours absurd', async () => {
  const claims = ['0', '1', '500', '799', '65535', '-1', '1e9', '', 'abc', '99999999999999999999', '1500.5'];
  await survives(
    world,
    async () => {
      const client = await world.loggedIn();
      for (const base of claims) {
        for (const mtu of ['1390', '0', '65535', base]) {
          const { answer, tls } = await client.connect([
            ['X-CSTP-Base-MTU', base],
            ['X-CSTP-MTU', mtu],
          ]);
          if (answer.status === 200) {
            const ours = Number(header(answer, 'X-CSTP-MTU'));
            assert.ok(ours >= 576 && ours <= 1500, `base ${base}, mtu ${mtu}: ${ours}`);
            if (header(answer, 'X-CSTP-Address-IP6') !== undefined) assert.ok(ours >= 1280);
          } else assert.ok(answer.status < 500 || answer.status === 503, String(answer.status));
          tls.close();
        }
      }
    },
    { counter: 'sallyport_connects_total', labels: { result: 'resumed' } },
  );
});

test('V23: no header line over 8 KB, banner within what clients hold, no larger MTU on a reconnect', async () => {
  const client = world.anyConnect();
  await client.init();
  const granted = await client.reply({ username: ALICE.name, password: ALICE.password });
  assert.ok(Buffer.byteLength(granted.banner) <= 496);
  const first = await client.connect([
    ['X-CSTP-Base-MTU', '1400'],
    ['X-CSTP-MTU', '1300'],
  ]);
  const second = await client.connect([
    ['X-CSTP-Base-MTU', '1500'],
    ['X-CSTP-MTU', '1400'],
  ]);
  for (const { answer } of [first, second]) {
    for (const line of answer.head.split('\r\n')) assert.ok(line.length <= 8192);
    assert.equal(headers(answer, 'X-CSTP-MTU').length, 1);
  }
  const mtu = ({ answer }: Connected) => Number(header(answer, 'X-CSTP-MTU'));
  assert.ok(mtu(second) <= mtu(first), `${mtu(first)}, then ${mtu(second)}`);
  first.tls.close();
  second.tls.close();
});

test('V37: every type, length and split of a frame is a packet, ignored, or the end of this tunnel only', async () => {
  const bad: [string, Buffer][] = [
    ['bad magic', Buffer.from('5354460200000300', 'hex')],
    ['byte 7 set', Buffer.from('5354460100000301', 'hex')],
    ['HTTP instead of a frame', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['type 8', frame(8, Buffer.from('x'))],
    ['zeros', Buffer.alloc(64)],
    ['type 0 of 65,535 bytes', frame(FRAME.data, Buffer.alloc(65_535, 0x45))],
  ];
  await survives(
    world,
    async () => {
      for (const [what, bytes] of bad) {
        const { channel } = await (await world.loggedIn()).connect();
        channel.sendRaw(bytes);
        assert.ok(await channel.whenClosed().catch(() => false), what);
      }
      const { answer, channel, tls } = await (await world.loggedIn()).connect();
      for (let type = 0; type < 256; type++) {
        if (type !== FRAME.disconnect && type !== FRAME.compressed && type !== FRAME.terminate) {
          channel.send(type, Buffer.alloc(type % 3));
        }
      }
      const address = header(answer, 'X-CSTP-Address') ?? '';
      const mtu = Number(header(answer, 'X-CSTP-MTU'));
      channel.send(FRAME.data, echoRequest(address, world.lab.lanIpv4, 1, mtu + 1));
      channel.send(FRAME.data, Buffer.from([0x45]));
      channel.send(FRAME.data, echoRequest('203.0.113.99', world.lab.lanIpv4, 2));
      await channel.next(FRAME.dpdResponse); // of type 3 above
      const mark = channel.frames.length;
      const ask = frame(FRAME.dpdRequest, Buffer.from('still here'));
      for (const byte of ask) channel.sendRaw(Uint8Array.of(byte));
      assert.equal((await channel.next(FRAME.dpdResponse, { from: mark })).payload.toString(), 'still here');
      tls.close();
    },
    { counter: 'sallyport_tunnel_ends_total', labels: { reason: 'protocol-error' }, atLeast: 4 },
  );
});

test('V37: a client that asks for answers without reading them is bounded', async () => {
  await survives(
    world,
    async () => {
      const { channel, tls } = await (await world.loggedIn()).connect();
      tls.socket.pause();
      const ask = frame(FRAME.dpdRequest, Buffer.alloc(1000));
      for (let count = 0; count < 20_000 && !channel.closed; count++) {
        if (!tls.socket.write(ask))
          await Promise.race([new Promise((resolve) => tls.socket.once('drain', resolve)), sleep(200)]);
      }
      tls.close();
    },
    { counter: 'sallyport_tunnel_drops_total', labels: { reason: 'control-flood' } },
  );
});

test('V37: packets with a foreign source address do not leave the tunnel', async () => {
  const { gateway, lab } = world;
  const { channel } = await (await world.loggedIn()).connect();
  const dropped = () => gateway.metric('sallyport_engine_drops_total', { reason: 'source' });
  const before = await dropped();
  for (let count = 0; count < 5; count++)
    channel.send(FRAME.data, echoRequest('203.0.113.99', lab.lanIpv4, count));
  channel.send(FRAME.dpdRequest, Buffer.from('after them'));
  await channel.next(FRAME.dpdResponse);
  assert.equal((await dropped()) - before, 5);
  channel.bye(0xb0);
});
