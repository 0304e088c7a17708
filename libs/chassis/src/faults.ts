import type { Log } from './log.ts';

/**
 * The process cannot start or a command cannot be done: its message is one sentence that says what to do. It is shown
 * as it is, without a stack, and the process exits with 1.
 */
export class StartError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'StartError';
  }
}

/** What people read of a fault: the sentence of a StartError, otherwise the stack, which is for us. */
export function faultText(fault: unknown): string {
  if (fault instanceof StartError) return fault.message;
  return fault instanceof Error ? (fault.stack ?? fault.message) : String(fault);
}

/**
 * The last resort: what nobody caught is logged, and the process ends after `cleanUp`, because its state is unknown.
 * A supervisor starts it again.
 */
export function endOnUncaughtFaults(log: Log, cleanUp: () => Promise<void> | void): void {
  let ending = false;
  const end = (origin: string) => (fault: unknown) => {
    log.error({ err: errorFields(fault), origin }, 'uncaught fault, the process ends');
    if (ending) process.exit(FAULT_EXIT);
    ending = true;
    setTimeout(() => process.exit(FAULT_EXIT), CLEAN_UP_MS).unref();
    void Promise.resolve()
      .then(cleanUp)
      .catch(() => undefined)
      .then(() => process.exit(FAULT_EXIT));
  };
  process.on('uncaughtException', end('exception'));
  process.on('unhandledRejection', end('rejection'));
}

/** An error as fields of a log line. */
export function errorFields(fault: unknown): { type: string; message: string; stack?: string } {
  if (!(fault instanceof Error)) return { type: typeof fault, message: String(fault) };
  return {
    type: fault.name,
    message: fault.message,
    ...(fault.stack !== undefined && { stack: fault.stack }),
  };
}

/** Also what a StartError ends with. */
export const FAULT_EXIT = 1;
const CLEAN_UP_MS = 5_000;
