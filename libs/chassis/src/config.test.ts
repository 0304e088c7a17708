import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MAX_CONFIG_BYTES, problemTexts, readDocument } from './config.ts';
import { keyPlaces, referenceMarkdown } from './config-keys.ts';
import type { Key } from './config-keys.ts';
import { choice, flag, integer, listOf, MAX_LIST_ITEMS, text } from './config-values.ts';
import type { ValueType } from './config-values.ts';
import { editDistance, nearest } from './nearest.ts';

function key<T>(type: ValueType<T>, value: T): Key<T> {
  return { kind: 'key', type, default: value, unit: '', reloads: true, about: 'About a|b.', example: '1' };
}

const shared = key(listOf(text(8)), []);
const KEYS = {
  port: key(integer(1, 9), 1),
  mode: key(choice('on-demand', 'always'), 'always'),
  quiet: key(flag, false),
  tags: shared,
  part: { kind: 'section', about: '', keys: { size: key(integer(0, 5), 0) } },
  rooms: {
    kind: 'named',
    scope: 'room',
    name: text(4),
    about: '',
    keys: { tags: shared, door: key(flag, true) },
  },
} as const;

test('values come typed, and absent keys are absent', () => {
  const { values, problems } = readDocument(
    'port: 3\ntags: a\npart: {size: 2}\nrooms: {r1: {tags: [b, c]}, r2: }\n',
    KEYS,
  );
  assert.deepEqual(problems, []);
  assert.equal(values.port, 3);
  assert.equal(values.mode, undefined);
  assert.deepEqual(values.tags, ['a']);
  assert.equal(values.part?.size, 2);
  assert.deepEqual(
    [...(values.rooms ?? [])],
    [
      ['r1', { tags: ['b', 'c'] }],
      ['r2', {}],
    ],
  );
});

test('all problems come at once, each with its line, in the order of lines', () => {
  const document = readDocument(
    'prot: 3\nport: ten\nrooms:\n  r1:\n    port: 1\n    doro: true\n    tags:\n      - ok\n      - much too long\nmode: never\n',
    KEYS,
  );
  assert.deepEqual(problemTexts('f.yaml', document.problems), [
    'f.yaml:1: unknown key "prot"; did you mean "port"?',
    'f.yaml:2: port must be a whole number from 1 to 9, not "ten"',
    'f.yaml:5: key "port" cannot stand in a room; its place is the top level',
    'f.yaml:6: unknown key "doro"; did you mean "door"?',
    'f.yaml:9: tags "much too long" is 13 bytes long, the limit is 8',
    'f.yaml:10: mode "never" must be one of on-demand, always',
  ]);
});

test('a line is known for every key, and for an absent one that of what is around it', () => {
  const { line } = readDocument('port: 1\nrooms:\n  r1:\n    door: true\n', KEYS);
  assert.deepEqual(
    [line('port'), line('rooms', 'r1', 'door'), line('rooms', 'r1', 'tags'), line('mode')],
    [1, 4, 3, 1],
  );
});

test('documents that would cost much or hide something are refused', () => {
  const bomb = [
    'a0: &a0 [x]',
    ...Array.from({ length: 30 }, (_, i) => `a${i + 1}: &a${i + 1} [*a${i}, *a${i}]`),
  ].join('\n');
  const texts: [string, RegExp][] = [
    [`tags: &t [a]\nrooms: { r: { tags: *t } }`, /aliases are not allowed/],
    [bomb, /unknown key/],
    ['['.repeat(200_000), /nested too deeply|not valid YAML/],
    [`#${'x'.repeat(MAX_CONFIG_BYTES)}`, /larger than/],
    [`tags: [${'a,'.repeat(MAX_LIST_ITEMS)}a]`, /tags must be/],
    ['port: 1\n---\nport: 2', /one YAML document/],
    ['- port', /must be a map/],
    ['? [a, b]\n: 1', /a key must be plain text/],
    ['__proto__: 1', /unknown key "__proto__"/],
    ['port: !!js/function "x"', /not valid YAML|must be/],
    ['tags: "a\\u0000"', /control characters/],
  ];
  for (const [document, message] of texts) {
    const { problems } = readDocument(document, KEYS);
    assert.ok(
      problems.some((problem) => message.test(problem.message)),
      document.slice(0, 40),
    );
  }
});

test('an empty file is an empty document', () => {
  for (const empty of ['', '# nothing\n', '---\n']) {
    const { values, problems } = readDocument(empty, KEYS);
    assert.deepEqual([values, problems], [{}, []]);
  }
});

test('the nearest key is found for slips and not for other words', () => {
  assert.equal(editDistance('tcp-prot', 'tcp-port'), 1);
  assert.equal(editDistance('', 'abc'), 3);
  assert.equal(editDistance('kitten', 'sitting'), 3);
  const names = ['tcp-port', 'udp-port', 'dns', 'route'];
  assert.equal(nearest('TCP-PORT', names), 'tcp-port');
  assert.equal(nearest('rout', names), 'route');
  assert.equal(nearest('dsn', names), 'dns');
  assert.equal(nearest('listen', names), undefined);
});

test('the reference names each key once with all its scopes', () => {
  const places = keyPlaces(KEYS).map(({ name, scopes }) => `${name}: ${scopes.join(' ')}`);
  assert.deepEqual(places, [
    'port: global',
    'mode: global',
    'quiet: global',
    'tags: global room',
    'part.size: global',
    'door: room',
  ]);
  const page = referenceMarkdown(KEYS, 'Keys', 'Intro.');
  assert.equal(page.match(/\| `tags` \|/g)?.length, 1);
  assert.match(page, /## Scope: global, room\n/);
  assert.match(page, /About a\\\|b\./);
});
