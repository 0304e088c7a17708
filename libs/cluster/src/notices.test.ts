import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Mailboxes, MAILBOX_LIMIT, MAILBOXES_LIMIT } from './notices.ts';
import type { Notice } from './sessions.ts';

const node = { name: 'n1', incarnation: 'i1' };
const notice = (epoch: number): Notice => ({
  sessionId: 's',
  upToEpoch: BigInt(epoch),
  reason: 'superseded',
});
const turn = () => new Promise((go) => setImmediate(go));
const epochs = (notices: Notice[]) => notices.map((each) => Number(each.upToEpoch));

describe('mailboxes', () => {
  it('give again what the receiver did not take, in order', async () => {
    const boxes = new Mailboxes();
    const heard: Notice[] = [];
    let broken = true;
    boxes.listen(node, (notices) => {
      if (broken) throw new Error('not now');
      heard.push(...notices);
    });
    boxes.post(node, notice(1));
    await turn();
    boxes.post(node, notice(2));
    await turn();
    broken = false;
    boxes.retry();
    await turn();
    assert.deepEqual(epochs(heard), [1, 2]);
    boxes.retry();
    await turn();
    assert.equal(heard.length, 2);
  });

  it('drop the oldest mail of a node that never listens', async () => {
    const boxes = new Mailboxes();
    for (let i = 0; i <= MAILBOX_LIMIT; i++) boxes.post(node, notice(i));
    const heard: Notice[] = [];
    boxes.listen(node, (notices) => heard.push(...notices));
    await turn();
    assert.equal(heard.length, MAILBOX_LIMIT);
    assert.equal(heard[0]?.upToEpoch, 1n);
  });

  it('forget older incarnations, and those that nobody listens to when there are too many', async () => {
    const boxes = new Mailboxes();
    const heard: Notice[] = [];
    boxes.post(node, notice(1));
    boxes.forgetOlder({ name: 'n1', incarnation: 'i2' });
    boxes.listen(node, (notices) => heard.push(...notices));
    await turn();
    assert.equal(heard.length, 0);
    for (let i = 0; i < MAILBOXES_LIMIT + 9; i++) boxes.post({ name: `m${i}`, incarnation: 'i' }, notice(i));
    boxes.post(node, notice(7));
    boxes.listen({ name: 'm0', incarnation: 'i' }, (notices) => heard.push(...notices));
    await turn();
    assert.deepEqual(epochs(heard), [7]);
  });
});
