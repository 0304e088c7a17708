import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ESLint } from 'eslint';
import tseslint from 'typescript-eslint';
import { ROOT, runTool } from './checkout.ts';

const BOUNDARY = '@nx/enforce-module-boundaries';
const OWNER = 'sallyport/library-owner';
const SYNTAX = 'no-restricted-syntax';

test('no source breaks a lint rule', () => {
  const { status, output } = runTool('eslint', ['--max-warnings=0', '.']);
  assert.equal(status, 0, output);
});

test('every file is formatted', () => {
  const { status, output } = runTool('prettier', ['--check', '--log-level', 'warn', '.']);
  assert.equal(status, 0, `run "npm run format"\n${output}`);
});

describe('the lint refuses', () => {
  // Text under a file name that does not exist: the project's own configuration, without the rules that need types.
  const refused: [what: string, file: string, rule: string, text: string][] = [
    [
      'a library project that imports one above it',
      'libs/protocol/src/new.ts',
      BOUNDARY,
      `import '@sallyport/cluster';`,
    ],
    ['protocol in chassis', 'libs/chassis/src/new.ts', BOUNDARY, `import '@sallyport/protocol';`],
    ['cluster in engine', 'libs/engine/src/new.ts', BOUNDARY, `import '@sallyport/cluster';`],
    ['an application in a library', 'libs/cluster/src/new.ts', BOUNDARY, `import '@sallyport/auth';`],
    [
      'an application in another by package name',
      'apps/portal/src/new.ts',
      BOUNDARY,
      `import '@sallyport/auth';`,
    ],
    [
      'an application that imports it late',
      'apps/portal/src/new.ts',
      BOUNDARY,
      `await import('@sallyport/auth');`,
    ],
    [
      'a relative path into another project',
      'apps/portal/src/new.ts',
      BOUNDARY,
      `import '../../auth/src/index.ts';`,
    ],
    [
      'a relative path from a library',
      'libs/cluster/src/new.ts',
      BOUNDARY,
      `import '../../chassis/src/log.ts';`,
    ],
    [
      'Node in the pure project',
      'libs/protocol/src/new.ts',
      OWNER,
      `import { readFileSync } from 'node:fs'; readFileSync('x');`,
    ],
    ['Node without its prefix there', 'libs/protocol/src/new.ts', OWNER, `export * from 'crypto';`],
    ['a second file on a library', 'apps/auth/src/new.ts', OWNER, `import { pino } from 'pino'; pino();`],
    ['a second file that imports it late', 'apps/auth/src/new.ts', OWNER, `await import('pino');`],
    ['a library that nobody owns', 'apps/auth/src/new.ts', OWNER, `import 'left-pad';`],
    ['NestJS below modules and controllers', 'apps/auth/src/new.ts', OWNER, `import '@nestjs/common';`],
    ['a decorator outside of them', 'apps/auth/src/new.ts', SYNTAX, `@x export class A {}`],
    ['a default export', 'apps/auth/src/new.ts', SYNTAX, `export default 1;`],
    ['a name that says nothing', 'apps/auth/src/new.ts', SYNTAX, `export class SessionManager {}`],
    ['the environment read in passing', 'apps/auth/src/new.ts', SYNTAX, `export const x = process.env.X;`],
    [
      'any',
      'apps/auth/src/new.ts',
      '@typescript-eslint/no-explicit-any',
      `export function f(x: any): number { return x; }`,
    ],
    [
      '!',
      'apps/auth/src/new.ts',
      '@typescript-eslint/no-non-null-assertion',
      `export const f = (x?: string): string => x!;`,
    ],
    ['a function of more than 80 lines', 'apps/auth/src/new.ts', 'max-lines-per-function', longFunction(80)],
    [
      'a file of more than 700 lines',
      'apps/auth/src/new.ts',
      'max-lines',
      `export const x = 1;\n`.repeat(701),
    ],
  ];
  for (const [what, file, rule, text] of refused) {
    test(what, async () => {
      const messages = await lint(file, text);
      assert.ok(
        messages.some((message) => message.ruleId === rule),
        `${rule} said nothing; reported: ${JSON.stringify(messages)}`,
      );
    });
  }
});

describe('the lint allows', () => {
  const allowed: [what: string, file: string, text: string][] = [
    ['protocol in cluster', 'libs/cluster/src/new.ts', `import '@sallyport/protocol';`],
    [
      'every application in the gateway',
      'apps/gateway/src/new.ts',
      `import '@sallyport/auth'; import '@sallyport/tunnel-node';`,
    ],
    ['a library in its own file', 'libs/chassis/src/log.ts', `import { pino } from 'pino'; pino();`],
    [
      'NestJS and decorators in a module',
      'apps/auth/src/new.module.ts',
      `import { Module } from '@nestjs/common'; @Module({}) export class M {}`,
    ],
    ['Node outside the pure project', 'libs/cluster/src/new.ts', `import 'node:fs';`],
  ];
  for (const [what, file, text] of allowed) {
    test(what, async () => assert.deepEqual(await lint(file, text), []));
  }
});

async function lint(file: string, text: string): Promise<{ ruleId: string | null; message: string }[]> {
  const [result] = await eslint.lintText(text, { filePath: ROOT + file });
  assert.ok(result, `${file} is not linted at all`);
  return result.messages.map(({ ruleId, message }) => ({ ruleId, message }));
}

function longFunction(lines: number): string {
  return `export function f(): number {\n${'  console.assert();\n'.repeat(lines)}  return 1;\n}\n`;
}

const eslint = new ESLint({
  cwd: ROOT,
  overrideConfig: [{ files: ['**/*.ts'], ...tseslint.configs.disableTypeChecked }],
});
