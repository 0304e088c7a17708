import { errorFields } from './faults.ts';
import type { Log } from './log.ts';

/** Nest's LoggerService over our Log. Nest's news about its own modules and routes is nobody's: debug. */
export class NestLog {
  readonly #log: Log;

  constructor(log: Log) {
    this.#log = log;
  }

  log(message: unknown, ...context: unknown[]): void {
    this.#log.debug(fieldsOf(context), textOf(message));
  }

  debug(message: unknown, ...context: unknown[]): void {
    this.#log.debug(fieldsOf(context), textOf(message));
  }

  verbose(message: unknown, ...context: unknown[]): void {
    this.#log.trace(fieldsOf(context), textOf(message));
  }

  warn(message: unknown, ...context: unknown[]): void {
    this.#log.warn(fieldsOf(context), textOf(message));
  }

  error(message: unknown, ...context: unknown[]): void {
    const fault = message instanceof Error ? { err: errorFields(message) } : {};
    this.#log.error({ ...fault, ...fieldsOf(context) }, textOf(message));
  }

  fatal(message: unknown, ...context: unknown[]): void {
    this.error(message, ...context);
  }
}

/** Nest passes the context last, and a stack before it. */
function fieldsOf(context: unknown[]): object {
  const texts = context.filter((one) => typeof one === 'string');
  const stack = texts.find((text) => text.includes('\n'));
  return { from: texts.at(-1) ?? 'nest', ...(stack !== undefined && { stack }) };
}

function textOf(message: unknown): string {
  if (message instanceof Error) return message.message;
  return typeof message === 'string' ? message : JSON.stringify(message);
}
