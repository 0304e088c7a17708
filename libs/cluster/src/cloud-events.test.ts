import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { describe, it } from 'node:test';
import { REASONS } from '@sallyport/protocol';
import { Ajv, type AnySchemaObject } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { CloudEvent } from './cloud-events.ts';
import {
  CLOUD_EVENT_TYPES,
  CloudEvents,
  decodeCloudEvent,
  decodeEntry,
  encodeOccurrence,
  FACT_BYTES,
} from './cloud-events.ts';
import type { Fact, Occurrence } from './events.ts';
import { encodeEvent, MalformedLine } from './journal-lines.ts';
import { claimOf, World } from './outbox.fake.ts';
import { NewerVersion } from './session.ts';

const events = new CloudEvents('test');
/** Where the schemas seem to lie: they refer to each other by file name. */
const ID = 'https://sallyport.invalid/';
const DOCS = new URL('../../../docs/events/', import.meta.url);

describe('events on the wire', () => {
  const ajv = new Ajv2020({ allErrors: true, strict: true, strictRequired: false, validateFormats: false });
  for (const file of readdirSync(DOCS).filter((name) => name.endsWith('.schema.json')))
    ajv.addSchema({ ...readJson(file), $id: `${ID}${file}` });

  const check = (schema: string, value: unknown): string => {
    const valid = ajv.validate(`${ID}${schema}`, value);
    return valid ? '' : `${schema}: ${ajv.errorsText()}`;
  };

  it('fit their schemas, and every type occurs', () => {
    const seen = new Set<string>();
    for (const event of everyEvent()) {
      seen.add(event.type);
      assert.equal(check(schemaOf(event), JSON.parse(event.value)), '');
      assert.equal(check('headers.schema.json', event.headers), '');
      assert.equal(event.headers.ce_type, event.type);
      assert.equal(event.headers.ce_partitionkey ?? '', event.key);
    }
    assert.deepEqual([...seen].sort(), [...CLOUD_EVENT_TYPES].sort());
    const schemas = readdirSync(DOCS).filter((name) =>
      /^(session|auth|connect|node|config|admin|events)\./.test(name),
    );
    assert.deepEqual(schemas.sort(), CLOUD_EVENT_TYPES.map((type) => schemaName(type)).sort());
  });

  it('fit them as the outbox writes them, also around a gap; a type without a schema fails', async () => {
    const world = new World();
    world.start('s1');
    world.claim('s1', 1n);
    world.occur('alice');
    await world.outbox.round();
    world.end('s1');
    world.start('s2');
    await world.stream.dropOldest(1);
    while ((await world.outbox.round()) !== 'idle');
    const written = world.topics.messages.filter(({ topic, value }) => topic !== 'dead' && value !== null);
    assert.ok(written.some(({ topic, key }) => topic === 'state' && key === 'gap'));
    for (const { value, headers } of written) {
      assert.equal(check(schemaName(headers.ce_type ?? ''), JSON.parse(value ?? '')), '');
      assert.equal(check('headers.schema.json', headers), '');
    }
    assert.throws(() => check(schemaName('sallyport.session.exploded.v1'), {}), /no schema/);
  });

  it('have schemas that allow nothing else', () => {
    for (const event of everyEvent()) {
      const data = JSON.parse(event.value) as Record<string, unknown>;
      assert.notEqual(check(schemaOf(event), { ...data, token: 'x' }), '', event.type);
      for (const name of Object.keys(data)) {
        if (name === 'lease' && data.type === 'record') continue; // none before the first CONNECT
        const { [name]: _, ...rest } = data;
        assert.notEqual(check(schemaOf(event), rest), '', `${event.type} without ${name}`);
        assert.notEqual(check(schemaOf(event), { ...data, [name]: null }), '', `${event.type}: ${name} null`);
      }
    }
  });

  it('come back as the facts that they were', () => {
    for (const fact of everyFact()) {
      const { type, value } = events.ofFact(fact, '5-1');
      const back = decodeCloudEvent(type, value);
      assert.ok(back?.kind === 'session' || back?.kind === 'occurrence');
      assert.deepEqual(back.kind === 'session' ? back.event : back.occurrence, fact);
    }
    assert.equal(
      decodeCloudEvent('sallyport.session.started.v2', '{}'),
      undefined,
      'a later type is skipped',
    );
  });

  it('have ids that stay the same, and are never equal for two facts', () => {
    const ids = everyFact().map((fact, i) => events.ofFact(fact, `5-${i}`).headers.ce_id);
    assert.equal(new Set(ids).size, ids.length);
    assert.deepEqual(
      everyFact().map((fact, i) => events.ofFact(fact, `5-${i}`).headers.ce_id),
      ids,
    );
  });

  it('carry their time to the microsecond', () => {
    const [fact] = everyFact();
    assert.ok(fact);
    const { headers } = events.ofFact({ ...fact, at: 1_800_000_000_000_042n }, '1-1');
    assert.equal(headers.ce_time, '2027-01-15T08:00:00.000042Z');
  });

  it('are described by an AsyncAPI document that its schema accepts', () => {
    const require = createRequire(import.meta.url);
    const ofAsyncApi = new Ajv({ strict: false, validateFormats: false, meta: false, validateSchema: false });
    const specification = require('@asyncapi/specs/schemas/3.0.0.json') as AnySchemaObject;
    const document = readJson('asyncapi.json');
    assert.ok(ofAsyncApi.validate(specification, document), ofAsyncApi.errorsText());
    const { messages } = document.components as { messages: Record<string, { name: string }> };
    const names = Object.values(messages).map((message) => message.name);
    assert.deepEqual(names.filter((name) => name !== 'deadLetter').sort(), [...CLOUD_EVENT_TYPES].sort());
    for (const [, file = ''] of JSON.stringify(document).matchAll(/"\$ref":"([\w.]+\.json)"/g))
      assert.ok(readdirSync(DOCS).includes(file), file);
  });

  it('know every reason', () => {
    const { $defs } = readJson('common.schema.json') as { $defs: { reason: { enum: string[] } } };
    assert.deepEqual($defs.reason.enum.sort(), Object.keys(REASONS).sort());
  });
});

describe('an entry of the stream', () => {
  const good = { id: '1-1', sessionId: 's1', type: 'started', data: '' };
  const started = (): string => {
    const [fact] = everyFact();
    assert.ok(fact?.type === 'started');
    return encodeEvent(fact);
  };

  it('is refused when it is not what a script of ours writes', () => {
    const bad: [string, Partial<typeof good>][] = [
      ['not JSON', { data: '{' }],
      ['a list', { data: '[]' }],
      ['another session', { data: started(), sessionId: 's2' }],
      ['another type', { data: started(), type: 'ended' }],
      ['an unknown type', { data: started().replace('"started"', '"exploded"'), type: 'exploded' }],
      [
        'a time beyond all calendars',
        { data: started().replace(/"at":"\d+"/, '"at":"99999999999999999999"') },
      ],
      ['a negative number', { data: started().replace('"n":1', '"n":-1') }],
      ['huge', { data: started().replace('"alice"', `"${'a'.repeat(FACT_BYTES)}"`) }],
      ['an occurrence of no kind', { data: '{"v":1,"at":"1","type":"x"}', sessionId: '', type: 'x' }],
      ['a reason of no list', { data: failed('because'), sessionId: '', type: 'auth.failed' }],
    ];
    for (const [what, change] of bad)
      assert.throws(() => decodeEntry({ ...good, ...change }), MalformedLine, what);
    assert.equal(decodeEntry({ ...good, data: started() }).type, 'started');
    assert.throws(() => decodeEntry({ ...good, data: started().replace('"v":1', '"v":2') }), NewerVersion);
  });

  it('may come from a clock that is ahead', () => {
    const data = started().replace(/"at":"\d+"/, '"at":"4102444800000000"');
    assert.equal(
      events.ofFact(decodeEntry({ ...good, data }), '1-1').headers.ce_time,
      '2100-01-01T00:00:00.000000Z',
    );
  });
});

function everyFact(): Fact[] {
  const world = new World();
  world.start('s1');
  const claim = claimOf(world.record('s1'), 1n, 5n);
  assert.ok(claim.type === 'claimed');
  world.claim('s1', 1n);
  world.park('s1');
  const parked = world.event('s1');
  assert.ok(parked.type === 'parked');
  world.end('s1');
  const [started] = world.history;
  const ended = world.event('s1');
  assert.ok(started);
  const { reason: _, ...head } = parked;
  const attempt = { user: 'alice', profile: 'staff', method: 'local', address: '192.0.2.7' };
  const occurrences: Occurrence[] = [
    { v: 1, at: 1n, type: 'auth.succeeded', ...attempt, sessionId: 's1' },
    { v: 1, at: 2n, type: 'auth.failed', ...attempt, user: '', reason: 'login-failed' },
    {
      ...{ v: 1, at: 2n, type: 'connect.refused', user: 'alice', profile: 'staff', address: '192.0.2.1' },
      ...{ reason: 'max-same-clients', sessionId: 's', node: 'n1' },
    },
    { v: 1, at: 3n, type: 'node.ready', node: 'n1', incarnation: 'i1' },
    { v: 1, at: 4n, type: 'node.stopping', node: 'n1', incarnation: 'i1' },
    { v: 1, at: 5n, type: 'config.applied', revision: 'r1', detail: '' },
    { v: 1, at: 6n, type: 'config.rejected', revision: 'r2', detail: 'line 3' },
    { v: 1, at: 7n, type: 'admin.changed', verb: 'lock', subject: 'bob' },
  ];
  return [
    started,
    claim,
    { ...claim, n: 11, resumed: true },
    { ...claim, n: 12, resumed: true, moved: true },
    { ...head, n: 13, type: 'stats' },
    { ...parked, n: 14 },
    { ...ended, n: 15 },
    ...occurrences,
  ];
}

function everyEvent(): CloudEvent[] {
  const world = new World();
  world.start('fresh');
  world.start('up');
  world.claim('up', 1n);
  return [
    ...everyFact().map((fact, i) => events.ofFact(fact, `7-${i}`)),
    ...world.live().flatMap((record) => [events.state(record), events.snapshot(record)]),
    events.gap(undefined, 1n, 0),
    events.gap({ count: 3, from: '1-1', to: '1-3', at: 9n }, 1n, 1),
    events.resynced(2, 1n, 0),
  ];
}

function failed(reason: string): string {
  const fact: Occurrence = {
    v: 1,
    at: 1n,
    type: 'auth.failed',
    user: 'u',
    profile: 'p',
    method: 'm',
    address: 'a',
    reason: 'login-failed',
  };
  return encodeOccurrence(fact).replace('login-failed', reason);
}

function schemaOf(event: CloudEvent): string {
  return schemaName(event.type);
}

/** `sallyport.session.started.v1` is described by `session.started.schema.json`. */
function schemaName(type: string): string {
  return `${type.replace(/^sallyport\./, '').replace(/\.v1$/, '')}.schema.json`;
}

function readJson(file: string): Record<string, unknown> {
  return JSON.parse(readFileSync(new URL(file, DOCS), 'utf8')) as Record<string, unknown>;
}
