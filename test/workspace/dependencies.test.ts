import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { satisfies } from 'semver';
import { ROOT } from './checkout.ts';

interface LockedPackage {
  resolved?: string;
  link?: boolean;
  dev?: boolean;
  devOptional?: boolean;
  license?: string;
  engines?: { node?: string };
}

test('every locked package runs on the oldest Node that we support', () => {
  const unfit = thirdParty()
    .filter(
      ([path, { engines }]) =>
        engines?.node !== undefined && !satisfies(OLDEST_NODE, engines.node) && !KNOWN_UNFIT.has(path),
    )
    .map(([path, { engines }]) => `${path} wants ${engines?.node}`);
  assert.deepEqual(unfit, []);
});

test('what we ship has licences that go with Apache-2.0', () => {
  const odd = thirdParty()
    .filter(([, { dev, devOptional }]) => !dev && !devOptional)
    .filter(([, { license }]) => !isPermissive(license ?? 'none'))
    .map(([path, { license }]) => `${path}: ${license ?? 'none'}`);
  assert.deepEqual(odd, []);
});

test('the licence check tells good expressions from bad ones', () => {
  assert.ok(isPermissive('(MIT OR GPL-3.0-only)'));
  assert.ok(isPermissive('MIT AND ISC'));
  assert.ok(!isPermissive('MIT AND GPL-3.0-only'));
  assert.ok(!isPermissive('AGPL-3.0-or-later'));
  assert.ok(!isPermissive('none'));
});

test('the lock file names no download addresses', () => {
  const addresses = thirdParty().filter(([, { resolved, link }]) => resolved !== undefined && !link);
  assert.deepEqual(
    addresses.map(([path]) => path),
    [],
  );
});

function thirdParty(): [string, LockedPackage][] {
  const lock = JSON.parse(readFileSync(`${ROOT}package-lock.json`, 'utf8')) as {
    packages: Record<string, LockedPackage>;
  };
  return Object.entries(lock.packages).filter(
    ([path, entry]) => path.includes('node_modules/') && !entry.link,
  );
}

/** OR: one good branch is enough; AND: all must be good. Nested expressions do not occur and count as bad. */
function isPermissive(license: string): boolean {
  const bare = license.replace(/^\((.*)\)$/, '$1');
  return bare.split(' OR ').some((branch) => branch.split(' AND ').every((name) => PERMISSIVE.has(name)));
}

/** `engines` in package.json. */
const OLDEST_NODE = '20.19.0';
/** Comes with @nestjs/common, which needs it for FileTypeValidator only; we have none. */
const KNOWN_UNFIT = new Set(['node_modules/file-type']);
const PERMISSIVE = new Set([
  'Apache-2.0',
  'MIT',
  'ISC',
  '0BSD',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'BlueOak-1.0.0',
  'CC0-1.0',
  'Unlicense',
  'Python-2.0',
]);
