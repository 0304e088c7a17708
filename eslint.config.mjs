import nx from '@nx/eslint-plugin';
import { createProjectGraphAsync } from '@nx/devkit';
import tseslint from 'typescript-eslint';
import { LIBRARY_OWNERS } from './tools/libraries.mjs';
import { sallyport } from './tools/lint-rules.mjs';

// Offline, without daemon and cloud. The graph must exist before the boundary rule runs, or that rule is skipped in silence.
Object.assign(process.env, { NX_DAEMON: 'false', NX_NO_CLOUD: 'true', NX_TUI: 'false' });
await createProjectGraphAsync({ exitOnError: false, resetDaemonClient: true });

const root = import.meta.dirname;
const SOURCES = ['libs/*/src/**/*.ts', 'apps/*/src/**/*.ts'];
const TESTS = [
  ...['**/*.test.ts', '**/*.fake.ts', '**/*.contract.ts', '**/contract.ts', '**/testing/**/*.ts'],
  ...['libs/engine/src/namespace.ts', 'test/**/*.ts'],
];
const DECORATED = ['apps/*/src/**/*.module.ts', 'apps/*/src/**/*.controller.ts'];

const syntax = {
  default: {
    selector: 'ExportDefaultDeclaration',
    message: 'No default exports: a thing has one name everywhere, and a search finds it.',
  },
  names: {
    selector:
      ':matches(ClassDeclaration, TSInterfaceDeclaration, TSTypeAliasDeclaration)[id.name=/(Manager|Helper|Utils?|Common|Impl|Base)$/]',
    message: 'This name says nothing: use the vocabulary of ARCHITECTURE.md §1.',
  },
  decorators: {
    selector: 'Decorator',
    message:
      'Decorators belong into *.module.ts and *.controller.ts: NestJS serves, it does not rule (ARCHITECTURE.md).',
  },
  env: {
    selector: 'MemberExpression[object.name="process"][property.name="env"]',
    message:
      'The environment is read at the start of the program only (bin, main, cli) and passed on: hidden inputs cannot be tested.',
  },
};

const borders = { allow: [], enforceBuildableLibDependency: false, depConstraints: boundaries() };

export default tseslint.config(
  {
    ignores: [
      '**/dist/',
      '**/node_modules/',
      '.nx/',
      'bench/tools/',
      'bench/build/',
      'bench/out/',
      'native/target/',
      'state/',
    ],
  },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  {
    files: [...SOURCES, 'test/**/*.ts'],
    extends: [tseslint.configs.recommendedTypeChecked],
    plugins: { '@nx': nx },
    languageOptions: {
      parserOptions: {
        project: ['libs/*/tsconfig*.json', 'apps/*/tsconfig.json', 'test/tsconfig.json'],
        tsconfigRootDir: root,
      },
    },
    rules: {
      '@nx/enforce-module-boundaries': ['error', borders],
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      '@typescript-eslint/no-unused-vars': [
        'error',
        { argsIgnorePattern: '^_', ignoreRestSiblings: true, varsIgnorePattern: '^_', caughtErrors: 'none' },
      ],
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/consistent-type-definitions': 'error',
      '@typescript-eslint/no-unnecessary-boolean-literal-compare': 'error',
      '@typescript-eslint/use-unknown-in-catch-callback-variable': 'error',
      // A method may be async because its interface is.
      '@typescript-eslint/require-await': 'off',
      'no-restricted-syntax': ['error', ...Object.values(syntax)],
      'no-console': 'error',
      eqeqeq: 'error',
      'max-lines': ['error', { max: 700, skipBlankLines: true }],
      'max-lines-per-function': ['error', { max: 80, skipBlankLines: true, skipComments: true }],
    },
  },
  {
    files: SOURCES,
    ignores: TESTS,
    plugins: { sallyport },
    rules: {
      'sallyport/library-owner': ['error', { root, owners: LIBRARY_OWNERS, pure: ['libs/protocol/src/**'] }],
    },
  },
  {
    files: DECORATED,
    rules: { 'no-restricted-syntax': ['error', syntax.default, syntax.names, syntax.env] },
  },
  {
    files: ['apps/gateway/src/{main,cli}.ts', 'apps/gateway/src/cli/*.ts', 'libs/chassis/src/config.ts'],
    rules: {
      'no-restricted-syntax': ['error', syntax.default, syntax.names, syntax.decorators],
      'no-console': 'off',
    },
  },
  {
    files: TESTS,
    rules: {
      // A suite is one function; its tests are what has a size.
      'max-lines-per-function': 'off',
      '@typescript-eslint/unbound-method': 'off',
      // JSON that our own programs printed.
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      // A test may look at its project as others do.
      '@nx/enforce-module-boundaries': ['error', { ...borders, allowCircularSelfDependency: true }],
      'no-restricted-syntax': ['error', syntax.default, syntax.names],
      'no-console': 'off',
      // The runner awaits what test() and describe() return.
      '@typescript-eslint/no-floating-promises': [
        'error',
        {
          allowForKnownSafeCalls: [
            { from: 'package', package: 'node:test', name: ['test', 'it', 'describe', 'suite'] },
          ],
        },
      ],
    },
  },
  {
    files: ['**/*.mjs'],
    languageOptions: {
      globals: {
        process: 'readonly',
        console: 'readonly',
        setTimeout: 'readonly',
        clearTimeout: 'readonly',
        Buffer: 'readonly',
        URL: 'readonly',
      },
    },
    rules: {
      'no-undef': 'error',
      'no-unused-vars': 'error',
      eqeqeq: 'error',
      'max-lines-per-function': ['error', 80],
    },
  },
);

/** Who may import whom (ARCHITECTURE.md §3): by the tag in each project's package.json. */
function boundaries() {
  const libs = ['lib:protocol', 'lib:chassis', 'lib:cluster', 'lib:engine'];
  const only = (sourceTag, ...tags) => ({ sourceTag, onlyDependOnLibsWithTags: tags });
  const apps = ['auth', 'portal', 'downloader', 'tunnel-node'].map((name) => only(`app:${name}`, ...libs));
  return [
    only('lib:protocol', 'lib:protocol'),
    only('lib:chassis', 'lib:chassis'),
    only('lib:cluster', 'lib:cluster', 'lib:protocol', 'lib:chassis'),
    only('lib:engine', 'lib:engine', 'lib:protocol', 'lib:chassis'),
    ...apps,
    only('app:gateway', ...libs, 'app:auth', 'app:portal', 'app:downloader', 'app:tunnel-node'),
    only('test', '*'),
  ];
}
