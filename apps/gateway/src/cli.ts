import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { faultText, Supervision } from '@sallyport/chassis';
import { sallyportProgram } from './cli/program.ts';

/** Runs one command and sets the exit code: 0 done, 1 not done. Called by bin/sallyport. */
export async function runSallyport(args: readonly string[]): Promise<void> {
  // A reader that has seen enough (`| head`) is no error.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
  const supervision = Supervision.take(process.env, process.pid);
  const program = sallyportProgram({
    version: versionOf(new URL('package.json', ROOT)),
    socketVariable: process.env.SALLYPORT_SOCKET,
    input: process.stdin,
    prompts: process.stderr,
    out: (text) => process.stdout.write(text),
    now: Date.now,
    interrupted: () =>
      new Promise((resolve) => {
        for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
      }),
    runGateway: async (options) => {
      const [{ runGateway }, { startGateway }] = await Promise.all([
        import('./cli/run-gateway.ts'),
        import('./main.ts'),
      ]);
      const print = (text: string) => process.stdout.write(text);
      await runGateway(options, {
        ...{ start: startGateway, threads: process.env.UV_THREADPOOL_SIZE, supervision, print },
      });
    },
    runRole: async (role, options) => {
      const { runRole } = await import('./cli/run-role.ts');
      await runRole(role, options, { threads: process.env.UV_THREADPOOL_SIZE, supervision });
    },
    supervise: async (role, args) => {
      const { supervise } = await import('./cli/supervise.ts');
      const code = await supervise({
        ...{ role, args, supervisor: fileURLToPath(SUPERVISOR) },
        program: [process.execPath, ...process.execArgv, fileURLToPath(BIN)],
        say: (line) => process.stderr.write(`${line}\n`),
      });
      if (code === undefined) await runSallyport([role, ...args]);
      else process.exitCode = code;
    },
  });
  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (fault) {
    process.stderr.write(`${faultText(fault)}\n`);
    process.exitCode = 1;
  }
}

function versionOf(packageFile: URL): string {
  const found: unknown = JSON.parse(readFileSync(packageFile, 'utf8'));
  return typeof found === 'object' && found !== null && 'version' in found ? String(found.version) : '';
}

const ROOT = new URL('../../../', import.meta.url);
const BIN = new URL('bin/sallyport', ROOT);
const SUPERVISOR = new URL('native/target/release/sallyport-supervisor', ROOT);
