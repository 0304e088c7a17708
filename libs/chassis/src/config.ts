/**
 * One YAML file, read against a tree of keys. Knows nothing about what the keys mean.
 *
 * 1. parse the text, keep the line of every node;
 * 2. walk the document beside the tree: unknown keys, wrong places, wrong values, each with its line, all of them;
 * 3. give back typed values (absent keys stay absent) and the line of each key, for checks across keys.
 *
 * The only file on `yaml` and `zod`.
 */
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument } from 'yaml';
import type { Node, YAMLMap } from 'yaml';
import { z } from 'zod';

/** A value that one key takes. */
export interface ValueType<T> {
  readonly schema: z.ZodType<T>;
  /** Completes "KEY must be …". */
  readonly says: string;
}

export interface Key<T> {
  readonly kind: 'key';
  readonly type: ValueType<T>;
  readonly default: T;
  /** How the reference shows the default where the value itself would not be clear. */
  readonly defaultText?: string;
  /** e.g. `seconds`; '' = none. */
  readonly unit: string;
  /** False: a change takes effect at the next start. */
  readonly reloads: boolean;
  /** One line. */
  readonly about: string;
  /** The value as one writes it in YAML. */
  readonly example: string;
}

/** Keys under one key. They belong to the scope around them. */
export interface Section<K extends Keys> {
  readonly kind: 'section';
  readonly about: string;
  readonly keys: K;
}

/** A map from names to the same keys each: a scope of its own. */
export interface Named<K extends Keys> {
  readonly kind: 'named';
  /** e.g. `group`. */
  readonly scope: string;
  readonly name: ValueType<string>;
  readonly about: string;
  readonly keys: K;
}

export interface Keys {
  readonly [name: string]: Key<unknown> | Section<Keys> | Named<Keys>;
}

/** What a document holds: absent keys are absent. */
export type Values<K> = {
  [N in keyof K]?: K[N] extends Key<infer T>
    ? T
    : K[N] extends Section<infer S>
      ? Values<S>
      : K[N] extends Named<infer S>
        ? Map<string, Values<S>>
        : never;
};

export interface Problem {
  /** From 1. */
  line: number;
  message: string;
}

export interface ConfigDocument<K> {
  values: Values<K>;
  problems: Problem[];
  /** Line of a key by its path; of the nearest key around it if it is absent. */
  line: (...path: string[]) => number;
}

export const GLOBAL_SCOPE = 'global';

/** A whole file; more is a mistake, and a parser's work is bounded by it. */
export const MAX_CONFIG_BYTES = 4 * 1024 * 1024;
export const MAX_LIST_ITEMS = 4096;

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

// Values

export function integer(min: number, max: number): ValueType<number> {
  return { schema: z.int().min(min).max(max), says: `a whole number from ${min} to ${max}` };
}

export const flag: ValueType<boolean> = { schema: z.boolean(), says: 'true or false' };

export function choice<T extends string>(...names: T[]): ValueType<T> {
  const says = `one of ${names.join(', ')}`;
  return parsed<T>(says, (text) => {
    const value = names.find((name) => name === text);
    return value === undefined ? { problem: `must be ${says}` } : { value };
  });
}

/** One line of text: no control characters, at most `maxBytes` in UTF-8. */
export function text(maxBytes: number): ValueType<string> {
  return parsed<string>(`one line of text, at most ${maxBytes} bytes`, (value) => {
    if (CONTROL.test(value)) return { problem: 'must not hold line ends or other control characters' };
    const bytes = Buffer.byteLength(value);
    return bytes > maxBytes ? { problem: `is ${bytes} bytes long, the limit is ${maxBytes}` } : { value };
  });
}

/** Text of one or more lines, ended by LF alone; the last end is dropped. At most `maxBytes` in UTF-8. */
export function lines(maxBytes: number): ValueType<string> {
  return parsed<string>(`text of one or more lines, at most ${maxBytes} bytes`, (given) => {
    const value = given.replace(/\n$/, '');
    if (CONTROL.test(value.replaceAll('\n', ''))) return { problem: 'must not hold control characters' };
    const bytes = Buffer.byteLength(value);
    return bytes > maxBytes ? { problem: `is ${bytes} bytes long, the limit is ${maxBytes}` } : { value };
  });
}

/** What a parser of values gives: the value in its normal form, or what is wrong, as "KEY VALUE …" goes on. */
export type Parsed<T> = { value: T } | { problem: string };

/** A value made from text. */
export function parsed<T>(says: string, parse: (text: string) => Parsed<T>): ValueType<T> {
  return mapped({ schema: z.string(), says }, says, parse);
}

/** A value made from text that YAML may have taken for a number, as in `tls-min-version: 1.2`. */
export function parsedScalar<T>(says: string, parse: (text: string) => Parsed<T>): ValueType<T> {
  return mapped({ schema: z.union([z.string(), z.number()]), says }, says, (value) => parse(String(value)));
}

/** A value made from one that has been checked already. */
export function mapped<A, B>(type: ValueType<A>, says: string, parse: (value: A) => Parsed<B>): ValueType<B> {
  const schema = type.schema.transform((value, context): B => {
    const result = parse(value);
    if (!('problem' in result)) return result.value;
    context.issues.push({ code: 'custom', message: result.problem, input: value });
    return z.NEVER;
  });
  return { schema, says };
}

/** A list, or one value that stands for a list of one. */
export function listOf<T>(item: ValueType<T>): ValueType<T[]> {
  const schema = z.preprocess(
    (value): unknown[] => (Array.isArray(value) ? value : [value]),
    z.array(item.schema).max(MAX_LIST_ITEMS),
  );
  return { schema, says: `${item.says}, or a list of such` };
}

// The key that was meant

/** The name of `names` that is nearest to `name`, if it is near enough to be a slip. */
export function nearest(name: string, names: Iterable<string>): string | undefined {
  const limit = Math.max(1, Math.floor(name.length / 3));
  let best: string | undefined;
  let bestDistance = limit + 1;
  for (const candidate of names) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** Insertions, deletions, replacements and swaps of neighbours ("optimal string alignment"). */
export function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let cost = Math.min(at(last, j) + 1, at(row, j - 1) + 1, at(last, j - 1) + (same ? 0 : 1));
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) cost = Math.min(cost, at(beforeLast, j - 2) + 1);
      row.push(cost);
    }
    [beforeLast, last] = [last, row];
  }
  return at(last, b.length);
}

// The tree as a list: for the reference page and for comparisons

export interface KeyPlace {
  /** `tcp-port`, `node.name`; the same name in several scopes is one place. */
  name: string;
  scopes: string[];
  key: Key<unknown>;
}

/** Every key once, in the order of the tree, with all scopes in which it may stand. */
export function keyPlaces(keys: Keys, scope = GLOBAL_SCOPE, prefix = ''): KeyPlace[] {
  const places: KeyPlace[] = [];
  const add = (place: KeyPlace) => {
    const known = places.find((other) => other.name === place.name && other.key === place.key);
    if (known) known.scopes.push(...place.scopes);
    else places.push(place);
  };
  for (const [name, entry] of Object.entries(keys)) {
    if (entry.kind === 'key') add({ name: prefix + name, scopes: [scope], key: entry });
    else if (entry.kind === 'section') keyPlaces(entry.keys, scope, `${prefix}${name}.`).forEach(add);
    else keyPlaces(entry.keys, entry.scope).forEach(add);
  }
  return places;
}

/** The reference as Markdown: one table per set of scopes. */
export function referenceMarkdown(keys: Keys, title: string, introduction: string): string {
  const byScopes = new Map<string, KeyPlace[]>();
  for (const place of keyPlaces(keys)) {
    const scopes = place.scopes.join(', ');
    byScopes.set(scopes, [...(byScopes.get(scopes) ?? []), place]);
  }
  const lines = [`# ${title}`, '', introduction.trim(), ''];
  for (const [name, entry] of Object.entries(keys)) {
    if (entry.kind === 'named') lines.push(`- \`${name}\`: ${entry.about}`);
  }
  for (const [scopes, places] of byScopes) {
    lines.push(
      '',
      `## Scope: ${scopes}`,
      '',
      '| Key | Default | Unit | Reload | Meaning |',
      '|---|---|---|---|---|',
    );
    for (const { name, key } of places) {
      const about = `${key.about} Takes ${key.type.says}. Example: \`${key.example}\``;
      const cells = [
        `\`${name}\``,
        defaultText(key),
        key.unit,
        key.reloads ? 'yes' : 'at the next start',
        about,
      ];
      lines.push(`| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`);
    }
  }
  return `${lines.join('\n')}\n`;
}

function defaultText({ defaultText, default: value }: Key<unknown>): string {
  if (defaultText !== undefined) return defaultText;
  if (value === '' || (Array.isArray(value) && value.length === 0)) return 'none';
  return `\`${Array.isArray(value) ? value.join(', ') : String(value)}\``;
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
    if (!node) return this.#problem(this.line(path), `${name} has no value; it must be ${key.type.says}`);
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
      if (issue.code === 'custom') this.#problem(line, `${name} ${shown} ${issue.message}`);
      else this.#problem(line, `${name} must be ${key.type.says}, not ${shown}`);
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
          this.#problem(this.#lineOf(node), `${name} must be a list of plain values`);
          return undefined;
        }
        items.push({ value: item.value, line: this.#lineOf(item) });
      }
      return { value: items.map(({ value }) => value), items };
    }
    this.#problem(
      this.#lineOf(node),
      `${name}: ${isAlias(node) ? 'aliases are not allowed' : 'a map cannot stand here'}`,
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

  #problem(line: number, message: string): void {
    this.problems.push({ line, message });
  }
}

function issueText(error: z.ZodError, type: ValueType<unknown>): string {
  const issue = error.issues[0];
  return issue?.code === 'custom' ? issue.message : `must be ${type.says}`;
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

function at(row: readonly number[], index: number): number {
  return row[index] ?? Infinity;
}

/** C0, DEL, C1, and the two line separators of Unicode. */
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/;
const MAX_SHOWN = 80;
