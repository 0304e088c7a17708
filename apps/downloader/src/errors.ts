/** A file that must not be served: the configuration that names it is refused. `message` is `FILE:LINE: reason`. */
export class CatalogError extends Error {
  readonly file: string;
  readonly line: number;
  readonly reason: string;

  constructor(file: string, line: number, reason: string, options?: ErrorOptions) {
    super(`${file}:${line}: ${reason}`, options);
    this.name = 'CatalogError';
    this.file = file;
    this.line = line;
    this.reason = reason;
  }
}

/** e.g. `ENOENT`. */
export function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'error';
}
