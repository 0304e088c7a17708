/**
 * One YAML file, read against a tree of keys. Knows nothing about what the keys mean.
 *
 * 1. parse the text, keep the line of every node;
 * 2. walk the document beside the tree: unknown keys, wrong places, wrong values, each with its line, all of them;
 * 3. give back typed values (absent keys stay absent) and the line of each key, for checks across keys.
 *
 * The only file on `yaml`.
 */
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument } from 'yaml';
import type { Node, YAMLMap } from 'yaml';
import { GLOBAL_SCOPE, keyPlaces } from './config-keys.ts';
import type { Key, Keys, Named, Values } from './config-keys.ts';
import { issueText } from './config-values.ts';
import { nearest } from './nearest.ts';

export interface Problem {
  /** From 1. */
  line: number;
  message: string;
  /** The key whose value was refused: that value is absent. */
  key?: string;
}

export interface ConfigDocument<K> {
  values: Values<K>;
  problems: Problem[];
  /** Line of a key by its path; of the nearest key around it if it is absent. */
  line: (...path: string[]) => number;
}

/** A whole file; more is a mistake, and a parser's work is bounded by it. */
export const MAX_CONFIG_BYTES = 4 * 1024 * 1024;

/**
 * Reads a document. Never throws for what stands in it.
 * @param hints what to say about keys that are unknown here and known elsewhere.
 */
export function readDocument<K extends Keys>(
  text: string,
  keys: K,
  hints: ReadonlyMap<string, string> = new Map(),
): ConfigDocument<K> {
  const reader = new DocumentReader(text, keys, hints);
  const values = reader.read();
  return {
    // The walk puts under each name only what that name's own type has parsed.
    values: values as Values<K>,
    problems: reader.problems.sort((a, b) => a.line - b.line),
    line: (...path) => reader.line(path),
  };
}

/** `FILE:LINE: message`, in the order of lines. */
export function problemTexts(file: string, problems: readonly Problem[]): string[] {
  return [...problems]
    .sort((a, b) => a.line - b.line)
    .map(({ line, message }) => `${file}:${line}: ${message}`);
}

// The walk

class DocumentReader {
  readonly problems: Problem[] = [];
  readonly #text: string;
  readonly #keys: Keys;
  readonly #hints: ReadonlyMap<string, string>;
  readonly #counter = new LineCounter();
  readonly #lines = new Map<string, number>();
  /** Where each name of the whole tree may stand. */
  readonly #places = new Map<string, string[]>();

  constructor(text: string, keys: Keys, hints: ReadonlyMap<string, string>) {
    this.#text = text;
    this.#keys = keys;
    this.#hints = hints;
    for (const { name, scopes } of keyPlaces(keys)) this.#places.set(name, scopes);
  }

  read(): Record<string, unknown> {
    if (Buffer.byteLength(this.#text) > MAX_CONFIG_BYTES) {
      this.#problem(1, `the file is larger than ${MAX_CONFIG_BYTES} bytes`);
      return {};
    }
    const root = this.#parse();
    if (!root || (isScalar(root) && root.value === null)) return {};
    return this.#map(root, this.#keys, GLOBAL_SCOPE, []);
  }

  line(path: readonly string[]): number {
    for (let length = path.length; length > 0; length--) {
      const line = this.#lines.get(path.slice(0, length).join('\0'));
      if (line !== undefined) return line;
    }
    return 1;
  }

  #parse(): Node | null | undefined {
    try {
      const document = parseDocument(this.#text, { lineCounter: this.#counter, prettyErrors: false });
      for (const error of [...document.errors, ...document.warnings]) {
        this.#problem(this.#lineAt(error.pos[0]), yamlProblem(error));
      }
      return document.contents;
    } catch (error) {
      // Thousands of brackets deep: the parser is recursive.
      if (!(error instanceof RangeError)) throw error;
      this.#problem(1, 'the document is nested too deeply');
      return undefined;
    }
  }

  #map(node: Node, keys: Keys, scope: string, path: readonly string[]): Record<string, unknown> {
    const values: Record<string, unknown> = {};
    for (const { name, line, value } of this.#pairs(node, path)) {
      const entry = Object.hasOwn(keys, name) ? keys[name] : undefined;
      if (!entry) this.#problem(line, this.#unknown(name, keys, scope));
      else if (entry.kind === 'key') this.#value(values, name, entry, value, [...path, name]);
      else if (entry.kind === 'section')
        values[name] = value ? this.#map(value, entry.keys, scope, [...path, name]) : {};
      else values[name] = this.#named(entry, value, [...path, name]);
    }
    return values;
  }

  #named(entry: Named<Keys>, node: Node | undefined, path: readonly string[]): Map<string, unknown> {
    const all = new Map<string, unknown>();
    if (!node) return all;
    for (const { name, line, value } of this.#pairs(node, path)) {
      const checked = entry.name.schema.safeParse(name);
      if (!checked.success) {
        this.#problem(
          line,
          `"${name}" cannot be the name of a ${entry.scope}: it ${issueText(checked.error, entry.name)}`,
        );
        continue;
      }
      all.set(checked.data, value ? this.#map(value, entry.keys, entry.scope, [...path, name]) : {});
    }
    return all;
  }

  /** Pairs of a map with their lines. A pair without a value has `undefined`. */
  #pairs(node: Node, path: readonly string[]): { name: string; line: number; value: Node | undefined }[] {
    if (!isMap(node)) {
      const what = isAlias(node) ? 'aliases are not allowed' : 'must be a map of keys';
      this.#problem(this.#lineOf(node), path.length ? `${path.join('.')}: ${what}` : `the file ${what}`);
      return [];
    }
    const pairs = [];
    for (const pair of (node as YAMLMap<Node, Node | null>).items) {
      if (!isScalar(pair.key)) {
        this.#problem(this.#lineOf(pair.key), 'a key must be plain text');
        continue;
      }
      const name = pair.key.source ?? String(pair.key.value);
      const line = this.#lineOf(pair.key);
      this.#lines.set([...path, name].join('\0'), line);
      const empty = !pair.value || (isScalar(pair.value) && pair.value.value === null);
      pairs.push({ name, line, value: empty ? undefined : (pair.value ?? undefined) });
    }
    return pairs;
  }

  #value(
    into: Record<string, unknown>,
    name: string,
    key: Key<unknown>,
    node: Node | undefined,
    path: readonly string[],
  ): void {
    if (!node)
      return this.#problem(this.line(path), `${name} has no value; it must be ${key.type.says}`, name);
    const plain = this.#plain(node, name);
    if (!plain) return;
    const result = key.type.schema.safeParse(plain.value);
    if (result.success) {
      into[name] = result.data;
      return;
    }
    for (const issue of result.error.issues) {
      const index = typeof issue.path[0] === 'number' ? issue.path[0] : undefined;
      const item = index === undefined ? undefined : plain.items[index];
      const shown = shownValue(item ? item.value : plain.value);
      const line = item?.line ?? this.#lineOf(node);
      if (issue.code === 'custom') this.#problem(line, `${name} ${shown} ${issue.message}`, name);
      else this.#problem(line, `${name} must be ${key.type.says}, not ${shown}`, name);
    }
  }

  /** The node as a plain value or a list of them; undefined when it is something else, which is reported. */
  #plain(
    node: Node,
    name: string,
  ): { value: unknown; items: { value: unknown; line: number }[] } | undefined {
    if (isScalar(node))
      return { value: node.value, items: [{ value: node.value, line: this.#lineOf(node) }] };
    if (isSeq(node)) {
      const items = [];
      for (const item of node.items) {
        if (!isScalar(item)) {
          this.#problem(this.#lineOf(node), `${name} must be a list of plain values`, name);
          return undefined;
        }
        items.push({ value: item.value, line: this.#lineOf(item) });
      }
      return { value: items.map(({ value }) => value), items };
    }
    this.#problem(
      this.#lineOf(node),
      `${name}: ${isAlias(node) ? 'aliases are not allowed' : 'a map cannot stand here'}`,
      name,
    );
    return undefined;
  }

  #unknown(name: string, keys: Keys, scope: string): string {
    const scopes = this.#places.get(name);
    if (scopes) {
      const here = scope === GLOBAL_SCOPE ? 'at the top level' : `in a ${scope}`;
      const there = scopes.map((one) => (one === GLOBAL_SCOPE ? 'the top level' : `a ${one}`)).join(', ');
      return `key "${name}" cannot stand ${here}; its place is ${there}`;
    }
    const hint = this.#hints.get(name);
    if (hint !== undefined) return `unknown key "${name}"; ${hint}`;
    const meant = nearest(name, Object.keys(keys)) ?? nearest(name, this.#places.keys());
    return `unknown key "${name}"${meant ? `; did you mean "${meant}"?` : ''}`;
  }

  #lineOf(node: Node | null): number {
    return this.#lineAt(node?.range?.[0] ?? 0);
  }

  #lineAt(offset: number): number {
    return Math.max(1, this.#counter.linePos(offset).line);
  }

  #problem(line: number, message: string, key?: string): void {
    this.problems.push({ line, message, ...(key !== undefined && { key }) });
  }
}

function yamlProblem({ code, message }: { code: string; message: string }): string {
  if (code === 'DUPLICATE_KEY') return 'this key stands twice in the same map';
  if (code === 'MULTIPLE_DOCS') return 'the file must hold one YAML document';
  return `not valid YAML: ${message}`;
}

function shownValue(value: unknown): string {
  const shown = JSON.stringify(value) ?? String(value);
  return shown.length > MAX_SHOWN ? `${shown.slice(0, MAX_SHOWN)}…` : shown;
}

const MAX_SHOWN = 80;
