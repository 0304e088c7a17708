import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  looksLikeXml,
  MAX_ANSWER_LENGTH,
  MAX_ANSWERS,
  MAX_GROUP_LENGTH,
  MAX_XML_DEPTH,
  MAX_XML_LENGTH,
  MAX_XML_NODES,
  parseConfigAuth,
  parseForm,
  ProtocolError,
  type ClientMessage,
} from './index.ts';

const vectors = JSON.parse(readFileSync(new URL('../vectors/config-auth.json', import.meta.url), 'utf8')) as {
  parse: { name: string; body: string; message: ClientMessage }[];
  refuse: { name: string; body: string }[];
  form: { name: string; body: string; message: ClientMessage }[];
};

test('config-auth documents mean what the vectors say', () => {
  for (const { name, body, message } of vectors.parse) {
    assert.equal(looksLikeXml(body), true, name);
    assert.deepEqual(parseConfigAuth(body), message, name);
  }
});

test('DOCTYPE, entities and what is not well-formed are refused', () => {
  for (const { name, body } of vectors.refuse)
    assert.throws(() => parseConfigAuth(body), ProtocolError, name);
});

test('a document cut anywhere is refused, never read as something else', () => {
  const whole = vectors.parse.find(({ name }) => name === 'reply of openconnect')?.body.trimEnd() ?? '';
  for (let end = 0; end < whole.length; end += 1)
    assert.throws(() => parseConfigAuth(whole.slice(0, end)), ProtocolError, whole.slice(0, end));
});

test('a refused document leaves nothing behind for the next one', () => {
  const init = '<config-auth type="init"><group-select>a</group-select></config-auth>';
  for (let round = 0; round < 50; round += 1) {
    assert.throws(() => parseConfigAuth('<config-auth type="auth-reply"><auth><auth><auth>'), ProtocolError);
    assert.equal(parseConfigAuth(init).type, 'init');
  }
});

test('url-encoded forms mean what the vectors say', () => {
  for (const { name, body, message } of vectors.form) {
    assert.equal(looksLikeXml(body), false, name);
    assert.deepEqual(parseForm(body), message, name);
  }
});

test('a broken escape in a form is refused', () => {
  for (const body of ['username=%', 'username=%zz', 'username=%ff', '%c0%af=x'])
    assert.throws(() => parseForm(body), ProtocolError, body);
});

test('each limit holds at its value and not above', () => {
  const nested = (depth: number) =>
    `<config-auth type="init">${'<a>'.repeat(depth - 1)}${'</a>'.repeat(depth - 1)}</config-auth>`;
  const nodes = (count: number) => `<config-auth type="init">${'<a/>'.repeat(count - 2)}</config-auth>`;
  const long = (length: number) => `<config-auth type="init" a="${'x'.repeat(length - 31)}"/>`;
  const reply = (answers: number) =>
    `<config-auth type="auth-reply"><auth>${Array.from({ length: answers }, (_, i) => `<f${i}/>`).join('')}</auth></config-auth>`;
  const answer = (length: number) =>
    `<config-auth type="auth-reply"><auth><password>${'x'.repeat(length)}</password></auth></config-auth>`;
  const fields = (count: number) => Array.from({ length: count }, (_, i) => `f${i}=1`).join('&');

  assert.equal(long(MAX_XML_LENGTH).length, MAX_XML_LENGTH);
  for (const [make, limit] of [
    [nested, MAX_XML_DEPTH],
    [nodes, MAX_XML_NODES],
    [long, MAX_XML_LENGTH],
    [reply, MAX_ANSWERS],
    [answer, MAX_ANSWER_LENGTH],
  ] as const) {
    assert.notEqual(parseConfigAuth(make(limit)).type, 'unexpected');
    assert.throws(() => parseConfigAuth(make(limit + 1)), ProtocolError);
  }
  assert.equal(parseForm(fields(MAX_ANSWERS)).type, 'auth-reply');
  assert.throws(() => parseForm(fields(MAX_ANSWERS + 1)), ProtocolError);
  assert.throws(() => parseForm(`password=${'x'.repeat(MAX_ANSWER_LENGTH + 1)}`), ProtocolError);
  assert.throws(() => parseConfigAuth(nested(100_000)), ProtocolError);
});

test('a document that is too long is answered with 413', () => {
  assert.throws(() => parseConfigAuth('<a>'.padEnd(MAX_XML_LENGTH + 1)), { status: 413 });
});

test('a group name that is too long counts as none', () => {
  const group = (length: number) => parseForm(`group_list=${'g'.repeat(length)}`).groupSelect.length;
  assert.equal(group(MAX_GROUP_LENGTH), MAX_GROUP_LENGTH);
  assert.equal(group(MAX_GROUP_LENGTH + 1), 0);
});

test('a parsed field cannot reach the prototype of anything', () => {
  const message = parseForm('constructor=x&toString=y&__proto__=z');
  assert.equal(message.type, 'auth-reply');
  assert.equal(Object.getPrototypeOf(message.type === 'auth-reply' && message.answers), Object.prototype);
});
