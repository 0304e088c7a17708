import { existsSync, fstatSync } from 'node:fs';
import { createServer } from 'node:net';
import { poolsOf, type Settings } from '@sallyport/cluster';
import { preflight } from '@sallyport/engine';

/** What would keep a gateway with these settings from starting on this machine, before it makes anything: sentences. */
export async function placeProblems(settings: Settings): Promise<string[]> {
  const { device, returnPath } = settings;
  const pools = Object.values(poolsOf(settings)).flat();
  const found = await preflight({ device, pools, returnPath });
  const notRoot = found.find(({ kind }) => kind === 'not-root');
  if (notRoot) return [notRoot.text]; // the others follow from it
  const problems = found.map(({ text }) => text);
  if (existsSync(`/sys/class/net/${device}`)) {
    problems.push(
      `The network interface ${device} exists already: stop the other gateway, or choose another name with the key device.`,
    );
  }
  if (!holdsSockets() && (await isPortTaken(settings))) {
    problems.push(
      `TCP port ${settings.tcpPort} is taken by another program; stop it or choose another tcp-port.`,
    );
  }
  return problems;
}

/** Sockets from above begin at descriptor 3 (sd_listen_fds(3)): then the port is taken, by ourselves. */
function holdsSockets(): boolean {
  try {
    return fstatSync(FIRST_INHERITED).isSocket();
  } catch {
    return false;
  }
}

function isPortTaken({ listenHost, tcpPort }: Settings): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'EADDRINUSE'));
    probe.listen({ host: listenHost === '' ? undefined : listenHost, port: tcpPort }, () =>
      probe.close(() => resolve(false)),
    );
  });
}

const FIRST_INHERITED = 3;
