import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { describe, it } from 'node:test';
import { formatAddress, gatewayOf, parseCidr } from '@sallyport/protocol';
import type { Grant, Reason } from '@sallyport/protocol';
import { AddressBook, RANDOM_DRAWS, RESTING_LIMIT, REUSE_DELAY_SECONDS } from './addresses.ts';
import { decideStart, seconds } from './session-decisions.ts';
import { sampleLogin } from './session.fake.ts';
import type { Session, SessionAddresses } from './session.ts';
import { apply } from './session.ts';

const START = 1_800_000_000_000_000n;

describe('what a pool gives', () => {
  const cases: [cidr: string, length: number, addresses: string[]][] = [
    ['10.0.0.0/29', 32, ['10.0.0.2', '10.0.0.3', '10.0.0.4', '10.0.0.5', '10.0.0.6']],
    ['10.0.0.4/30', 32, ['10.0.0.6']],
    ['10.0.0.8/31', 32, ['10.0.0.9']],
    ['10.0.0.7/32', 32, ['10.0.0.7']],
    ['10.0.0.5/30', 32, ['10.0.0.6']],
    ['fd00::/125', 128, ['fd00::2', 'fd00::3', 'fd00::4', 'fd00::5', 'fd00::6', 'fd00::7']],
    ['fd00::/127', 128, ['fd00::1']],
    ['fd00::9/128', 128, ['fd00::9']],
    ['fd00::/62', 64, ['fd00:0:0:1::1', 'fd00:0:0:2::1', 'fd00:0:0:3::1']],
    ['fd00::/124', 127, ['fd00::3', 'fd00::5', 'fd00::7', 'fd00::9', 'fd00::b', 'fd00::d', 'fd00::f']],
    ['fd00::/64', 64, []],
    ['fd00::/72', 64, []],
  ];
  for (const [cidr, length, expected] of cases) {
    it(`${cidr} with /${length} per client: ${expected.length} clients, never network, broadcast or gateway`, () => {
      const family = cidr.includes(':') ? 'ipv6' : 'ipv4';
      const pools =
        family === 'ipv6' ? { ipv6Pools: [cidr], ipv4Pools: [] } : { ipv4Pools: [cidr], ipv6Pools: [] };
      const book = new Book({ ...pools, ipv6SubnetPrefix: length });
      const got: string[] = [];
      for (;;) {
        const taken = book.take(`user${got.length}`);
        if (typeof taken === 'string') {
          assert.equal(taken, 'pool-empty');
          break;
        }
        got.push(taken.addresses[family]);
      }
      assert.deepEqual([...got].sort(), [...expected].sort());
      assert.ok(!got.includes(gatewayIn(cidr)));
      assert.equal(book.use()?.size, BigInt(expected.length));
      assert.equal(book.use()?.used, expected.length);
    });
  }
});

describe('choice', () => {
  it('is random among the free, not the first', () => {
    const got = new Set<string>();
    for (let i = 0; i < 8; i++) {
      const taken = new Book({ ipv4Pools: ['10.0.0.0/16'], ipv6Pools: [] }).must('a');
      got.add(taken.addresses.ipv4);
    }
    assert.ok(got.size > 4, [...got].join());
  });

  it('prefers addresses that nobody had, then the one that rests longest', () => {
    const book = new Book({ ipv4Pools: ['10.0.0.0/29'], ipv6Pools: [] });
    const a = book.must('a');
    const b = book.must('b');
    book.free(b);
    book.pass(1000);
    book.free(a);
    book.pass(1000);
    const fresh = ['c', 'd', 'e'].map((user) => book.must(user).addresses.ipv4);
    assert.ok(!fresh.includes(a.addresses.ipv4) && !fresh.includes(b.addresses.ipv4));
    assert.equal(book.must('f').addresses.ipv4, b.addresses.ipv4);
    assert.equal(book.must('g').addresses.ipv4, a.addresses.ipv4);
  });

  it('gives a user of a profile the last address back, while it is free', () => {
    const book = new Book({ ipv4Pools: ['10.0.0.0/29'], ipv6Pools: [] });
    const a = book.must('a');
    book.free(a);
    for (const user of ['b', 'c', 'd', 'e']) book.must(user);
    assert.equal(book.must('a').addresses.ipv4, a.addresses.ipv4);
    assert.equal(book.take('a'), 'pool-empty', 'a hint, not a reservation');
  });

  it('does not follow a hint out of the pools of the grant', () => {
    const book = new Book({ ipv4Pools: ['10.0.0.0/29'], ipv6Pools: [] });
    book.free(book.must('a'));
    assert.match(book.must('a', { ipv4Pools: ['10.5.0.0/29'] }).addresses.ipv4, /^10\.5\.0\./);
  });

  it('waits with the address of another user for the reuse delay where another pool has a free one', () => {
    const grant = { ipv4Pools: ['10.0.0.0/31', '10.0.1.0/31'], ipv6Pools: [] };
    const book = new Book(grant);
    const first = book.must('a');
    book.free(first);
    book.pass(REUSE_DELAY_SECONDS - 1);
    const second = book.must('b');
    assert.equal(second.addresses.ipv4, '10.0.1.1');
    assert.equal(book.must('c').addresses.ipv4, '10.0.0.1', 'without a choice it is given at once');

    const later = new Book(grant);
    later.free(later.must('a'));
    later.pass(REUSE_DELAY_SECONDS);
    assert.equal(later.must('b').addresses.ipv4, '10.0.0.1', 'pools in order');
  });

  it('keeps prefixes of different lengths from overlapping', () => {
    const wide = { ipv4Pools: [], ipv6Pools: ['fd00::/62'], ipv6SubnetPrefix: 64 };
    const single = { ipv4Pools: [], ipv6Pools: ['fd00:0:0:1::/64'], ipv6SubnetPrefix: 128 };
    const book = new Book(wide, (limit) => (limit > 3n ? 5n : 0n)); // the first draw is the covered prefix
    const inside = book.must('a', single);
    const prefixes = [book.must('b').addresses.ipv6, book.must('c').addresses.ipv6];
    assert.deepEqual(prefixes.sort(), ['fd00:0:0:2::1', 'fd00:0:0:3::1']);
    assert.equal(book.take('d'), 'pool-empty');
    book.free(inside);
    assert.equal(book.must('d').addresses.ipv6, 'fd00:0:0:1::1');
    assert.equal(book.take('e', single), 'pool-empty');
  });

  it('takes fixed addresses as they are, in any spelling, and once', () => {
    const grant = { explicitIpv4: '10.9.9.9', explicitIpv6: 'FD00:0::0:5', ipv6SubnetPrefix: 64 };
    const book = new Book(grant);
    assert.deepEqual(book.must('a').addresses, { ipv4: '10.9.9.9', ipv6: 'fd00::5' });
    assert.equal(book.take('a'), 'address-taken');
    assert.equal(
      book.take('b', { explicitIpv4: '', explicitIpv6: 'fd00::7' }),
      'address-taken',
      'the same /64',
    );
  });

  it('refuses to hold for two sessions what one has', () => {
    const book = new AddressBook();
    const session = { ...newSession('a', {}), addresses: { ipv4: '10.0.0.5', ipv6: '' } };
    book.hold(session);
    assert.throws(() => book.hold({ ...session, id: 'other' }), /held by another session/);
  });

  it('finds the last free address of a nearly full pool, and finds one by few draws with 60,000 taken', () => {
    let draws = 0;
    const book = new Book({ ipv4Pools: ['10.0.0.0/16'], ipv6Pools: [] }, (limit) => {
      draws++;
      return BigInt(randomInt(Number(limit)));
    });
    for (let i = 0; i < 60_000; i++) book.must(`u${i}`);
    draws = 0;
    for (let i = 0; i < 1000; i++) book.must(`v${i}`);
    assert.ok(draws / 1000 < 20, `${draws / 1000} draws each`);
    for (let i = 61_000; i < 65_533; i++) book.must(`u${i}`);
    assert.equal(book.take('last'), 'pool-empty');
  });

  it(`goes from place to place after ${RANDOM_DRAWS} draws that found nothing`, () => {
    let draws = 0;
    const book = new Book({ ipv4Pools: ['10.0.0.0/29'], ipv6Pools: [] }, () => {
      draws++;
      return 0n;
    });
    assert.equal(book.must('a').addresses.ipv4, '10.0.0.2');
    draws = 0;
    assert.equal(book.must('b').addresses.ipv4, '10.0.0.3');
    assert.equal(draws, RANDOM_DRAWS + 1);
  });

  it('remembers a bounded number of resting addresses, the latest', () => {
    const book = new AddressBook();
    const hint = { family: 'ipv6', length: 128, profile: 'p', freedAt: START } as const;
    for (let i = 0; i <= RESTING_LIMIT; i++) {
      book.hint({
        ...hint,
        user: `u${i}`,
        address: `fd00::${(i >> 8).toString(16)}:${(i & 255).toString(16)}`,
      });
    }
    const hints = book.hints();
    assert.equal(hints.length, RESTING_LIMIT);
    assert.equal(hints[0]?.user, 'u1');
  });
});

/** Takes and frees addresses with one grant, at a time that is moved by hand. */
class Book {
  readonly #grant: Partial<Grant>;
  readonly #book: AddressBook;
  #now = START;

  constructor(grant: Partial<Grant>, random?: (limit: bigint) => bigint) {
    this.#grant = grant;
    this.#book = new AddressBook(random);
  }

  take(user: string, changes: Partial<Grant> = {}): Session | Reason {
    const session = newSession(user, { ...this.#grant, ...changes });
    const { grant } = session;
    const families = {
      ipv4: grant.ipv4Pools.length > 0 || grant.explicitIpv4 !== '',
      ipv6: grant.ipv6Pools.length > 0 || grant.explicitIpv6 !== '',
    };
    const addresses: SessionAddresses | Reason = this.#book.choose(session, families, this.#now);
    if (typeof addresses === 'string') return addresses;
    const holder = { ...session, addresses };
    this.#book.hold(holder);
    return holder;
  }

  must(user: string, changes: Partial<Grant> = {}): Session {
    const session = this.take(user, changes);
    if (typeof session === 'string') throw new Error(session);
    return session;
  }

  free(session: Session): void {
    this.#book.release(session, this.#now);
  }

  pass(span: number): void {
    this.#now += seconds(span);
  }

  use() {
    return this.#book.use([newSession('x', this.#grant).grant])[0];
  }
}

function gatewayIn(pool: string): string {
  const block = parseCidr(pool);
  const gateway = block && gatewayOf(block);
  return gateway ? formatAddress(gateway) : '';
}

let count = 0;
function newSession(user: string, grant: Partial<Grant>): Session {
  return apply(undefined, decideStart(sampleLogin(`hash${count}`, user, grant), `session${count++}`, START));
}
