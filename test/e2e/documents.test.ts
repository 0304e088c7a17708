import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { ALICE, World } from '../harness/index.ts';

const world = await World.open({
  settings: {
    profiles: {
      staff: { label: 'Staff & friends', methods: ['local'], default: true },
      buh: { label: 'Бухгалтерия', methods: ['local'] },
    },
  },
});
after(() => world.close());

const ROOT = '<config-auth client="vpn" type="init" aggregate-auth-version="2">';
const ACCESS = '<group-access>https://192.0.2.1/</group-access>';

for (const [what, body] of [
  ['a malformed XML declaration', `<?xml version: "1.0" encoding="UTF-8"?>${ROOT}${ACCESS}</config-auth>`],
  ['no XML declaration and blanks before', `\r\n  \t${ROOT}${ACCESS}</config-auth>\n`],
  [
    'attributes in another order and quotes',
    `<config-auth type='init' aggregate-auth-version="2" client='vpn'>${ACCESS}</config-auth>`,
  ],
  [
    'unknown elements, nested',
    `${ROOT}<future attr="1"><deep><deeper/></deep></future>${ACCESS}<x/></config-auth>`,
  ],
  ['an empty group-select', `${ROOT}<group-select></group-select>${ACCESS}</config-auth>`],
  ['a group of another gateway', `${ROOT}<group-select>Elsewhere</group-select>${ACCESS}</config-auth>`],
  [
    'children in another order, no version',
    `${ROOT}<capabilities/>${ACCESS}<device-id>win</device-id></config-auth>`,
  ],
  ['a root of an old client', `<config-auth client="vpn" type="init">${ACCESS}</config-auth>`],
] as const) {
  test(`row 8: init with ${what} gets the form of the default group`, async () => {
    const step = await world.anyConnect().post(body);
    assert.equal(step.type, 'auth-request');
    assert.equal(step.groups[0]?.label, 'Staff & friends');
    assert.ok(step.groups[0]?.selected);
  });
}

for (const [what, group] of [
  ['in letters of another alphabet', 'Бухгалтерия'],
  ['in CDATA', '<![CDATA[Бухгалтерия]]>'],
  ['in character references', '&#x411;&#1091;хгалтерия'],
] as const) {
  test(`row 8: a group name ${what} is found`, async () => {
    const body = `${ROOT}<group-select>${group}</group-select>${ACCESS}</config-auth>`;
    const step = await world.anyConnect().post(body);
    assert.equal(step.groups[0]?.label, 'Бухгалтерия');
  });
}

test('row 8: a label with an ampersand is found when escaped, and openconnect can choose it', async () => {
  const step = await world
    .anyConnect()
    .post(`${ROOT}<group-select>Staff &amp; friends</group-select>${ACCESS}</config-auth>`);
  assert.equal(step.groups[0]?.label, 'Staff & friends');
  const client = await world.connected(ALICE, { group: 'Бухгалтерия' });
  assert.equal(await client.stop(), 0);
});

for (const [what, prolog] of [
  ['an empty DOCTYPE', '<!DOCTYPE config-auth>'],
  ['an internal subset', '<!DOCTYPE config-auth [<!ENTITY a "b">]>'],
  ['an external entity', '<!DOCTYPE config-auth [<!ENTITY a SYSTEM "file:///etc/passwd">]>'],
] as const) {
  test(`row 8: a document with ${what} is refused`, async () => {
    const answer = await world
      .anyConnect()
      .exchange('POST', '/', `<?xml version="1.0"?>${prolog}${ROOT}${ACCESS}</config-auth>`);
    assert.equal(answer.status, 400);
    assert.doesNotMatch(answer.body.toString(), /root:/);
  });
}
