import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  childOf,
  MAX_BANNER_BYTES,
  parseConfigAuth,
  parseXml,
  renderCertificateRequest,
  renderComplete,
  renderForm,
  renderLoggedOut,
  renderManifest,
  renderRefusal,
  renderUpdateText,
  withoutXmlDeclaration,
  type CompleteDocument,
  type DocumentStyle,
  type FormDocument,
  type PackageFile,
} from './index.ts';

interface Vector<T> {
  name: string;
  input: T;
  style: DocumentStyle;
  xml: string;
}
const vectors = JSON.parse(
  readFileSync(new URL('../vectors/config-auth-answer.json', import.meta.url), 'utf8'),
) as {
  form: Vector<FormDocument>[];
  refusal: Vector<string>[];
  certificateRequest: Vector<{ loginId: string; profile: string }>[];
  complete: Vector<CompleteDocument>[];
  manifest: Vector<PackageFile[]>[];
};
const aForm = vectors.form[0]?.input ?? assert.fail('no vector');

test('documents are byte for byte those of the vectors', () => {
  for (const { name, input, style, xml } of vectors.form) assert.equal(renderForm(input, style), xml, name);
  for (const { name, input, style, xml } of vectors.refusal)
    assert.equal(renderRefusal(input, style), xml, name);
  for (const { name, input, style, xml } of vectors.complete)
    assert.equal(renderComplete(input, style), xml, name);
  for (const { name, input, xml } of vectors.certificateRequest)
    assert.equal(renderCertificateRequest(input), xml, name);
  for (const { name, input, xml } of vectors.manifest) assert.equal(renderManifest(input), xml, name);
});

test('the handle of a form comes back from its opaque element', () => {
  const opaque = /<opaque[^]*<\/opaque>/.exec(renderForm(aForm, 'config-auth'))?.[0] ?? '';
  const reply = parseConfigAuth(`<config-auth type="auth-reply">${opaque}</config-auth>`);
  assert.equal(reply.type === 'auth-reply' && reply.loginId, aForm.loginId);
});

test('texts with anything in them stay texts', () => {
  const nasty = '</auth><auth id="success">&amp; ]]> \u0000\u0007\u{1F511}\ud800 "\' %s %%ss <!DOCTYPE x>';
  const form = renderForm(
    {
      ...aForm,
      title: nasty,
      banner: nasty,
      message: nasty,
      error: nasty,
      profiles: [{ name: nasty, label: nasty }],
    },
    'config-auth',
  );
  const auth = childOf(parseXml(withoutXmlDeclaration(form)), 'auth');
  const shown = '</auth><auth id="success">&amp; ]]> \u{1F511} "\' % s %% ss <!DOCTYPE x>';
  for (const name of ['title', 'banner', 'message', 'error'])
    assert.equal(childOf(auth, name)?.text, shown, name);
  const option = childOf(childOf(childOf(auth, 'form'), 'select'), 'option');
  assert.equal(
    option?.attributes.get('value'),
    nasty.replace(/[\u0000\u0007]|\ud800(?=[^\udc00-\udfff])/g, ''),
  );
});

test('a banner is cut to what clients can take, between characters', () => {
  const bannerOf = (banner: string) =>
    childOf(
      childOf(parseXml(withoutXmlDeclaration(renderForm({ ...aForm, banner }, 'config-auth'))), 'auth'),
      'banner',
    )?.text;
  assert.equal(bannerOf('x'.repeat(MAX_BANNER_BYTES)), 'x'.repeat(MAX_BANNER_BYTES));
  assert.equal(bannerOf('x'.repeat(MAX_BANNER_BYTES + 1)), 'x'.repeat(MAX_BANNER_BYTES));
  assert.equal(bannerOf('\u{1F511}'.repeat(200)), '\u{1F511}'.repeat(MAX_BANNER_BYTES / 4));
});

test('a field whose name is no XML name is our own fault', () => {
  for (const name of ['pass word', '', '1st', 'a"b', '__proto__'])
    assert.throws(
      () => renderForm({ ...aForm, fields: [{ name, kind: 'text', label: '', value: '' }] }, 'config-auth'),
      RangeError,
    );
});

test('exactly one option is selected, and it is the first', () => {
  const select = /<select[^]*<\/select>/.exec(renderForm(aForm, 'config-auth'))?.[0] ?? '';
  const options = parseXml(select).children;
  assert.deepEqual(
    options.map((option) => option.attributes.get('selected')),
    ['true', undefined],
  );
});

test('logout is answered with a complete document, an empty packages folder with no update', () => {
  assert.equal(parseXml(withoutXmlDeclaration(renderLoggedOut())).attributes.get('type'), 'complete');
  assert.equal(renderUpdateText(''), '0,0,0000\n');
  assert.equal(renderUpdateText('4.10.07061'), '4,10,07061\n');
});
