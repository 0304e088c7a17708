/** The tree of keys that a configuration may hold, and the reference page made from it. */
import type { ValueType } from './config-values.ts';

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

export const GLOBAL_SCOPE = 'global';

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
