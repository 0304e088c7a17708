/** Routing daemons as docs/return-path.md configures them. */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab, Spawned } from './lab.ts';
import { eventually, PATIENCE_MS, ROOT, run } from './run.ts';

/** An example of the page, by what stands behind its fence. @throws when there is none */
export function documented(fence: 'bird node' | 'bird router' | 'frr node'): string {
  const page = readFileSync(`${ROOT}docs/return-path.md`, 'utf8');
  const found = new RegExp(`\`\`\`${fence}\n([^]*?)\`\`\``).exec(page)?.[1];
  if (found === undefined) throw new Error(`docs/return-path.md has no example ${fence}`);
  return found;
}

/** Resolves when it answers `birdc -s SOCKET`. @returns the path of its socket. */
export async function startBird(lab: Lab, namespace: string, name: string, config: string): Promise<string> {
  const [file, socket] = [join(lab.folder, `${name}.conf`), join(lab.folder, `${name}.ctl`)];
  writeFileSync(file, config);
  const daemon = lab.spawn(namespace, ['bird', '-f', '-c', file, '-s', socket]);
  await whileRunning([daemon], `bird ${name}`, async () => {
    return (await run(['birdc', '-s', socket, 'show', 'status'], { anyCode: true })).code === 0;
  });
  return socket;
}

/** zebra, bfdd and bgpd. Resolves when bgpd has its configuration. */
export async function startFrr(lab: Lab, namespace: string, name: string, config: string): Promise<void> {
  const folder = join(lab.folder, name);
  mkdirSync(folder);
  const file = join(folder, 'frr.conf');
  writeFileSync(file, config);
  // It runs as its own user, who must get there.
  chmodSync(lab.folder, 0o711);
  await run(['chown', '-R', 'frr:frr', folder]);
  const zserv = join(folder, 'zserv.api');
  const start = (daemon: string, ...more: string[]) =>
    lab.spawn(namespace, [
      ...[`/usr/lib/frr/${daemon}`, '-z', zserv, '-i', join(folder, `${daemon}.pid`)],
      ...['--vty_socket', folder, '-P', '0', '--log', 'stdout', ...more],
    ]);
  const zebra = start('zebra');
  const answers = async (daemon: string, command: string, wanted: RegExp) => {
    const argv = ['vtysh', '--vty_socket', folder, '-d', daemon, '-c', command];
    const { code, stdout } = await run(argv, { anyCode: true });
    return code === 0 && wanted.test(stdout);
  };
  await whileRunning([zebra], 'zebra', () => answers('zebra', 'show version', /FRRouting/));
  const bfdd = start('bfdd', '--bfdctl', join(folder, 'bfdd.sock'));
  const bgpd = start('bgpd', '-f', file);
  await whileRunning([zebra, bfdd, bgpd], 'bgpd', () =>
    answers('bgpd', 'show running-config', /redistribute kernel/),
  );
}

async function whileRunning(
  daemons: readonly Spawned[],
  what: string,
  ready: () => Promise<boolean>,
): Promise<void> {
  const ended = daemons.map((daemon) =>
    daemon.exited.then((code) => {
      throw new Error(`${what} ended with ${code}: ${daemon.output()}`);
    }),
  );
  for (const end of ended) end.catch(() => undefined);
  await Promise.race([...ended, eventually(what, ready, PATIENCE_MS)]);
}
