import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

/** A script of ours: its Lua source with everything that it uses. */
export interface Script {
  name: string;
  source: string;
  /** SHA-1, by which Redis knows it. */
  sha: string;
}

/**
 * Reads `lua/NAME.lua`, with the parts that it stands on before it. They lie beside `src` and `dist`.
 * @param parts `records` and `addresses` for those that touch sessions.
 */
export function loadScript(name: string, parts: readonly string[] = []): Script {
  const texts = ['header', ...parts, name].map(readLua);
  const source = [`local SCRIPT = '${name}'`, ...texts].join('\n');
  return { name, source, sha: createHash('sha1').update(source).digest('hex') };
}

function readLua(name: string): string {
  return readFileSync(new URL(`../lua/${name}.lua`, import.meta.url), 'utf8');
}
