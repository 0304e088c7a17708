import { execFile } from 'node:child_process';

/** A program could not be run, or said no. The message is one sentence with its last words. */
export class CommandFailed extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'CommandFailed';
  }
}

/** @returns standard output of `attempt`. @throws CommandFailed also when the program said no. */
export async function run(program: string, args: readonly string[], input = ''): Promise<string> {
  const { code, stdout, stderr } = await attempt(program, args, input);
  if (code === 0) return stdout;
  const said = stderr.trim().split('\n').at(-1) ?? '';
  throw new CommandFailed(`${program} ${args.join(' ')} failed: ${said || `exit code ${code}`}`);
}

/**
 * Runs a program without a shell, in the C locale, for at most `COMMAND_SECONDS`, to its own end.
 * @param input for its standard input.
 * @throws CommandFailed if it is missing or did not end by itself.
 */
export function attempt(program: string, args: readonly string[], input = ''): Promise<Attempt> {
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
        const code = error ? error.code : 0;
        if (typeof code === 'number') {
          resolve({ code, stdout, stderr });
          return;
        }
        const text =
          code === 'ENOENT'
            ? `The program ${program} is missing: install the package ${PACKAGES[program] ?? program}.`
            : `${program} ${args.join(' ')} failed: ${error?.message ?? 'no exit code'}`;
        reject(new CommandFailed(text, { cause: error }));
      },
    );
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
}

export interface Attempt {
  code: number;
  stdout: string;
  stderr: string;
}

const SEARCH_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const COMMAND_SECONDS = 20;
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;
/** Debian's names. */
const PACKAGES: Record<string, string> = { ip: 'iproute2', nft: 'nftables' };
