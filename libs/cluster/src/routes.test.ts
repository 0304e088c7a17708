import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  MAX_PROFILE_NAME_LENGTH,
  MAX_TARGET_LENGTH,
  profileOfPath,
  resourcePath,
  routeOf,
} from './routes.ts';

test('every path that clients ask for goes to its service', () => {
  for (const target of [
    ...['/', '/auth', '/VPN', '/+webvpn+/index.html', '/logout', '/+webvpn+/webvpn_logout.html'],
    ...['/?x=y', '/auth/', '/staff', '/staff/', '/%D1%88%D1%82%D0%B0%D0%B1', '/auth?a=/../b'],
    ...['https://vpn.example.test/', 'https://vpn.example.test', 'https://vpn.example.test/auth'],
  ])
    assert.equal(routeOf(target), 'portal', target);
  for (const target of [
    ...['/CACHE/stc/profiles/a.xml', '/profiles/a.xml', '/profiles%2Fa.xml', '/1/index.html', '/1/Linux_64'],
    ...['/1/binaries/update.txt', '/1/VPNManifest.xml', '/VPNManifest.xml', '/CACHE/stc/1/VPNManifest.xml'],
    ...[
      '/+CSCOT+/translation-table?textdomain=AnyConnect&type=manifest',
      '/+CSCOT+/oem-customization?lang=../',
    ],
  ])
    assert.equal(routeOf(target), 'downloader', target);
});

test('what nobody serves, and old holes of other gateways, have no route', () => {
  for (const target of [
    ...[
      '/+CSCOE+/logon.html',
      '/+CSCOU+/../+CSCOE+/files/x',
      '/CACHE/sdesktop/data.xml',
      '/CACHE',
      '/1',
      '/profiles',
    ],
    ...['/CSCOSSLC/tunnel', '/admin/users', '/+CSCOT+/', '/+CSCOT+/translation-table/x', '', 'auth', '*'],
    ...[
      '/auth/../staff',
      '/%2e%2e/etc/passwd',
      '/%252e%252e/x',
      '/..;/auth',
      '/auth;x',
      '/auth%3bx',
      '/auth\\x',
    ],
    ...[
      '/auth%5cx',
      '/auth%00',
      '/a%0d%0ab',
      '//auth',
      '/./auth',
      '/auth//',
      '/%',
      '/%zz',
      '/%ff',
      '/%c0%af',
      '/a#b',
    ],
    ...[
      'https://',
      '?x',
      'https://?x',
      'http:/auth',
      'ftp://x/auth',
      `/${'a'.repeat(MAX_PROFILE_NAME_LENGTH + 1)}`,
    ],
  ])
    assert.equal(routeOf(target), undefined, target);
});

test('every spelling of a resource means that resource or nothing', () => {
  const spellings = [
    '/profiles/a.xml',
    '/profiles%2Fa.xml',
    '/%70rofiles/a.xml',
    '/profiles/a.xml/',
    '/profiles/a.xml?x',
  ];
  for (const spelling of [...spellings, 'https://h/profiles/a.xml'])
    assert.equal(resourcePath(spelling), '/profiles/a.xml', spelling);
  for (const spelling of ['/Profiles/a.xml', '/profiles/A.xml', '/profiles/a.xml.', '/profiles∕a.xml'])
    assert.notEqual(resourcePath(spelling), '/profiles/a.xml', spelling);
  for (const spelling of [
    '//profiles/a.xml',
    '/./profiles/a.xml',
    '/profiles//a.xml',
    '/profiles/%2e/a.xml',
    '/profiles%252Fa.xml',
  ])
    assert.equal(resourcePath(spelling), undefined, spelling);
});

test('a target of the full length is read, a longer one is not', () => {
  assert.equal(routeOf(`/?${'x'.repeat(MAX_TARGET_LENGTH - 2)}`), 'portal');
  assert.equal(routeOf(`/?${'x'.repeat(MAX_TARGET_LENGTH - 1)}`), undefined);
});

test('a profile is named by a single segment that is nobody else’s', () => {
  assert.equal(profileOfPath('/staff'), 'staff');
  for (const path of ['/', '/auth', '/VPN', '/a/b', '/+x', '/VPNManifest.xml', '/1', '/CACHE'])
    assert.equal(profileOfPath(path), undefined, path);
});
