import { readFileSync } from 'node:fs';
import { faultText } from '@sallyport/chassis';
import { sallyportProgram } from './cli/program.ts';

/** Runs one command and sets the exit code: 0 done, 1 not done. Called by bin/sallyport. */
export async function runSallyport(args: readonly string[]): Promise<void> {
  // A reader that has seen enough (`| head`) is no error.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
  const program = sallyportProgram({
    version: versionOf(new URL('../../../package.json', import.meta.url)),
    socketVariable: process.env.SALLYPORT_SOCKET,
    input: process.stdin,
    prompts: process.stderr,
    out: (text) => process.stdout.write(text),
    now: Date.now,
    runGateway: async (options) => {
      const [{ runGateway }, { startGateway }] = await Promise.all([
        import('./cli/run-gateway.ts'),
        import('./main.ts'),
      ]);
      const print = (text: string) => process.stdout.write(text);
      await runGateway(options, { start: startGateway, threads: process.env.UV_THREADPOOL_SIZE, print });
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
