import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { poolsOf, type Settings } from '@sallyport/cluster';
import { preflight } from '@sallyport/engine';

/**
 * What would keep a gateway with these settings from starting on this machine, before it makes anything: sentences.
 * @param portIsHeld the port is open already, by what started this process.
 */
export async function placeProblems(
  settings: Settings,
  { portIsHeld }: { portIsHeld: boolean },
): Promise<string[]> {
  const { device } = settings;
  const pools = Object.values(poolsOf(settings)).flat();
  const found = await preflight({ device, pools });
  const notRoot = found.find(({ kind }) => kind === 'not-root');
  if (notRoot) return [notRoot.text]; // the others follow from it
  const problems = found.map(({ text }) => text);
  if (existsSync(`/sys/class/net/${device}`)) {
    problems.push(
      `The network interface ${device} exists already: stop the other gateway, or choose another name with the key device.`,
    );
  }
  if (!portIsHeld && (await isPortTaken(settings))) {
    problems.push(
      `TCP port ${settings.tcpPort} is taken by another program; stop it or choose another tcp-port.`,
    );
  }
  return problems;
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
