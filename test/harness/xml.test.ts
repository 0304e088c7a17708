import assert from 'node:assert/strict';
import { test } from 'node:test';
import { escapeXml, find, findAll, parseXml, textOf, writeXml } from './xml.ts';

const DOCUMENT = `<?xml version="1.0"?>
<a one="1" two='&lt;2&#33;'><!-- x --><b/><b>&amp;<![CDATA[<raw>]]></b><c><d>t</d></c></a>`;

test('elements, attributes, entities and CDATA are read', () => {
  const root = parseXml(DOCUMENT);
  assert.deepEqual(
    [...root.attributes],
    [
      ['one', '1'],
      ['two', '<2!'],
    ],
  );
  assert.deepEqual(findAll(root, 'b').map(textOf), ['', '&<raw>']);
  assert.equal(textOf(find(root, 'c/d')), 't');
});

test('what was written, plain or altered, reads back the same', () => {
  const root = parseXml(DOCUMENT.replace(/<!--.*?-->/, ''));
  assert.deepEqual(writeXml(parseXml(writeXml(root))), writeXml(root));
  const altered = writeXml(root, { altered: true });
  assert.notEqual(altered, writeXml(root));
  const back = parseXml(altered);
  assert.deepEqual(Object.fromEntries(back.attributes), Object.fromEntries(root.attributes));
  assert.equal(textOf(find(back, 'c/d')), 't');
  assert.equal(textOf(parseXml(`<a>${escapeXml(`<&>"'`)}</a>`)), `<&>"'`);
});

for (const bad of [
  '<a>',
  '<a></b>',
  '<a/><b/>',
  '<a b="1" b="2"/>',
  '<a>&nobody;</a>',
  '<!DOCTYPE a><a/>',
  'text',
  '<a b=1/>',
]) {
  test(`not well-formed: ${bad}`, () => {
    assert.throws(() => parseXml(bad));
  });
}
