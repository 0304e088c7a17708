import { pino } from 'pino';
import { LogLines } from './log-lines.ts';

/** Message is constant text, values are fields. Never a token, password or key; addresses and names not above debug. */
export interface Log {
  error(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  info(fields: object, message: string): void;
  debug(fields: object, message: string): void;
  trace(fields: object, message: string): void;
  child(fields: object): Log;
  level: string;
}

export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'silent';

/** JSON lines on stderr; readable lines when stderr is a terminal. */
export function createLog(options: { name: string; level: LogLevel }): Log {
  // A look at process.stderr makes a pipe or socket one that does not block.
  const destination = process.stderr.isTTY ? readableLines() : errorLines();
  return pino(
    {
      name: options.name,
      level: options.level,
      base: { name: options.name },
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    destination,
  );
}

/** One for all logs of the process: they share the descriptor. */
function errorLines(): LogLines {
  return (lines ??= new LogLines(process.stderr.fd, droppedLine));
}

let lines: LogLines | undefined;

function droppedLine(count: number): string {
  const time = new Date().toISOString();
  return `${JSON.stringify({ level: 40, time, name: 'log', lines: count, msg: 'log lines were dropped: the reader was too slow' })}\n`;
}

function readableLines() {
  const levels: Record<number, string> = { 50: 'ERROR', 40: 'WARN ', 30: 'INFO ', 20: 'DEBUG', 10: 'TRACE' };
  return {
    write(line: string) {
      const { level, time, name, msg, ...fields } = JSON.parse(line) as Record<string, unknown>;
      const text = Object.entries(fields)
        .map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
        .join(' ');
      const clock = String(time).slice(11, 23);
      process.stderr.write(
        `${clock} ${levels[Number(level)] ?? String(level)} ${String(name)}: ${String(msg)}${text ? `  ${text}` : ''}\n`,
      );
    },
  };
}
