import assert from 'node:assert/strict';
import { generateKeyPairSync, sign, type KeyObject } from 'node:crypto';
import { describe, it } from 'node:test';
import {
  StoreUnavailable,
  type MemorySessions,
  type SessionAddresses,
  type Sessions,
} from '@sallyport/cluster';
import { NO_RETURN_PATH, type ReturnPath } from '@sallyport/engine';
import { BYE, encodeFrame, PACKET, reasonText, strapMessage } from '@sallyport/protocol';
import { HIGH_WATER_BYTES, type ListenerCertificates } from './listener.ts';
import { TestCertificates } from './testing/certificates.ts';
import { TestClock } from './testing/clock.ts';
import { TestClient } from './testing/client.ts';
import { between, header, ipv4, TestNode, until, untilAsync } from './testing/node.ts';
import { World, type WorldOptions } from './testing/world.ts';
import { CONTROL_HIGH_WATER_BYTES } from './tunnel.ts';
import { CHECKPOINT_SECONDS } from './tunnels.ts';

const files = new TestCertificates();
const certificates: ListenerCertificates = {
  hosts: new Map([['', files.host([files.selfSigned('gw', 'ec')])]]),
};
files.remove();

describe('Tunnels: what the node holds', () => {
  it('is the record of each session with a tunnel, and of those that ended here, but not of parked ones', async () => {
    await using node = await start();
    const [live, byNode, byStore, parked] = [
      await node.up(),
      await node.up(),
      await node.up(),
      await node.up(),
    ];
    live.client.send(PACKET.data, ipv4(live.address, '10.1.2.3', 100));
    byNode.client.bye(BYE.userDisconnect);
    await node.sessions.end(byStore.session.id, 'terminated');
    parked.client.destroy();
    await until(() => node.tunnels.size === 1);
    await until(() => node.tunnels.holdings().length === 3);
    const held = new Map(node.tunnels.holdings().map((session) => [session.id, session]));
    const stored = await node.sessions.get(live.session.id);
    const record = held.get(live.session.id);
    assert.ok(stored && record);
    assert.deepEqual([record.rxBytes, record.tunnelRxBytes], [100n, 100n]);
    const same = { rxBytes: 0n, tunnelRxBytes: 0n, activeAt: 0n };
    assert.deepEqual({ ...record, ...same }, { ...stored, ...same });
    for (const [{ session }, reason] of [
      [byNode, 'user-disconnect'],
      [byStore, 'terminated'],
    ] as const) {
      const ended = held.get(session.id);
      assert.deepEqual([ended?.state, ended?.endReason], ['closed', reason]);
      assert.equal(ended?.n, (await node.sessions.get(session.id))?.n);
    }
  });
});

describe('Tunnels: packets', () => {
  it('answers CONNECT and carries packets both ways', async () => {
    await using node = await start();
    const { token, session } = await node.session();
    const client = await node.client();
    const answer = await client.connect(token);
    assert.ok(answer.head.startsWith('HTTP/1.1 200 CONNECTED\r\n'));
    const address = header(answer.headers, 'X-CSTP-Address');
    assert.match(address, /^10\.90\.0\.\d+$/);
    assert.equal(header(answer.headers, 'X-CSTP-MTU'), '1418');
    assert.deepEqual(spelledWrong(answer.headers), []);

    const up: Uint8Array[] = [];
    node.device.toHost = (packet) => void up.push(packet);
    const outgoing = ipv4(address, '10.1.2.3', 100);
    client.send(PACKET.data, outgoing);
    await until(() => up.length === 1);
    assert.deepEqual(Buffer.from(up[0] ?? []), outgoing);

    const incoming = ipv4('10.1.2.3', address, 300);
    node.device.inject(incoming);
    const [frame] = await client.frames(1);
    assert.deepEqual(frame, { type: PACKET.data, payload: incoming });

    assert.equal(await node.metric('sallyport_sessions{transport="tls"}'), 1);
    assert.equal(await node.metric('sallyport_tls_handshakes_total{result="ok"}'), 1);
    const [info] = await node.tunnels.tunnels();
    assert.equal(info?.sessionId, session.id);
    assert.equal(info?.ipv4, address);
    assert.equal(info?.rxBytes, 100);
    assert.equal(info?.txBytes, 300);
    assert.equal(info?.tlsCipher, 'TLS1.3-AES_256_GCM_SHA384');
  });

  it('reads a stream of packets whatever the borders of the records are', async () => {
    await using node = await start();
    const { client, address } = await node.up();
    const up: Uint8Array[] = [];
    node.device.toHost = (packet) => void up.push(packet);
    const packet = ipv4(address, '10.1.2.3', 60);
    const several = Buffer.concat([
      encodeFrame(PACKET.data, packet),
      encodeFrame(77, Buffer.from('?')),
      encodeFrame(PACKET.keepalive),
      encodeFrame(PACKET.dpdRequest, Buffer.from('echo')),
      encodeFrame(PACKET.data, packet),
    ]);
    client.write(several);
    assert.deepEqual(await client.frames(1), [{ type: PACKET.dpdResponse, payload: Buffer.from('echo') }]);
    for (const byte of several) client.write(Buffer.from([byte]));
    assert.deepEqual(await client.frames(1), [{ type: PACKET.dpdResponse, payload: Buffer.from('echo') }]);
    await until(() => up.length === 4);
  });

  it('takes packets that came before its answer', async () => {
    await using node = await start();
    const { token } = await node.session();
    const client = await node.client();
    const head = `CONNECT CSCOSSLC/tunnel HTTP/1.1\r\nCookie: webvpn=${token}\r\n\r\n`;
    client.write(Buffer.concat([Buffer.from(head), encodeFrame(PACKET.dpdRequest, Buffer.from('early'))]));
    assert.equal((await client.answer('head')).status, 200);
    assert.deepEqual(await client.frames(1), [{ type: PACKET.dpdResponse, payload: Buffer.from('early') }]);
  });

  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    it(`writes 10,000 packets as 10,000 records (${version})`, async () => {
      await using node = await start();
      const { client, address } = await node.up({ version });
      const overhead = version === 'TLSv1.3' ? 8 + 1 + 16 : 8 + 8 + 16;
      const lengths: number[] = [];
      client.records.length = 0;
      while (lengths.length < 10_000) {
        for (let n = 0; n < 50; n += 1) {
          const length = 20 + ((lengths.length * 37) % 1350);
          lengths.push(length);
          node.device.inject(ipv4('10.1.2.3', address, length));
        }
        await client.frames(50);
      }
      assert.deepEqual(
        client.records,
        lengths.map((length) => length + overhead),
      );
    });
  }

  it('drops packets of a client that does not read, and holds no more than its bound', async () => {
    await using node = await start();
    const { client, address } = await node.up();
    client.stream.pause();
    const slow = 'sallyport_tunnel_drops_total{reason="slow-client"}';
    let most = 0;
    for (let n = 0; n < 40 && (await node.metric(slow)) === 0; n += 1) {
      for (let i = 0; i < 1000; i += 1) node.device.inject(ipv4('10.1.2.3', address, 1400));
      most = Math.max(most, node.pending());
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    assert.ok((await node.metric(slow)) > 0);
    assert.ok(most <= HIGH_WATER_BYTES + 1408, `${most} bytes were waiting`);
    assert.equal(node.tunnels.size, 1);
  });

  it('bounds the answers that wait for a client that asks and does not read', async () => {
    await using node = await start();
    const { client } = await node.up();
    client.stream.pause();
    const question = encodeFrame(PACKET.dpdRequest, Buffer.alloc(16_000));
    const flood = 'sallyport_tunnel_drops_total{reason="control-flood"}';
    for (let n = 0; n < 60 && (await node.metric(flood)) === 0; n += 1) {
      for (let i = 0; i < 100; i += 1) client.write(question);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.ok((await node.metric(flood)) > 0);
    assert.ok(node.pending() <= CONTROL_HIGH_WATER_BYTES + question.length);
  });

  for (const [what, bytes] of [
    ['bytes that are no CSTP', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['a compressed packet', encodeFrame(8, Buffer.from('x'))],
    ['a last header byte that is not 0', Buffer.from('5354460100000701', 'hex')],
  ] as const) {
    it(`closes on ${what} and keeps the session`, async () => {
      await using node = await start();
      const { client, session } = await node.up();
      client.write(bytes);
      assert.deepEqual(await client.untilClosed(), Buffer.alloc(0));
      assert.equal((await node.sessions.get(session.id))?.state, 'parked');
      assert.equal(await node.metric('sallyport_tunnel_ends_total{reason="protocol-error"}'), 1);
    });
  }
});

describe('Tunnels: CONNECT', () => {
  it('says 401 to who must log in again and 503 with the reason to who may come back', async () => {
    let store: 'up' | 'down' = 'up';
    const find = (sessions: MemorySessions, hash: string) => {
      if (store === 'down') return Promise.reject(new StoreUnavailable('away'));
      return sessions.find(hash);
    };
    await using node = await start({
      store: (sessions) => between(sessions, { find: (hash) => find(sessions, hash) }),
    });
    const refusal = async (token: string) => {
      const client = await node.client();
      const { status, headers } = await client.connect(token);
      assert.equal(header(headers, 'Content-Length'), '0');
      assert.equal(header(headers, 'Connection'), 'close');
      assert.equal(header(headers, 'Cache-Control'), 'no-store');
      await client.untilClosed();
      return [status, header(headers, 'X-Reason')];
    };
    assert.deepEqual(await refusal('never-heard-of'), [401, reasonText('token-unknown')]);
    assert.deepEqual(await refusal(''), [401, reasonText('token-missing')]);
    assert.equal((await refusal('x'.repeat(5000)))[0], 401);
    const first = await node.session({ ipv4Pools: ['10.91.0.0/30'] });
    const second = await node.session({ ipv4Pools: ['10.91.0.0/30'] });
    assert.equal((await (await node.client()).connect(first.token)).status, 200);
    assert.deepEqual(await refusal(second.token), [503, reasonText('pool-empty')]);
    await node.sessions.end(second.session.id, 'user-locked');
    assert.deepEqual(await refusal(second.token), [401, reasonText('user-locked')]);
    store = 'down';
    assert.deepEqual(await refusal(first.token), [503, reasonText('store-unavailable')]);
    assert.equal(node.tunnels.size, 1);
  });

  it('makes an event of a refusal of a session, with the reason that the client got', async () => {
    await using node = await start();
    const first = await node.session({ maxSameClients: 1 });
    const second = await node.session({ maxSameClients: 1 });
    assert.equal((await (await node.client()).connect(first.token)).status, 200);
    const { status, headers } = await (await node.client()).connect(second.token);
    assert.deepEqual([status, header(headers, 'X-Reason')], [503, reasonText('max-same-clients')]);
    const ofSession = { user: 'alice', profile: 'staff', address: '127.0.0.1', node: 'n1' };
    const refused = () => node.events.recent(100).filter(({ type }) => type === 'connect.refused');
    assert.deepEqual(
      refused().map(({ at: _at, ...fact }) => fact),
      [
        {
          ...{ v: 1, type: 'connect.refused', reason: 'max-same-clients', sessionId: second.session.id },
          ...ofSession,
        },
      ],
    );
    assert.equal(await node.metric('sallyport_connects_total{result="max-same-clients"}'), 1);
    await (await node.client()).connect('never-heard-of');
    await node.sessions.end(second.session.id, 'user-locked');
    await (await node.client()).connect(second.token);
    assert.equal(refused().length, 1, 'what is unknown, or ended with an event of its own, is only counted');
  });

  it('lets a bounded number of CONNECTs wait for the store', async () => {
    let open: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => (open = resolve));
    const find = async (sessions: MemorySessions, hash: string) => {
      await gate;
      return sessions.find(hash);
    };
    await using node = await start({
      connectsAtOnce: 1,
      store: (sessions) => between(sessions, { find: (hash) => find(sessions, hash) }),
    });
    const { token } = await node.session();
    const waiting = (await node.client()).connect(token);
    const refused = await (await node.client()).connect(token);
    assert.deepEqual(
      [refused.status, header(refused.headers, 'X-Reason')],
      [503, reasonText('connect-rate')],
    );
    open();
    assert.equal((await waiting).status, 200);
  });

  it('serves no tunnel for a lease that was lost before it could be attached', async () => {
    const claim: Sessions['claim'] = async () => assert.fail('set below');
    const calls = { claim };
    await using node = await start({
      store: (sessions) => {
        calls.claim = async (request) => {
          const mine = await sessions.claim(request);
          await sessions.claim({
            ...request,
            node: { name: 'n2', incarnation: 'x' },
            connectionId: 'another',
          });
          await new Promise((resolve) => setTimeout(resolve, 50));
          return mine;
        };
        return between(sessions, { claim: (request) => calls.claim(request) });
      },
    });
    const { token, session } = await node.session();
    const client = await node.client();
    await assert.rejects(client.connect(token), /ended after ""/);
    assert.equal(node.tunnels.size, 0);
    assert.equal((await node.sessions.get(session.id))?.lease?.name, 'n2');
  });

  it('refuses CONNECT to anything but the tunnel', async () => {
    await using node = await start();
    const client = await node.client();
    client.write('CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n');
    assert.equal((await client.answer()).status, 404);
    await client.untilClosed();
  });
});

describe('Tunnels: life', () => {
  it('closes the old connection of a session without a packet, and a late BYE there changes nothing', async () => {
    await using node = await start();
    const { client: old, token, address, session } = await node.up();
    const client = await node.client();
    const answer = await client.connect(token);
    assert.equal(header(answer.headers, 'X-CSTP-Address'), address);
    old.bye(BYE.userDisconnect);
    assert.deepEqual(await old.untilClosed(), Buffer.alloc(0));
    assert.equal((await node.sessions.get(session.id))?.state, 'up');
    node.device.inject(ipv4('10.1.2.3', address, 40));
    assert.equal((await client.frames(1))[0]?.type, PACKET.data);
  });

  it('ends the session at a BYE of the user, and keeps it at every other end', async () => {
    await using node = await start();
    for (const [end, state, status] of [
      [(client: TestClient) => client.bye(BYE.networkChanged), 'parked', 200],
      [(client: TestClient) => client.bye(BYE.pause), 'parked', 200],
      [(client: TestClient) => client.bye(BYE.localError), 'parked', 200],
      [(client: TestClient) => void client.stream.end(), 'parked', 200],
      [(client: TestClient) => client.destroy(), 'parked', 200],
      [(client: TestClient) => client.bye(BYE.userDisconnect), 'closed', 401],
    ] as const) {
      const { client, token, session, address } = await node.up();
      end(client);
      await untilAsync(async () => (await node.sessions.get(session.id))?.state === state);
      const again = await (await node.client()).connect(token);
      assert.equal(again.status, status);
      if (status === 200) assert.equal(header(again.headers, 'X-CSTP-Address'), address);
    }
  });

  it('tells the client when its session is ended from outside, and parks it at a disconnect', async () => {
    await using node = await start();
    const first = await node.up();
    await node.sessions.end(first.session.id, 'terminated');
    const [bye] = await first.client.frames(1);
    assert.equal(bye?.type, PACKET.disconnect);
    assert.equal(bye?.payload.toString('latin1', 1), reasonText('terminated'));
    await first.client.untilClosed();

    const second = await node.up();
    assert.equal(await node.tunnels.disconnect([second.session.id, 'unknown'], 'server-disconnect'), 1);
    assert.equal((await second.client.frames(1))[0]?.type, PACKET.disconnect);
    assert.equal((await node.sessions.get(second.session.id))?.state, 'parked');
    assert.equal((await (await node.client()).connect(second.token)).status, 200);
  });

  it('announces the addresses of a tunnel while it is there, whatever its end', async () => {
    const announced = new Map<number, string>();
    const returnPath: ReturnPath = {
      ...NO_RETURN_PATH,
      announce: (id, { ipv4, ipv6PrefixLength }) => void announced.set(id, `${ipv4} ${ipv6PrefixLength}`),
      withdraw: (id) => void announced.delete(id),
    };
    await using node = await start({ returnPath });
    const ends: ((client: TestClient, sessionId: string) => unknown)[] = [
      (client) => client.bye(BYE.userDisconnect),
      (client) => client.destroy(),
      (_, sessionId) => node.sessions.end(sessionId, 'terminated'),
      (_, sessionId) => node.tunnels.disconnect([sessionId], 'server-disconnect'),
      () => node.tunnels.close(),
    ];
    for (const end of ends) {
      const { token, session, address } = await node.up({ grant: { ipv6SubnetPrefix: 64 } });
      assert.deepEqual([...announced.values()], [`${address} 64`]);
      const [first] = announced.keys();
      // The second tunnel of a session takes the place of the first.
      const client = await node.client();
      assert.equal((await client.connect(token)).status, 200);
      assert.deepEqual([...announced.values()], [`${address} 64`]);
      assert.notEqual([...announced.keys()][0], first);
      await end(client, session.id);
      await until(() => announced.size === 0);
    }
  });

  it('counts the idle time of a session on when its client connects again', async () => {
    const clock = new TestClock();
    await using node = await start({
      clock,
      store: (sessions) =>
        between(sessions, {
          claim: async (request) => {
            const claim = await sessions.claim(request);
            if (!claim.ok) return claim;
            return {
              ...claim,
              session: { ...claim.session, activeAt: claim.session.activeAt - 500_000_000n },
            };
          },
        }),
    });
    const { session } = await node.up({ grant: { idleTimeoutSeconds: 600, dpdSeconds: 0 } });
    clock.pass(95, node.tunnels);
    assert.equal(node.tunnels.size, 1);
    clock.pass(5, node.tunnels);
    assert.equal(node.tunnels.size, 0);
    await untilAsync(async () => (await node.sessions.get(session.id))?.endReason === 'idle-timeout');
  });

  it('gives an address to whom the store gave it last, and lets the tunnel go that still has it', async () => {
    const addresses: SessionAddresses[] = [];
    await using node = await start({
      store: (sessions) =>
        between(sessions, {
          claim: async (request) => {
            const claim = await sessions.claim(request);
            if (!claim.ok) return claim;
            addresses.push(claim.addresses);
            return { ...claim, addresses: addresses[0] ?? claim.addresses };
          },
        }),
    });
    const first = await node.up();
    const second = await node.up();
    assert.equal(second.address, first.address);
    await first.client.untilClosed();
    assert.equal(node.tunnels.size, 1);
    const packet = ipv4('10.1.2.3', second.address, 100);
    node.device.inject(packet);
    assert.deepEqual(await second.client.frames(1), [{ type: PACKET.data, payload: packet }]);
  });

  it('finds the token in a second Cookie header', async () => {
    await using node = await start();
    const { token } = await node.session();
    const client = await node.client();
    client.write(`CONNECT /CSCOSSLC/tunnel HTTP/1.1\r\nCookie: a=b\r\nCookie: webvpn=${token}\r\n\r\n`);
    assert.equal((await client.answer('head')).status, 200);
  });

  it('ends an idle session in the store before it tells the client', async () => {
    const clock = new TestClock();
    await using node = await start({ clock });
    const { client, session } = await node.up({ grant: { idleTimeoutSeconds: 600, dpdSeconds: 0 } });
    clock.pass(599, node.tunnels);
    assert.equal(node.tunnels.size, 1);
    clock.pass(1, node.tunnels);
    const [bye] = await client.frames(1);
    assert.equal((await node.sessions.get(session.id))?.endReason, 'idle-timeout');
    assert.equal(bye?.payload.toString('latin1', 1), reasonText('idle-timeout'));
    await client.untilClosed();
  });

  it('tells the store later what it could not hear', async () => {
    let failures = 1;
    const park: (sessions: MemorySessions) => Sessions['park'] =
      (sessions) =>
      async (...request) => {
        if (failures-- > 0) throw new StoreUnavailable('away');
        return sessions.park(...request);
      };
    const clock = new TestClock();
    await using node = await start({
      clock,
      store: (sessions) => between(sessions, { park: park(sessions) }),
    });
    const { client, session } = await node.up();
    client.destroy();
    await until(() => failures === 0);
    assert.equal((await node.sessions.get(session.id))?.state, 'up');
    clock.pass(1, node.tunnels);
    await untilAsync(async () => (await node.sessions.get(session.id))?.state === 'parked');
  });

  it('checkpoints usage each minute', async () => {
    const clock = new TestClock();
    const marks: bigint[] = [];
    const checkpoint: Sessions['checkpoint'] = async (_id, _lease, usage) => {
      marks.push(usage.rxBytes);
      return true;
    };
    await using node = await start({
      clock,
      store: (sessions) => between(sessions, { checkpoint }),
    });
    const { client, address } = await node.up();
    client.send(PACKET.data, ipv4(address, '10.1.2.3', 100));
    await untilAsync(async () => (await node.tunnels.tunnels())[0]?.rxBytes === 100);
    clock.pass(2 * CHECKPOINT_SECONDS, node.tunnels);
    assert.deepEqual(marks, [100n], 'nothing moved since');
  });

  it('parks the session of a client that answers no DPD', async () => {
    const clock = new TestClock();
    await using node = await start({ clock });
    const { client, session } = await node.up({ grant: { dpdSeconds: 20, keepaliveSeconds: 0 } });
    clock.pass(20, node.tunnels);
    assert.equal((await client.frames(1))[0]?.type, PACKET.dpdRequest);
    clock.pass(60, node.tunnels);
    await client.untilClosed();
    assert.equal((await node.sessions.get(session.id))?.state, 'parked');
    assert.equal(await node.metric('sallyport_dpd_timeouts_total'), 1);
  });

  it('parks all sessions at a planned stop and closes without a packet', async () => {
    await using node = await start();
    const one = await node.up();
    const two = await node.up();
    await node.tunnels.close();
    assert.deepEqual(await one.client.untilClosed(), Buffer.alloc(0));
    assert.deepEqual(await two.client.untilClosed(), Buffer.alloc(0));
    assert.equal((await node.sessions.get(one.session.id))?.state, 'parked');
    assert.equal((await (await node.client()).connect(one.token)).status, 503);
  });
});

describe('Tunnels: what clients say', () => {
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    it(`follows the rotation of STRAP keys and refuses a wrong signature (${version})`, async () => {
      await using node = await start({ strap: 'strict' });
      const keys = Array.from({ length: 5 }, () => generateKeyPairSync('ec', { namedCurve: 'P-256' }));
      const { token } = await node.session({}, { strapKey: spki(keys[0]?.publicKey) });
      const connect = async (old: number, next: number) => {
        const client = await node.client(version);
        const finished = client.tls.getFinished();
        assert.ok(finished);
        const nextKey = spki(keys[next]?.publicKey);
        const message = strapMessage(finished, Buffer.from(nextKey, 'base64'));
        const signer = keys[old]?.privateKey;
        assert.ok(signer);
        const signature = sign('sha256', message, signer).toString('base64');
        const headers = [`X-AnyConnect-STRAP-Verify: ${signature}`, `X-AnyConnect-STRAP-Pubkey: ${nextKey}`];
        return (await client.connect(token, headers)).status;
      };
      assert.equal(await connect(0, 1), 200);
      assert.equal(await connect(1, 2), 200);
      assert.equal(await connect(2, 3), 200);
      assert.equal(await connect(2, 3), 200, 'the answer before was lost');
      assert.equal(await connect(4, 4), 401, 'a stranger');
      assert.equal(await connect(0, 1), 401, 'a key of long ago');
      assert.equal(await (await node.client(version)).connect(token).then((answer) => answer.status), 401);
    });
  }

  it('survives hostile sizes in CONNECT: MTU, cookies', async () => {
    await using node = await start();
    for (const value of ['0', '1', '500', '799', '65535', '-1', '1e9', '']) {
      const { token } = await node.session();
      const client = await node.client();
      const answer = await client.connect(token, [`X-CSTP-Base-MTU: ${value}`, `X-CSTP-MTU: ${value}`]);
      const mtu = Number(header(answer.headers, 'X-CSTP-MTU'));
      assert.ok(mtu >= 576 && mtu <= 1500, `${value} made ${mtu}`);
    }
    const { token } = await node.session();
    const many = Array.from({ length: 3000 }, (_, n) => `a${n}=b`).join('; ');
    for (const [cookies, status] of [
      [`webvpncontext=${'A'.repeat(1000)}; webvpn=${token}; webvpn=other`, 200],
      [`webvpn=; webvpn=${'%00'.repeat(1000)}`, 401],
      [many, 401],
    ] as const) {
      const client = await node.client();
      client.write(`CONNECT /CSCOSSLC/tunnel HTTP/1.1\r\nCookie: ${cookies}\r\n\r\n`);
      assert.equal((await client.answer('head')).status, status);
    }
  });

  it('gives phones and tablets their own timers', async () => {
    await using node = await start();
    const ask = async (...headers: string[]) => {
      const { token } = await node.session({ dpdSeconds: 20, mobileDpdSeconds: 1800 });
      return header((await (await node.client()).connect(token, headers)).headers, 'X-CSTP-DPD');
    };
    assert.equal(await ask('User-Agent: Open AnyConnect VPN Agent v9.01'), '20');
    assert.equal(await ask('X-AnyConnect-Identifier-Platform: android'), '1800');
    assert.equal(await ask('X-CSTP-License: mobile'), '1800');
  });

  it('gives out no IPv6 address when the link cannot carry it or the client does not ask', async () => {
    await using node = await start();
    const grant = { ipv6Pools: ['fd00:90::/64'] };
    const ask = async (...headers: string[]) => {
      const { token } = await node.session(grant);
      const answer = await (await node.client()).connect(token, headers);
      return header(answer.headers, 'X-CSTP-Address-IP6');
    };
    const full = 'X-CSTP-Full-IPv6-Capability: true';
    assert.match(await ask(full, 'X-CSTP-Address-Type: IPv6,IPv4', 'X-CSTP-Base-MTU: 1500'), /^fd00:90::/);
    assert.equal(await ask(full, 'X-CSTP-Address-Type: IPv6,IPv4', 'X-CSTP-Base-MTU: 1200'), '');
    assert.equal(await ask(full, 'X-CSTP-Address-Type: IPv4', 'X-CSTP-Base-MTU: 1500'), '');
  });
});

async function start(options: WorldOptions = {}) {
  return new TestNode(await World.open(certificates, options));
}

/** X-CSTP headers whose parts do not begin with a capital letter: openconnect would not see them. */
function spelledWrong(headers: readonly [string, string][]): string[] {
  return headers.map(([name]) => name).filter((name) => !/^X-CSTP(-[A-Z][A-Za-z0-9]*)+$/.test(name));
}

function spki(key: KeyObject | undefined): string {
  return key?.export({ type: 'spki', format: 'der' }).toString('base64') ?? '';
}
