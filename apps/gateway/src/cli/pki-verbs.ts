/** `sallyport pki`: the small CA of a cluster, in a folder of files (docs/pki.md). */
import { StartError } from '@sallyport/chassis';
import {
  CA_DAYS,
  CERTIFICATE_DAYS,
  initAuthority,
  issueCertificate,
  listCertificates,
  PEER_ROLES,
  PkiError,
  renewCertificates,
  type IssuedCertificate,
  type PeerRole,
} from '@sallyport/cluster';
import * as form from './occtl-form.ts';
import type { Command, Verbs } from './verbs.ts';

export function addPki(program: Command, verbs: Verbs): void {
  const pki = program.command('pki').description('certificates of the services of a cluster');
  const folder = ['--dir <dir>', 'folder of the CA', './pki'] as const;
  pki
    .command('init')
    .description('make the CA')
    .option(...folder)
    .option('--cluster <name>', 'for people who look at it', 'sallyport')
    .option('--days <n>', 'how long it lasts', daysOf, CA_DAYS)
    .action(({ dir, cluster, days }: { dir: string; cluster: string; days: number }) =>
      said(verbs, [() => initAuthority(dir, { cluster, days })], 'made'),
    );
  pki
    .command('issue')
    .description('make key and certificate of one process')
    .argument('<name>', 'of the process, e.g. n1 or auth-1')
    .requiredOption('--role <role...>', `what it may be: ${PEER_ROLES.join(', ')}`)
    .option('--host <host...>', 'names and addresses by which others reach it; roles are enough', [])
    .option('--days <n>', 'how long it lasts', daysOf, CERTIFICATE_DAYS)
    .option(...folder)
    .action((name: string, options: { role: string[]; host: string[]; days: number; dir: string }) => {
      const roles = options.role.flatMap((list) => list.split(',')).map(roleOf);
      const { host: hosts, days } = options;
      return said(verbs, [() => issueCertificate(options.dir, { name, roles, hosts, days })], 'issued');
    });
  pki
    .command('renew')
    .description('issue anew what has lived two thirds of its time; running services take it by themselves')
    .argument('[name]', 'only this one, whenever it ends')
    .option('--before <days>', 'what ends within this time', daysOf)
    .option(...folder)
    .action((name: string | undefined, { dir, before }: { dir: string; before?: number }) =>
      asked(async () => {
        const renewed = await renewCertificates(dir, {
          ...(name !== undefined && { only: name }),
          ...(before !== undefined && { beforeDays: before }),
        });
        show(verbs, renewed, renewed.length > 0 ? 'renewed' : 'nothing ends soon');
      }),
    );
  pki
    .command('show')
    .description('all certificates of the folder')
    .option(...folder)
    .action(({ dir }: { dir: string }) => asked(async () => show(verbs, await listCertificates(dir), '')));
}

function said(verbs: Verbs, [make]: [() => Promise<IssuedCertificate>], what: string): Promise<void> {
  return asked(async () => show(verbs, [await make()], what));
}

async function asked(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (error instanceof PkiError) throw new StartError(error.message, { cause: error });
    throw error;
  }
}

function show(verbs: Verbs, certificates: IssuedCertificate[], heading: string): void {
  const json = certificates.map(({ name, roles, hosts, notBefore, notAfter, serial, file }) => ({
    Name: name || 'CA',
    Roles: roles,
    Hosts: hosts,
    raw_not_before: Math.floor(notBefore.getTime() / 1000),
    raw_not_after: Math.floor(notAfter.getTime() / 1000),
    Serial: serial,
    File: file,
  }));
  const rows = certificates.map(({ name, roles, hosts, notAfter, file }) => [
    name || 'CA',
    roles.join(','),
    hosts.join(','),
    `${notAfter.toISOString().slice(0, 10)}${notAfter.getTime() < verbs.now ? ' (ended)' : ''}`,
    file,
  ]);
  const table = rows.length > 0 ? form.columns(['name', 'roles', 'hosts', 'until', 'file'], rows) : '';
  verbs.print(json, [heading, table].filter((text) => text !== '').join('\n'));
}

function roleOf(text: string): PeerRole {
  const role = PEER_ROLES.find((known) => known === text);
  if (!role) throw new StartError(`${text} is no role: there are ${PEER_ROLES.join(', ')}.`);
  return role;
}

function daysOf(text: string): number {
  const days = Number(text);
  if (Number.isInteger(days) && days >= 1 && days <= MAX_DAYS) return days;
  throw new StartError(`${text} is no number of days from 1 to ${MAX_DAYS}.`);
}

const MAX_DAYS = 36_500;
