import { pino } from 'pino';

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
  const destination = process.stderr.isTTY ? readableLines() : pino.destination({ dest: 2, sync: true });
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
