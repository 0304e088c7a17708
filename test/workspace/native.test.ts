import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ROOT, run } from './checkout.ts';

// The Rust workspace by its own tools. Where there are none, each is reported as skipped.

interface Toolchain {
  cargo?: string;
  missing?: string;
}
const { rustToolchain } = (await import(`${ROOT}tools/native.mjs`)) as { rustToolchain: () => Toolchain };
const { cargo = '', missing } = rustToolchain();
const skip = missing ?? false;
const MANIFEST = ['--manifest-path', `${ROOT}native/Cargo.toml`];
const BUILD = [...MANIFEST, '--locked', '--release', '--target-dir', `${ROOT}native/target`];

test('native: cargo test passes', { skip }, (context) => {
  const { status, output } = run(cargo, ['test', ...BUILD]);
  assert.equal(status, 0, output);
  const passed = [...output.matchAll(/^test result: ok\. (\d+) passed/gm)].map(([, count]) => Number(count));
  assert.ok(
    passed.some((count) => count > 0),
    output,
  );
  context.diagnostic(`cargo test: ${passed.join(' + ')} passed`);
});

test('native: cargo clippy has nothing to say', { skip: skip || lacks('clippy') }, () => {
  const { status, output } = run(cargo, ['clippy', ...BUILD, '--all-targets', '--', '-D', 'warnings']);
  assert.equal(status, 0, output);
});

test('native: cargo fmt changes nothing', { skip: skip || lacks('fmt') }, () => {
  const { status, output } = run(cargo, ['fmt', ...MANIFEST, '--all', '--check']);
  assert.equal(status, 0, output);
});

test('native: what we ship has licences that go with Apache-2.0', { skip }, () => {
  const { status, output } = run(cargo, ['metadata', ...MANIFEST, '--locked', '--format-version', '1']);
  assert.equal(status, 0, output);
  const { packages } = JSON.parse(output.slice(output.indexOf('{'))) as {
    packages: { name: string; license: string | null }[];
  };
  const odd = packages.filter(
    ({ license }) => !/\b(MIT|Apache-2\.0|ISC|BSD-[23]-Clause)\b/.test(license ?? ''),
  );
  assert.deepEqual(
    odd.map(({ name, license }) => `${name}: ${license ?? 'none'}`),
    [],
  );
});

function lacks(tool: string): string | false {
  if (missing !== undefined || run(cargo, [tool, '--version']).status === 0) return false;
  return `cargo ${tool} is not installed`;
}
