/**
 * The few glob forms that our lint tables use: `*` inside one part of a path, `**` over several, `{a,b}`.
 * @param {string} path with `/`, relative
 */
export function matchesGlob(path, glob) {
  const source = glob
    .replace(/[.+^$()|[\]\\]/g, '\\$&')
    .replace(/\{([^}]*)\}/g, (_, alternatives) => `(?:${alternatives.replaceAll(',', '|')})`)
    .replace(/\*\*\/|\*\*|\*/g, (star) => ({ '**/': '(?:.*/)?', '**': '.*', '*': '[^/]*' })[star]);
  return new RegExp(`^${source}$`).test(path);
}
