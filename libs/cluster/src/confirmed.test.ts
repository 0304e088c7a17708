import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Confirmed, type WaitConnection } from './confirmed.ts';

test('who waits together waits each as long as it may, and the connection stays', async () => {
  const connection = new FakeConnection();
  const confirmed = new Confirmed(
    () => connection,
    () => Promise.resolve(),
  );
  const hasty = confirmed.confirm('r', performance.now() + 5);
  const patient = confirmed.confirm('r', performance.now() + 60_000);
  await assert.rejects(hasty, { name: 'StoreUnavailable', message: /confirmed/ });
  connection.answer(1);
  await patient;
  assert.equal(connection.waits, 1, 'one WAIT for both');
  assert.equal(connection.renewals, 0);
});

test('one that has hardly any time left does not take the connection away from those after it', async () => {
  const connection = new FakeConnection();
  let written: () => void = () => undefined;
  const confirmed = new Confirmed(
    () => connection,
    () => new Promise<void>((resolve) => (written = resolve)),
  );
  await assert.rejects(confirmed.confirm('r', performance.now() + 1), { name: 'StoreUnavailable' });
  assert.equal(connection.renewals, 0);
  written();
});

test('when no replica has it all are told, and the next try is a new one', async () => {
  const connection = new FakeConnection();
  const confirmed = new Confirmed(
    () => connection,
    () => Promise.resolve(),
  );
  const first = [1, 2].map(() => confirmed.confirm('r', performance.now() + 60_000));
  connection.answer(0);
  for (const { status } of await Promise.allSettled(first)) assert.equal(status, 'rejected');
  const second = confirmed.confirm('r', performance.now() + 60_000);
  connection.answer(1);
  await second;
});

class FakeConnection implements WaitConnection {
  readonly ready = true;
  renewals = 0;
  waits = 0;
  readonly #answers: number[] = [];
  #asked: ((replicas: number) => void) | undefined;

  /** How many replicas have it, to the WAIT that is asked or to the next one. */
  answer(replicas: number): void {
    if (this.#asked === undefined) this.#answers.push(replicas);
    else this.#asked(replicas);
    this.#asked = undefined;
  }

  call(_key: string, command: string): Promise<number> {
    assert.equal(command, 'WAIT');
    this.waits += 1;
    const answer = this.#answers.shift();
    return answer === undefined ? new Promise((resolve) => (this.#asked = resolve)) : Promise.resolve(answer);
  }

  renew(): void {
    this.renewals += 1;
  }

  open(): Promise<void> {
    return assert.fail('it is open');
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
