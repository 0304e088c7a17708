import { resolve } from 'node:path';
import { mkdir } from 'node:fs/promises';
import { checkThreadPool, type Supervision } from '@sallyport/chassis';
import type { PeerRole } from '@sallyport/cluster';
import type { RoleOptions } from '../roles/role.ts';
import type { Running } from '../wiring.ts';
import type { RoleCommand } from './verbs.ts';
import { keepRunning } from './run-gateway.ts';

/** A role of a cluster: starts it and keeps it until a signal. Only that role's code is loaded. */
export async function runRole(
  role: PeerRole,
  { config, stateDir }: RoleCommand,
  { threads, supervision }: { threads: string | undefined; supervision: Supervision },
): Promise<void> {
  if (role === 'tunnel-node') checkThreadPool(threads);
  const folder = resolve(stateDir);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const options = { config: resolve(config), stateDir: folder, supervision };
  await keepRunning(() => start(role, options), supervision, `sallyport ${role}`);
}

async function start(role: PeerRole, options: Omit<RoleOptions, 'openStore'>): Promise<Running> {
  switch (role) {
    case 'portal':
      return (await import('../roles/portal.ts')).startPortal(options);
    case 'downloader':
      return (await import('../roles/downloader.ts')).startDownloader(options);
    case 'auth': {
      const [{ startAuth }, { openStore }] = await Promise.all([
        import('../roles/auth.ts'),
        import('../roles/store.ts'),
      ]);
      return startAuth({ ...options, openStore });
    }
    case 'tunnel-node': {
      const [{ startTunnelNode }, { openStore }] = await Promise.all([
        import('../roles/tunnel-node.ts'),
        import('../roles/store.ts'),
      ]);
      return startTunnelNode({ ...options, openStore });
    }
  }
}
