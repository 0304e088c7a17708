import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { ROOT, trackedFiles } from './checkout.ts';

describe('contracts', () => {
  test('have a version in their package, and names that linters of protos accept', () => {
    for (const { file, text } of protos()) {
      assert.match(text, /^package sallyport\.[a-z]+\.v\d+;$/m, file);
      for (const { service, rpc, request, response } of rpcs(text)) {
        assert.match(service, /Service$/, `${file}: ${service}`);
        for (const message of [request, response]) {
          const [name, of] = definedIn(message, text);
          assert.ok(
            of.includes(`message ${name} {`),
            `${file}: ${rpc} speaks of ${message}, which is not there`,
          );
        }
      }
      for (const [, field = ''] of text.matchAll(/^\s+(?:repeated |optional )?[\w.]+ (\w+) = \d+;/gm)) {
        assert.match(field, /^[a-z][a-z0-9_]*$/, `${file}: ${field}`);
      }
    }
  });

  test('are served by the controllers, call by call', () => {
    const promised = protos().flatMap(({ text }) =>
      rpcs(text).map(({ service, rpc }) => `${service}.${rpc}`),
    );
    const served = sources('.controller.ts').flatMap((text) =>
      [...text.matchAll(/@Grpc(?:Stream)?Method\('(\w+)', '(\w+)'\)/g)].map(
        ([, service, rpc]) => `${service}.${rpc}`,
      ),
    );
    assert.ok(promised.length > 0);
    assert.deepEqual(served.sort(), promised.sort());
  });
});

function protos(): { file: string; text: string }[] {
  return trackedFiles()
    .filter((file) => file.endsWith('.proto'))
    .map((file) => ({ file, text: readFileSync(ROOT + file, 'utf8') }));
}

/** A message of another file is named with its package, and that file is imported. @returns name, and text of its file */
function definedIn(message: string, text: string): [string, string] {
  const dot = message.lastIndexOf('.');
  if (dot < 0) return [message, text];
  const owner = protos().find((proto) => proto.text.includes(`package ${message.slice(0, dot)};`));
  const imported = owner && text.includes(`import "${owner.file.split('/').at(-1)}";`);
  return [message.slice(dot + 1), imported ? owner.text : ''];
}

function sources(suffix: string): string[] {
  return trackedFiles()
    .filter((file) => file.startsWith('apps/') && file.endsWith(suffix))
    .map((file) => readFileSync(ROOT + file, 'utf8'));
}

function rpcs(text: string): { service: string; rpc: string; request: string; response: string }[] {
  return [...text.matchAll(/^service (\w+) \{([^}]*)\}/gm)].flatMap(([, service = '', body = '']) =>
    [...body.matchAll(/rpc (\w+)\((?:stream )?([\w.]+)\) returns \((?:stream )?([\w.]+)\)/g)].map(
      ([, rpc = '', request = '', response = '']) => ({ service, rpc, request, response }),
    ),
  );
}
