import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { SessionEvent } from '@sallyport/cluster';
import { proveAddresses } from './addresses.ts';
import { AddressHistory } from './history.ts';

describe('addresses under random kills', () => {
  it('belong to one session at any moment, and none is lost, though nodes and Redis are killed', async () => {
    const report = await proveAddresses({
      operations: 5000,
      nodes: 3,
      kills: 3,
      redisKills: 1,
      pools: { ipv4: '10.77.0.0/25', ipv6: 'fd00:77::/57' },
      seed: 1,
      limitMillis: 10 * 60_000,
      say: () => undefined,
    });
    assert.deepEqual(report.problems, []);
    assert.ok(report.claims + report.releases >= 5000);
    assert.deepEqual([report.kills, report.redisKills, report.audits], [3, 1, 3]);
    assert.ok(report.compared > report.claims / 2, 'what nodes were told was compared with the facts');
    assert.ok(report.most > report.size / 2, 'the pool was crowded');
    assert.equal(report.givenAgain, report.size);
  });

  it('would be found in two hands, exchanged, or told otherwise than the facts say', () => {
    const claimed = (sessionId: string, ipv4: string, epoch = 1n): SessionEvent => ({
      ...{
        v: 1,
        type: 'claimed',
        sessionId,
        epoch,
        n: 2,
        at: 1n,
        resumed: false,
        moved: false,
        mtuBytes: 1400,
      },
      lease: { name: 'n1', incarnation: 'i', epoch, claimId: 'c' },
      addresses: { ipv4, ipv6: '' },
      client: { address: '', userAgent: '', platform: '', hostname: '' },
      strapKeys: [],
    });
    const twice = new AddressHistory();
    twice.take(claimed('a', '10.0.0.3'));
    twice.take(claimed('b', '10.0.0.3'));
    assert.deepEqual(twice.problems, ['10.0.0.3 was given to b, but a has it']);

    const exchanged = new AddressHistory();
    exchanged.take(claimed('a', '10.0.0.3'));
    exchanged.take(claimed('a', '10.0.0.4', 2n));
    assert.match(exchanged.problems[0] ?? '', /a had 10\.0\.0\.3 {2}and was given 10\.0\.0\.4/);

    const told = new AddressHistory();
    told.answered({ sessionId: 'a', epoch: '1', addresses: { ipv4: '10.0.0.9', ipv6: '' } });
    assert.equal(told.unproven, 1);
    told.take(claimed('a', '10.0.0.3'));
    assert.match(told.problems[0] ?? '', /told 10\.0\.0\.9 /);
  });
});
