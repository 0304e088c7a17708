import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DEFAULT_GRANT } from './grant-fields.ts';
import { decodeEvent, decodeLine, encodeEvent, encodeRecord, MalformedLine } from './journal-lines.ts';
import { decideStart } from './session-decisions.ts';
import { sampleClient, sampleLogin } from './session.fake.ts';
import type { Lease, Session, SessionEvent, SessionState } from './session.ts';
import { apply, ImpossibleTransition, NewerVersion, SESSION_VERSION } from './session.ts';

const lease: Lease = { name: 'n1', incarnation: 'i1', epoch: 50n, claimId: 'c1' };
const usage = { activeAt: 60n, rxBytes: 2n ** 60n, txBytes: 7n };
const head = { v: SESSION_VERSION, sessionId: 's1', epoch: 50n };

const started: SessionEvent = decideStart({ ...sampleLogin('f00d'), strapKey: 'key' }, 's1', 40n);
const claimed: SessionEvent = {
  ...head,
  type: 'claimed',
  n: 2,
  at: 50n,
  lease,
  addresses: { ipv4: '10.90.0.9', ipv6: 'fd00::9' },
  client: sampleClient,
  strapKeys: ['new', 'key'],
  mtuBytes: 1400,
  resumed: false,
  moved: false,
};
const stats: SessionEvent = { ...head, type: 'stats', n: 3, at: 60n, ...usage };
const parked: SessionEvent = { ...head, type: 'parked', n: 4, at: 70n, reason: 'connection-lost', ...usage };
const ended: SessionEvent = { ...head, type: 'ended', n: 5, at: 80n, reason: 'logout', ...usage };
const history = [started, claimed, stats, parked, ended];

const replay = (events: readonly SessionEvent[]): Session | undefined =>
  events.reduce<Session | undefined>((session, event) => apply(session, event), undefined);

describe('apply', () => {
  it('rebuilds a session from its events', () => {
    const session = replay(history);
    assert.equal(session?.state, 'closed');
    assert.equal(session?.endReason, 'logout');
    assert.equal(session?.rxBytes, 2n ** 60n);
    assert.deepEqual(session?.addresses, { ipv4: '10.90.0.9', ipv6: 'fd00::9' });
    assert.deepEqual(session?.strapKeys, ['new', 'key']);
    assert.deepEqual(
      [session?.createdAt, session?.upAt, session?.parkedAt, session?.endedAt],
      [40n, 50n, 70n, 80n],
    );
  });

  it('takes old news twice without a change, at every point', () => {
    for (let done = 1; done <= history.length; done++) {
      const session = replay(history.slice(0, done));
      for (const event of history.slice(0, done)) assert.equal(apply(session, event), session);
    }
  });

  it('refuses each transition that is not drawn, naming session, state and event', () => {
    const at: Record<SessionState, Session | undefined> = {
      authed: replay([started]),
      up: replay([started, claimed]),
      parked: replay([started, claimed, parked]),
      closed: replay(history),
    };
    const allowed: Record<SessionEvent['type'], SessionState[]> = {
      started: [],
      claimed: ['authed', 'up', 'parked'],
      parked: ['up', 'parked'],
      stats: ['up'],
      ended: ['authed', 'up', 'parked'],
    };
    for (const state of ['authed', 'up', 'parked', 'closed'] as const) {
      const session = at[state];
      for (const event of history) {
        const epoch = event.type === 'claimed' ? 99n : (session?.lease?.epoch ?? 0n);
        const next = { ...event, n: 9, epoch };
        if (next.type === 'claimed') next.lease = { ...lease, epoch };
        const message = new RegExp(`session s1 in state ${state} cannot take event ${event.type} n=9`);
        if (allowed[event.type].includes(state)) assert.equal(apply(session, next).n, 9);
        else assert.throws(() => apply(session, next), { name: 'ImpossibleTransition', message });
      }
    }
    for (const event of history.slice(1)) assert.throws(() => apply(undefined, event), ImpossibleTransition);
  });

  it('refuses an event of another session, of another epoch, and a claim that does not raise it', () => {
    const session = replay([started, claimed]);
    assert.throws(() => apply(session, { ...stats, sessionId: 's2' }), ImpossibleTransition);
    assert.throws(() => apply(session, { ...stats, epoch: 49n }), ImpossibleTransition);
    assert.throws(() => apply(session, { ...claimed, n: 3 }), /epoch 50 is not above/);
  });

  it('refuses an event of a newer release and says so', () => {
    const newer = { ...started, v: SESSION_VERSION + 1 };
    assert.throws(() => apply(undefined, newer), { name: 'NewerVersion', message: /use the newer program/ });
  });

  it('does not change the record that it is given', () => {
    const session = replay([started, claimed]);
    const before = structuredClone(session);
    apply(session, stats);
    assert.deepEqual(session, before);
  });
});

describe('events and records as JSON', () => {
  it('come back equal', () => {
    for (const event of history) assert.deepEqual(decodeEvent(encodeEvent(event)), event);
    for (let done = 1; done <= history.length; done++) {
      const record = replay(history.slice(0, done));
      assert.ok(record);
      assert.deepEqual(decodeLine(encodeRecord(record)), { type: 'record', record });
    }
  });

  it('are refused with the field that is wrong, one mutation per field', () => {
    for (const event of history) {
      const text = encodeEvent(event);
      for (const key of Object.keys(event)) {
        const fields = Object.entries<unknown>(JSON.parse(text)).map(([name, value]) => [
          name,
          name === key ? null : value,
        ]);
        const broken = JSON.stringify(Object.fromEntries(fields));
        assert.throws(() => decodeEvent(broken), { name: 'MalformedLine' }, `${event.type}.${key}`);
      }
    }
  });

  it('have the default in a field of the Grant that the release which wrote them did not know', () => {
    for (const field of ['maxSameClients', 'ipv6Pools', 'onLimit', 'noUdp', 'group'] as const) {
      const written: unknown = JSON.parse(encodeEvent(started), (_key, value: unknown) => {
        if (typeof value === 'object' && value !== null && 'group' in value)
          Reflect.deleteProperty(value, field);
        return value;
      });
      const event = decodeEvent(JSON.stringify(written));
      assert.deepEqual(event, {
        ...started,
        grant: { ...started.grant, [field]: DEFAULT_GRANT[field] },
        origins: { ...started.origins, [field]: { scope: 'default', name: '' } },
      });
    }
    const broken = encodeEvent(started).replace('"noUdp":false', '"noUdp":0');
    assert.throws(() => decodeEvent(broken), /noUdp: is of the wrong kind/);
  });

  it('are refused when they are no JSON, no object, or of an unknown type, reason or scope', () => {
    const text = encodeEvent(started);
    for (const broken of ['', '{', 'null', '[]', '7', text.slice(0, -1)]) {
      assert.throws(() => decodeEvent(broken), MalformedLine, broken);
    }
    assert.throws(() => decodeEvent(encodeEvent(ended).replace('logout', 'boredom')), /reason: unknown/);
    assert.throws(() => decodeEvent(text.replace('"default"', '"galaxy"')), /scope: unknown/);
    assert.throws(() => decodeEvent(text.replace('"started"', '"exploded"')), /type: unknown/);
    assert.throws(() => decodeEvent(text.replace('"at":"40"', '"at":"-40"')), /at: must be digits/);
  });

  it('are refused with a reason when a newer release wrote them, whatever their type', () => {
    const text = encodeEvent(started).replace('"v":1', '"v":2');
    assert.throws(() => decodeEvent(text), NewerVersion);
    assert.throws(() => decodeEvent('{"v":2,"type":"teleported"}'), /version 2, this program reads up to 1/);
  });
});
