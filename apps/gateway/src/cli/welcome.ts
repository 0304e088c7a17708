import { dirname, resolve } from 'node:path';
import type { Settings } from '@sallyport/cluster';
import { certificatePin, DEMO_USER, reachableAddresses, type DemoUser } from '../first-run.ts';
import { SOCKETS } from './verbs.ts';

/** How another machine connects; the password only when it was made just now. */
export async function welcome(settings: Settings, demo: DemoUser | undefined): Promise<string> {
  const host = reachableAddresses(settings.device)[0] ?? '127.0.0.1';
  const shownHost = host.includes(':') ? `[${host}]` : host;
  const address = settings.tcpPort === 443 ? shownHost : `${shownHost}:${settings.tcpPort}`;
  // Each client gets the certificate of the key type that it prefers.
  const pins = await Promise.all(settings.tls.certFiles.map(certificatePin));
  const options = [
    ...pins.map((pin) => `--servercert ${pin}`),
    ...authgroupOf(settings),
    `--user ${demo?.name ?? 'NAME'}`,
  ];
  return [
    '',
    `Sallyport serves on https://${address}   configuration: ${settings.file}`,
    `Certificate ${pins.length > 1 ? 'pins' : 'pin'}:  ${pins.join('  ')}`,
    ...(demo ? [demoLine(demo)] : await demoHint(settings)),
    '',
    'From another machine:',
    `  sudo openconnect ${options.join(' ')} ${address}`,
    '',
    'On this machine the kernel drops packets that come back with a local source address, so a client here needs its own',
    'network namespace: npm run demo shows one. Stop with Ctrl-C; clients come back when the gateway is started again.',
    '',
  ].join('\n');
}

export function demoLine({ name, password }: DemoUser): string {
  return `Demo user:  ${name}   password (shown once):  ${password}`;
}

async function demoHint({ usersFile, file }: Settings): Promise<string[]> {
  const { readUsers } = await import('@sallyport/auth');
  const read = await readUsers(usersFile).catch(() => undefined);
  if (!read?.users.has(DEMO_USER)) return [];
  const config = SOCKETS.some((socket) => resolve(dirname(socket)) === dirname(file))
    ? ''
    : `--config ${file} `;
  return [`Demo user:  ${DEMO_USER}   a new password:  bin/sallyport user ${config}passwd ${DEMO_USER}`];
}

/** With several profiles openconnect asks which one, and takes the label for an answer. */
function authgroupOf({ profiles, defaultProfile }: Settings): string[] {
  if (Object.keys(profiles).length < 2) return [];
  const label = profiles[defaultProfile]?.label ?? defaultProfile;
  return [`--authgroup ${/^[\w.-]+$/.test(label) ? label : `'${label.replaceAll("'", `'\\''`)}'`}`];
}
