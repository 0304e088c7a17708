import { execFile } from 'node:child_process';

/** A program could not be run, or said no. The message is one sentence with its last words. */
export class CommandFailed extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'CommandFailed';
  }
}

/**
 * Runs a program without a shell, in the C locale, for at most `COMMAND_SECONDS`.
 * @param input for its standard input.
 * @returns its standard output.
 */
export function run(program: string, args: readonly string[], input = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      program,
      [...args],
      {
        timeout: COMMAND_SECONDS * 1000,
        maxBuffer: MAX_OUTPUT_BYTES,
        env: { PATH: SEARCH_PATH, LC_ALL: 'C' },
      },
      (error, stdout, stderr) => {
        if (!error) {
          resolve(stdout);
          return;
        }
        const missing = error.code === 'ENOENT';
        const said = stderr.trim().split('\n').at(-1) ?? '';
        const text = missing
          ? `The program ${program} is missing: install the package ${PACKAGES[program] ?? program}.`
          : `${program} ${args.join(' ')} failed: ${said || error.message}`;
        reject(new CommandFailed(text, { cause: error }));
      },
    );
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
}

const SEARCH_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const COMMAND_SECONDS = 20;
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;
/** Debian's names. */
const PACKAGES: Record<string, string> = { ip: 'iproute2', nft: 'nftables' };
