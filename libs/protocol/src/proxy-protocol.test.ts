import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MAX_V1_BYTES, MAX_V2_LENGTH, readProxyHeader, type ProxyHeader } from './proxy-protocol.ts';

const SIGNATURE = [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];
const IPV4 = [192, 0, 2, 1, 198, 51, 100, 2, 0x9c, 0x40, 0x01, 0xbb];
const IPV6 = [...ipv6(1), ...ipv6(2), 0x9c, 0x40, 0x01, 0xbb];
const HELLO = [0x16, 0x03, 0x01];

const GOOD: [string, Uint8Array, Omit<Extract<ProxyHeader, { kind: 'proxied' }>, 'bytes'>][] = [
  [
    'version 1, IPv4',
    text('PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n'),
    proxied('192.0.2.1', '198.51.100.2'),
  ],
  [
    'version 1, IPv6',
    text('PROXY TCP6 2001:db8::1 2001:DB8:0::2 40000 443\r\n'),
    proxied('2001:db8::1', '2001:db8::2'),
  ],
  ['version 2, IPv4', v2(0x21, 0x11, IPV4), proxied('192.0.2.1', '198.51.100.2')],
  ['version 2, IPv6', v2(0x21, 0x21, IPV6), proxied('2001:db8::1', '2001:db8::2')],
  [
    'version 2 with TLVs',
    v2(0x21, 0x11, [...IPV4, ...tlv(0x04, [0, 0]), ...tlv(0xea, [1])]),
    proxied('192.0.2.1', '198.51.100.2'),
  ],
  [
    'version 2, IPv4 inside IPv6',
    v2(0x21, 0x21, [...mapped(192, 0, 2, 1), ...mapped(198, 51, 100, 2), 0x9c, 0x40, 0x01, 0xbb]),
    proxied('192.0.2.1', '198.51.100.2'),
  ],
  ['version 2 with a checksum', checksummed(), proxied('192.0.2.1', '198.51.100.2')],
];

describe('readProxyHeader', () => {
  for (const [name, header, expected] of GOOD) {
    it(`reads ${name} at every split, and leaves the client's bytes`, () => {
      for (let length = 0; length < header.length; length++)
        assert.deepEqual(
          readProxyHeader(header.subarray(0, length)),
          { kind: 'incomplete' },
          `${length} bytes`,
        );
      const whole = { ...expected, bytes: header.length };
      assert.deepEqual(readProxyHeader(header), whole);
      assert.deepEqual(readProxyHeader(Uint8Array.from([...header, ...HELLO])), whole);
    });
  }

  it('takes what the balancer says of itself, or does not know, as the balancer', () => {
    for (const header of [
      text('PROXY UNKNOWN\r\n'),
      text('PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n'),
      v2(0x20, 0x00, []),
      v2(0x20, 0x11, IPV4),
      v2(0x20, 0x77, [1, 2, 3]),
      v2(0x21, 0x00, []),
      v2(0x21, 0x00, tlv(0x04, [])),
    ])
      assert.deepEqual(readProxyHeader(header), { kind: 'local', bytes: header.length });
  });

  it('refuses what is no header at its first wrong byte', () => {
    for (const bytes of [HELLO, [0x47], [0x50, 0x4f], [0x0d, 0x0a, 0x0d, 0x0a, 0x01]])
      assert.deepEqual(readProxyHeader(Uint8Array.from(bytes)), { kind: 'bad', problem: 'there is none' });
  });

  it('refuses lines of version 1 that break a rule', () => {
    for (const line of [
      'PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\n',
      'PROXY TCP4 192.0.2.1  198.51.100.2 40000 443\r\n',
      'PROXY TCP4 192.0.2.1 198.51.100.2 40000 443 \r\n',
      'PROXY TCP4 192.0.2.1 198.51.100.2 40000\r\n',
      'PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n',
      'PROXY TCP4 192.0.2.1 198.51.100.2 040 443\r\n',
      'PROXY TCP4 192.0.2.1 198.51.100.2 -1 443\r\n',
      'PROXY TCP4 192.0.2.256 198.51.100.2 1 443\r\n',
      'PROXY TCP4 3221225985 198.51.100.2 1 443\r\n',
      'PROXY TCP4 2001:db8::1 2001:db8::2 1 443\r\n',
      'PROXY TCP6 192.0.2.1 198.51.100.2 1 443\r\n',
      'PROXY TCP6 fe80::1%eth0 2001:db8::2 1 443\r\n',
      'PROXY UDP4 192.0.2.1 198.51.100.2 1 443\r\n',
      'PROXY tcp4 192.0.2.1 198.51.100.2 1 443\r\n',
      'PROXY  UNKNOWN\r\n',
      'PROXY UNKNOWNS\r\n',
      'PROXY \r\n',
    ])
      assert.equal(readProxyHeader(text(line)).kind, 'bad', line);
  });

  it('reads no line that is longer than the longest', () => {
    const fill = (length: number) => text(`PROXY UNKNOWN ${'x'.repeat(length - 16)}\r\n`);
    assert.equal(readProxyHeader(fill(MAX_V1_BYTES)).kind, 'local');
    assert.equal(readProxyHeader(fill(MAX_V1_BYTES + 1)).kind, 'bad');
    assert.equal(readProxyHeader(fill(MAX_V1_BYTES + 1).subarray(0, MAX_V1_BYTES - 1)).kind, 'incomplete');
    assert.equal(readProxyHeader(fill(MAX_V1_BYTES + 1).subarray(0, MAX_V1_BYTES)).kind, 'bad');
  });

  it('refuses headers of version 2 that break a rule', () => {
    const lie = (length: number, ...body: number[]) => [0x21, 0x11, length >> 8, length & 0xff, ...body];
    for (const [name, bytes] of Object.entries({
      'another version': v2(0x11, 0x11, IPV4),
      'an unknown command': v2(0x22, 0x11, IPV4),
      'UDP over IPv4': v2(0x21, 0x12, IPV4),
      'UDP over IPv6': v2(0x21, 0x22, IPV6),
      'a Unix socket': v2(
        0x21,
        0x31,
        Array.from({ length: 216 }, () => 0),
      ),
      'an unknown family': v2(0x21, 0x41, IPV4),
      'an unknown transport': v2(0x21, 0x13, IPV4),
      'too short for IPv4': v2(0x21, 0x11, IPV4.slice(1)),
      'too short for IPv6': v2(0x21, 0x21, IPV4),
      'a TLV without its length': v2(0x21, 0x11, [...IPV4, 0x04]),
      'a TLV that ends after the header': v2(0x21, 0x11, [...IPV4, 0x04, 0x00, 0x05, 1, 2, 3, 4]),
      'a TLV of 65,535 bytes': v2(0x21, 0x11, [...IPV4, 0x04, 0xff, 0xff]),
      'a checksum of three bytes': v2(0x21, 0x11, [...IPV4, ...tlv(0x03, [1, 2, 3])]),
      'a header too long': Uint8Array.from([...SIGNATURE, ...lie(MAX_V2_LENGTH + 1, ...IPV4)]),
      'the longest length': Uint8Array.from([...SIGNATURE, ...lie(0xffff, ...IPV4)]),
    }))
      assert.equal(readProxyHeader(bytes).kind, 'bad', name);
    const longest = v2(0x21, 0x11, [
      ...IPV4,
      ...tlv(
        0x04,
        Array.from({ length: MAX_V2_LENGTH - 15 }, () => 0),
      ),
    ]);
    assert.equal(readProxyHeader(longest).kind, 'proxied');
  });

  it('takes no header whose checksum covers other bytes', () => {
    const header = checksummed();
    for (const at of [16, 20, 24, header.length - 1]) {
      const changed = header.map((byte, index) => (index === at ? byte ^ 1 : byte));
      assert.deepEqual(
        readProxyHeader(changed),
        { kind: 'bad', problem: 'the checksum is wrong' },
        `byte ${at}`,
      );
    }
  });

  it('ends for any bytes, and never reads beyond the bound', () => {
    let seed = 7;
    const random = () => (seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648);
    for (let round = 0; round < 20_000; round++) {
      const [, good] = GOOD[round % GOOD.length] ?? [];
      const bytes = Uint8Array.from([...(good ?? []), ...Array.from({ length: 700 }, () => 0x41)]);
      bytes[random() % 60] = random() % 256;
      const read = readProxyHeader(bytes);
      if ('bytes' in read) assert.ok(read.bytes <= 16 + MAX_V2_LENGTH);
      else assert.equal(read.kind, 'bad', 'so many bytes are enough for an answer');
    }
  });
});

function text(line: string): Uint8Array {
  return Uint8Array.from(line, (character) => character.charCodeAt(0));
}

function v2(versionAndCommand: number, family: number, body: number[]): Uint8Array {
  return Uint8Array.from([
    ...SIGNATURE,
    versionAndCommand,
    family,
    body.length >> 8,
    body.length & 0xff,
    ...body,
  ]);
}

function tlv(type: number, value: number[]): number[] {
  return [type, value.length >> 8, value.length & 0xff, ...value];
}

/** Its checksum was computed by another implementation. */
function checksummed(): Uint8Array {
  return v2(0x21, 0x11, [...IPV4, ...tlv(0x04, [0]), ...tlv(0x03, [0x75, 0xd8, 0x28, 0xee])]);
}

function ipv6(last: number): number[] {
  return [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
}

function mapped(...address: number[]): number[] {
  return [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...address];
}

function proxied(source: string, destination: string) {
  return {
    kind: 'proxied' as const,
    source: { address: source, port: 40_000 },
    destination: { address: destination, port: 443 },
  };
}
