import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import type { AccountChange, AccountRecord, AccountRecords } from './account-records.ts';
import type { Clock } from './clock.ts';
import { TestClock } from './session.fake.ts';

/** The rules that every form of AccountRecords keeps. @param open gives another replica of the same records each time. */
export function accountRecordsContract(
  name: string,
  open: (clock: Clock) => Promise<() => Promise<AccountRecords>>,
): void {
  describe(`account records: ${name}`, () => {
    let clock: TestClock;
    let one: AccountRecords;
    let other: AccountRecords;
    let replica: () => Promise<AccountRecords>;
    let heard: AccountRecord[];

    beforeEach(async () => {
      clock = new TestClock();
      replica = await open(clock.read);
      [one, other] = [await replica(), await replica()];
      heard = heardBy(other);
    });

    it('tells a change to all replicas, once, and to one that comes later', async () => {
      const mine = heardBy(one);
      assert.equal(await one.change(LOCK, true), 'done');
      const record = { name: 'alice', at: clock.now, deleted: false, locked: true };
      assert.deepEqual(mine, [record], 'before the change resolves');
      await other.refresh();
      await other.refresh();
      assert.deepEqual(heard, [record]);
      const late = await replica();
      await late.refresh();
      assert.deepEqual(heardBy(late), [record]);
    });

    it('keeps what was changed before, but for who is added or deleted', async () => {
      const kept: unknown[] = [];
      for (const [change, inFile] of CHAIN) {
        assert.equal(await one.change(change, inFile), 'done', JSON.stringify(change));
        await other.refresh();
        const { name: _, at, ...rest } = heard.at(-1) ?? assert.fail('nothing was heard');
        kept.push({ ...rest, ...(rest.hashAt !== undefined && { hashAt: rest.hashAt - at }) });
        clock.pass(1);
      }
      const second = -1_000_000n;
      assert.deepEqual(kept, [
        { deleted: false, locked: true },
        { deleted: false, locked: true, hash: 'two', hashAt: 0n },
        { deleted: false, locked: false, hash: 'two', hashAt: second },
        { deleted: true },
        { deleted: false, groups: ['a', 'b'], hash: 'three', hashAt: 0n },
        { deleted: false, groups: ['a', 'b'], locked: true, hash: 'three', hashAt: second },
        { deleted: true },
        { deleted: false, groups: [], hash: 'four', hashAt: 0n },
      ]);
    });

    it('says who is there already and who is not, and changes nothing then', async () => {
      assert.equal(await one.change(ADD, true), 'exists');
      assert.equal(await one.change(LOCK, false), 'unknown');
      assert.equal(await one.change(ADD, false), 'done');
      assert.equal(await other.change(ADD, false), 'exists');
      assert.equal(await other.change({ verb: 'delete', name: 'alice' }, true), 'done');
      assert.equal(await one.change({ verb: 'delete', name: 'alice' }, true), 'unknown');
      assert.equal(await one.change({ verb: 'passwd', name: 'alice', hash: 'x' }, true), 'unknown');
      await other.refresh();
      assert.deepEqual(
        heard.map(({ deleted }) => deleted),
        [false, true].slice(-heard.length),
      );
    });

    it('lets one of many win who add the same user at once', async () => {
      const adds = Array.from({ length: 20 }, (_, at) => (at % 2 === 0 ? one : other).change(ADD, false));
      const outcomes = await Promise.all(adds);
      assert.equal(outcomes.filter((outcome) => outcome === 'done').length, 1);
      assert.equal(outcomes.filter((outcome) => outcome === 'exists').length, 19);
    });

    it('gives each change of a name a later time, though the clock stands still', async () => {
      const verbs = ['lock', 'unlock', 'lock'] as const;
      const mine = heardBy(one);
      for (const verb of verbs) await one.change({ verb, name: 'alice' }, true);
      assert.deepEqual(
        mine.map(({ at }) => at - clock.now),
        [0n, 1n, 2n],
      );
    });

    it('gives thousands to who comes later', async () => {
      const names = Array.from({ length: 1201 }, (_, at) => `user${at}`);
      await Promise.all(names.map((user) => one.change({ verb: 'lock', name: user }, true)));
      const late = await replica();
      const all = heardBy(late);
      await late.refresh();
      assert.equal(new Set(all.map((record) => record.name)).size, names.length);
    });
  });
}

function heardBy(records: AccountRecords): AccountRecord[] {
  const heard: AccountRecord[] = [];
  records.follow((changed) => heard.push(...changed));
  return heard;
}

const LOCK: AccountChange = { verb: 'lock', name: 'alice' };
const ADD: AccountChange = { verb: 'add', name: 'alice', groups: [], hash: 'one' };
const CHAIN: readonly [AccountChange, boolean][] = [
  [LOCK, true],
  [{ verb: 'passwd', name: 'alice', hash: 'two' }, true],
  [{ verb: 'unlock', name: 'alice' }, true],
  [{ verb: 'delete', name: 'alice' }, true],
  [{ verb: 'add', name: 'alice', groups: ['a', 'b'], hash: 'three' }, true],
  [LOCK, false],
  [{ verb: 'delete', name: 'alice' }, false],
  [{ verb: 'add', name: 'alice', groups: [], hash: 'four' }, false],
];
