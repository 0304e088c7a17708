import type { Entry } from './journal-lines.ts';
export interface Journal {
  readonly grown: boolean;
  readonly suspect: boolean;
  append(lines: readonly string[], sync: boolean): Promise<void>;
  rewrite(lines: Iterable<string>): Promise<void>;
  replay(take: (entry: Entry) => void): Promise<void>;
  close(): Promise<void>;
}
