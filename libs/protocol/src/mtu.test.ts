import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  cstpMtu,
  DEFAULT_LINK_MTU_BYTES,
  dtlsMtu,
  linkMtu,
  MIN_LINK_MTU_BYTES,
  tlsOverhead,
  tunnelMtu,
  type DtlsOverhead,
  type TlsOverhead,
} from './mtu.ts';

const DTLS: Record<DtlsOverhead, [ipv4: number, ipv6: number]> = {
  gcm: [1434, 1414],
  chacha20: [1442, 1422],
  ccm8: [1442, 1422],
  'cbc-sha1': [1418, 1386],
  'cbc-sha256': [1406, 1374],
  '3des-sha1': [1426, 1402],
};
const CSTP: Record<TlsOverhead, number> = {
  tls13: 1418,
  'tls12-gcm': 1411,
  'tls12-chacha20': 1419,
  'tls12-cbc': 1395,
};

test('gives the MTUs of docs/protocol.md §5.6 for a link of 1500', () => {
  for (const [cipher, [ipv4, ipv6]] of entries(DTLS)) {
    assert.deepEqual([dtlsMtu(1500, 'ipv4', cipher), dtlsMtu(1500, 'ipv6', cipher)], [ipv4, ipv6], cipher);
  }
  for (const [tls, mtu] of entries(CSTP)) assert.equal(cstpMtu(1500, 'ipv4', tls), mtu, tls);
});

test('is the largest MTU whose outer packet fits the link, for every link', () => {
  for (let link = MIN_LINK_MTU_BYTES; link <= 1500; link += 1) {
    for (const [outer, ip] of [
      ['ipv4', 20],
      ['ipv6', 40],
    ] as const) {
      for (const [cipher] of entries(DTLS)) {
        const mtu = dtlsMtu(link, outer, cipher);
        assert.ok(
          ip + 8 + datagram(cipher, mtu) <= link && ip + 8 + datagram(cipher, mtu + 1) > link,
          `${cipher} ${link}`,
        );
      }
      for (const [tls] of entries(CSTP)) {
        const mtu = cstpMtu(link, outer, tls);
        assert.ok(
          ip + 32 + record(tls, mtu) <= link && ip + 32 + record(tls, mtu + 1) > link,
          `${tls} ${link}`,
        );
      }
    }
  }
});

test('takes the link from the request, back from the wanted MTU, or from the default', () => {
  assert.equal(linkMtu({ baseMtuBytes: 1400, mtuBytes: 1200 }, 'ipv4'), 1400);
  assert.equal(linkMtu({ baseMtuBytes: 0, mtuBytes: 1290 }, 'ipv4'), 1400);
  assert.equal(linkMtu({ baseMtuBytes: 0, mtuBytes: 1270 }, 'ipv6'), 1400);
  assert.equal(linkMtu({ baseMtuBytes: 0, mtuBytes: 0 }, 'ipv4'), DEFAULT_LINK_MTU_BYTES);
  assert.equal(linkMtu({ baseMtuBytes: 9000, mtuBytes: 0 }, 'ipv4'), 1500);
  assert.equal(linkMtu({ baseMtuBytes: 0, mtuBytes: 576 }, 'ipv4'), MIN_LINK_MTU_BYTES);
});

test('uses the smaller of both channels and the policy, and says whether IPv6 fits', () => {
  const input = { baseMtuBytes: 1500, mtuBytes: 0, outer: 'ipv4', tls: 'tls13', limitBytes: 0 } as const;
  assert.deepEqual(tunnelMtu(input), { baseMtuBytes: 1500, mtuBytes: 1418, ipv6Fits: true });
  assert.equal(tunnelMtu({ ...input, dtls: 'cbc-sha256' }).mtuBytes, 1406);
  assert.equal(tunnelMtu({ ...input, dtls: 'gcm' }).mtuBytes, 1418);
  assert.deepEqual(tunnelMtu({ ...input, limitBytes: 1280 }), {
    baseMtuBytes: 1500,
    mtuBytes: 1280,
    ipv6Fits: true,
  });
  assert.equal(tunnelMtu({ ...input, limitBytes: 1279 }).ipv6Fits, false);
  assert.equal(tunnelMtu({ ...input, limitBytes: 9000 }).mtuBytes, 1418);
  assert.equal(tunnelMtu({ ...input, baseMtuBytes: 1361 }).ipv6Fits, false);
  assert.equal(tunnelMtu({ ...input, baseMtuBytes: 1362 }).ipv6Fits, true);
});

test('knows the overhead of a TLS connection by its cipher, and takes the dearest for one it does not know', () => {
  assert.equal(tlsOverhead('TLSv1.3', 'TLS_AES_256_GCM_SHA384'), 'tls13');
  assert.equal(tlsOverhead('TLSv1.2', 'ECDHE-RSA-AES256-GCM-SHA384'), 'tls12-gcm');
  assert.equal(tlsOverhead('TLSv1.2', 'ECDHE-RSA-CHACHA20-POLY1305'), 'tls12-chacha20');
  assert.equal(tlsOverhead('TLSv1.2', 'ECDHE-RSA-AES128-SHA'), 'tls12-cbc');
  assert.equal(tlsOverhead('TLSv1.2', 'something'), 'tls12-cbc');
});

/** UDP payload that carries an inner packet of n bytes. */
function datagram(cipher: DtlsOverhead, n: number): number {
  switch (cipher) {
    case 'gcm':
      return 13 + 8 + (1 + n) + 16;
    case 'chacha20':
      return 13 + (1 + n) + 16;
    case 'ccm8':
      return 13 + 8 + (1 + n) + 8;
    case 'cbc-sha1':
      return 13 + 16 + Math.ceil((1 + n + 20 + 1) / 16) * 16;
    case 'cbc-sha256':
      return 13 + 16 + Math.ceil((1 + n + 32 + 1) / 16) * 16;
    case '3des-sha1':
      return 13 + 8 + Math.ceil((1 + n + 20 + 1) / 8) * 8;
  }
}

function record(tls: TlsOverhead, n: number): number {
  if (tls === 'tls13') return 5 + (8 + n + 1) + 16;
  if (tls === 'tls12-gcm') return 5 + 8 + (8 + n) + 16;
  if (tls === 'tls12-chacha20') return 5 + (8 + n) + 16;
  return 5 + 16 + Math.ceil((8 + n + 20 + 1) / 16) * 16;
}

function entries<K extends string, V>(table: Record<K, V>): [K, V][] {
  return Object.entries(table) as [K, V][];
}
