import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import {
  ALICE,
  APPLICATION_DATA,
  echoReply,
  echoRequest,
  eventually,
  frame,
  FRAME,
  header,
  RECORD_OVERHEAD,
  World,
  type Connected,
} from '../harness/index.ts';

const world = await World.open();
after(() => world.close());

for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
  test(`row 14: each of 10,000 packets to the client is one ${version} record of its own`, async () => {
    const client = await world.loggedIn(ALICE, { version, countRecords: true });
    const { answer, channel, tls } = await client.connect();
    const address = header(answer, 'X-CSTP-Address') ?? '';
    channel.send(FRAME.dpdRequest);
    await channel.next(FRAME.dpdResponse);
    const early = tls.records.length - channel.frames.length;
    let sent = 0;
    const replies = () =>
      channel.frames.filter((one) => one.type === FRAME.data && echoReply(one.payload) !== undefined).length;
    while (replies() < PACKETS) {
      const missing = Math.min(PACKETS - replies(), BURST);
      for (let index = 0; index < missing; index++, sent++) {
        channel.send(FRAME.data, echoRequest(address, world.lab.lanIpv4, sent, 28 + (sent % 1200)));
      }
      const target = replies() + missing * 0.9;
      await eventually('echo replies', () => replies() >= target, 10_000, 2).catch(() => {});
      assert.ok(sent < PACKETS * 3, `${replies()} replies to ${sent} requests`);
    }
    await eventually(
      'what is on the wire has also been decrypted',
      () => tls.records.length - early === channel.frames.length,
    );
    const records = tls.records.slice(early);
    assert.deepEqual([...new Set(records.map((record) => record.type))], [APPLICATION_DATA]);
    const overhead = RECORD_OVERHEAD[version] + FRAME_HEAD;
    assert.deepEqual(
      records.map((record) => record.length - overhead),
      channel.frames.map((one) => one.payload.length),
    );
    channel.bye(0xb0);
  });
}

test('row 15: several packets in a record and packets split over records are all read', async () => {
  const { answer, channel } = await open();
  const address = header(answer, 'X-CSTP-Address') ?? '';
  const packets = [1, 2, 3, 4, 5].map((sequence) =>
    frame(FRAME.data, echoRequest(address, world.lab.lanIpv4, sequence, 500)),
  );
  channel.sendRaw(Buffer.concat(packets));
  const joined = Buffer.concat(
    [6, 7].map((sequence) => frame(FRAME.data, echoRequest(address, world.lab.lanIpv4, sequence, 500))),
  );
  for (let at = 0; at < joined.length; at += 7) channel.sendRaw(joined.subarray(at, at + 7));
  await eventually('all replies', () => sequencesOf(channel.frames).length === 7);
  assert.deepEqual(sequencesOf(channel.frames).sort(), [1, 2, 3, 4, 5, 6, 7]);
  channel.bye(0xb0);
});

test('row 15: unknown types and empty data are ignored, DPD is answered with its payload', async () => {
  const { channel } = await open();
  for (const type of [1, 2, 6, 10, 77, 255]) channel.send(type, Buffer.from('?'));
  channel.send(FRAME.data);
  channel.send(FRAME.keepalive);
  const payload = Buffer.alloc(1300, 0x5a);
  channel.send(FRAME.dpdRequest, payload);
  assert.deepEqual((await channel.next(FRAME.dpdResponse)).payload, payload);
  assert.equal(channel.closed, false);
  channel.bye(0xb0);
});

test('row 25: compression is never offered, and a compressed packet is a protocol error', async () => {
  const { answer, channel } = await open();
  assert.equal(header(answer, 'X-CSTP-Content-Encoding'), undefined);
  assert.equal(header(answer, 'X-DTLS-Content-Encoding'), undefined);
  const before = await world.gateway.metric('sallyport_tunnel_ends_total', { reason: 'protocol-error' });
  channel.send(FRAME.compressed, Buffer.from('300030282074ff7f', 'hex'));
  await channel.whenClosed();
  await eventually('it is counted', async () => {
    const ends = await world.gateway.metric('sallyport_tunnel_ends_total', { reason: 'protocol-error' });
    return ends === before + 1;
  });
});

async function open(): Promise<Connected> {
  const connected = await (await world.loggedIn(ALICE)).connect();
  assert.equal(connected.answer.status, 200);
  return connected;
}

function sequencesOf(frames: readonly { type: number; payload: Buffer }[]): number[] {
  return frames
    .flatMap((one) => (one.type === FRAME.data ? [echoReply(one.payload)] : []))
    .filter((found) => found !== undefined);
}

const PACKETS = 10_000;
const BURST = 64;
const FRAME_HEAD = 8;
