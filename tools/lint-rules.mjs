// Our own lint rules. A rule of the house that can be a lint is a lint, with its reason in the message.
import { isBuiltin } from 'node:module';
import { matchesGlob } from './globs.mjs';

/**
 * One file touches each third-party library, so that leaving the library is a change of one file.
 * Options: [{ root, owners: { package: [glob] }, pure: [glob] }], globs relative to root.
 */
const libraryOwner = {
  meta: {
    type: 'problem',
    schema: [{ type: 'object' }],
    messages: {
      elsewhere:
        '{{name}} may be imported in {{files}} only: one file touches each third-party library, so that leaving it is one change. Call that file instead.',
      unknown:
        '{{name}} has no owner: name the one file that may import it in tools/libraries.mjs, and say in the commit what you did not want to write.',
      pure: '{{name}} is not allowed here: this project is pure (no I/O, no clock, no randomness). Take what you need as an argument.',
    },
  },
  create(context) {
    const { root, owners, pure } = context.options[0];
    const file = context.filename.slice(root.length + 1);
    const isIn = (globs) => globs.some((glob) => matchesGlob(file, glob));
    function check(node, source) {
      if (typeof source !== 'string' || source.startsWith('.') || source.startsWith('@sallyport/')) return;
      if (isBuiltin(source)) {
        if (isIn(pure)) context.report({ node, messageId: 'pure', data: { name: source } });
        return;
      }
      const name = source
        .split('/')
        .slice(0, source.startsWith('@') ? 2 : 1)
        .join('/');
      const files = owners[name];
      if (!files) context.report({ node, messageId: 'unknown', data: { name } });
      else if (!isIn(files))
        context.report({ node, messageId: 'elsewhere', data: { name, files: files.join(', ') } });
    }
    return {
      ImportDeclaration: (node) => check(node, node.source.value),
      ExportNamedDeclaration: (node) => check(node, node.source?.value),
      ExportAllDeclaration: (node) => check(node, node.source.value),
      ImportExpression: (node) => check(node, node.source.value),
      'CallExpression[callee.name=/^(require|createRequire)$/]': (node) =>
        check(node, node.arguments[0]?.value),
    };
  },
};

export const sallyport = { rules: { 'library-owner': libraryOwner } };
