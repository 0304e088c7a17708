import { parseArgs, type ParseArgsConfig } from 'node:util';

/** @throws one sentence for people */
export function countOf(option: string, text: string, max: number): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1 && count <= max) return count;
  throw new Error(`--${option} is a whole number from 1 to ${max}`);
}

/** @throws one sentence for people */
export function oneOf<T extends string>(option: string, text: string, allowed: readonly T[]): T {
  const found = allowed.find((one) => one === text);
  if (found === undefined) throw new Error(`--${option}: ${text} is none of ${allowed.join(', ')}`);
  return found;
}

/** Options that all take a value. @param defaults the value of each that is not given */
export function optionsOf<K extends string>(
  argv: readonly string[],
  defaults: Readonly<Record<K, string>>,
): Record<K, string> {
  const options: ParseArgsConfig['options'] = Object.fromEntries(
    Object.keys(defaults).map((name) => [name, { type: 'string' as const }]),
  );
  const { values } = parseArgs({ args: [...argv], options });
  const given = Object.entries(values).filter(([, value]) => typeof value === 'string');
  return { ...defaults, ...Object.fromEntries(given) };
}

/** A bench as a program: its exit code, and an end whatever happens. The laboratory goes with the process. */
export function runBench(main: (argv: readonly string[]) => Promise<void>, limitMinutes: number): void {
  const late = setTimeout(() => {
    say(`bench: it did not end within ${limitMinutes} minutes`);
    process.exit(1);
  }, limitMinutes * 60_000);
  late.unref();
  main(process.argv.slice(2)).then(
    () => process.exit(0),
    (error: unknown) => {
      say(`bench: ${error instanceof Error ? error.message : String(error)}`);
      process.exit(1);
    },
  );
}

export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}
