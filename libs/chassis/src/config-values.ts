/** The kinds of values that a key of the configuration takes. The only file on `zod`. */
import { z } from 'zod';

/** A value that one key takes. */
export interface ValueType<T> {
  readonly schema: z.ZodType<T>;
  /** Completes "KEY must be …". */
  readonly says: string;
}

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

/** What is wrong with a value, as "KEY VALUE …" goes on. */
export function issueText(error: z.ZodError, type: ValueType<unknown>): string {
  const issue = error.issues[0];
  return issue?.code === 'custom' ? issue.message : `must be ${type.says}`;
}

export const MAX_LIST_ITEMS = 4096;

/** C0, DEL, C1, and the two line separators of Unicode. */
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/;
