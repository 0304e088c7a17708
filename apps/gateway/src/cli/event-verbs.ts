/** `sallyport events`: what Kafka has of a cluster. Asks no gateway; needs the section `kafka` of its configuration only. */
import { createLog, StartError } from '@sallyport/chassis';
import {
  readKafkaSettings,
  replaySessions,
  SinkRefused,
  SinkUnavailable,
  NewerVersion,
  tailEvents,
  type Kafka,
  type ReplayedTable,
  type Session,
  type TailedEvent,
} from '@sallyport/cluster';
import { sessionMessage, type AdminEvent } from '../admin/wire.ts';
import * as form from './occtl-form.ts';
import type { Command, Verbs } from './verbs.ts';

export function addEvents(program: Command, verbs: Verbs): void {
  const events = program.command('events').description('what Kafka has of a cluster (docs/events.md)');
  const config = ['--config <file>', 'a configuration with a section kafka'] as const;
  events
    .command('tail')
    .description('each event as it comes, until interrupted; JSON: one CloudEvent a line')
    .requiredOption(...config)
    .addOption(
      events.createOption('--from <place>', 'where to begin').choices(['beginning', 'end']).default('end'),
    )
    .action((options: { config: string; from: 'beginning' | 'end' }) => tail(verbs, options));
  events
    .command('replay')
    .description('the table of live sessions, from Kafka alone')
    .requiredOption(...config)
    .addOption(
      events
        .createOption('--from <topic>', 'state: the newest records; facts: all that happened')
        .choices(['state', 'facts'])
        .default('state'),
    )
    .action((options: { config: string; from: 'state' | 'facts' }) => replay(verbs, options));
}

async function tail(verbs: Verbs, { config, from }: { config: string; from: 'beginning' | 'end' }) {
  const kafka = await kafkaOf(config);
  const show = (event: TailedEvent) => verbs.printLine(withoutSecrets(event), eventText(event));
  const warn = (fault: Error) => verbs.warn(`${fault.message} Events go on when it is back.`);
  const stop = await asked(() => tailEvents(kafka, from, show, warn));
  await verbs.interrupted;
  await stop();
}

async function replay(verbs: Verbs, { config, from }: { config: string; from: 'state' | 'facts' }) {
  const kafka = await kafkaOf(config);
  const table = await asked(() => replaySessions(kafka, from));
  const sessions = table.sessions.toSorted((a, b) => (a.id < b.id ? -1 : 1));
  verbs.print(sessions.map(withoutSecrets), sessionsText(sessions, verbs.now));
  const doubts = doubtsOf(table);
  if (doubts.length > 0) throw new StartError(`This may not be the whole table: ${doubts.join('; ')}.`);
}

async function kafkaOf(config: string): Promise<Kafka> {
  const read = await readKafkaSettings(config);
  if ('errors' in read) throw new StartError(read.errors.join('\n'));
  const { Kafka } = await import('@sallyport/cluster/kafka');
  return new Kafka(read.kafka, createLog({ name: 'events', level: 'silent' }));
}

/** Our own faults as the one line that they are. */
async function asked<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof SinkUnavailable || error instanceof SinkRefused || error instanceof NewerVersion)
      throw new StartError(error.message);
    throw error;
  }
}

function doubtsOf({ incomplete, malformed, unfit }: ReplayedTable): string[] {
  const doubts: string[] = [];
  if (incomplete) doubts.push('it is just being written anew, so ask again');
  if (malformed > 0) doubts.push(`${malformed} records are damaged or not ours`);
  if (unfit > 0) doubts.push(`${unfit} facts follow on some that Kafka has not kept`);
  return doubts;
}

function sessionsText(sessions: readonly Session[], now: number): string {
  if (sessions.length === 0) return 'There are no sessions.';
  return printable(form.sessionsText(sessions.map(sessionMessage), now));
}

/** JSON of a record or an event. What finds a session by its cookie, and its keys, are nobody's business here. */
function withoutSecrets(value: object): unknown {
  return JSON.parse(
    JSON.stringify(value, (key, inner: unknown) => {
      if (SECRET.has(key)) return undefined;
      return typeof inner === 'bigint' ? String(inner) : inner;
    }),
  );
}

function eventText({ type, time, data }: TailedEvent): string {
  const text = (...path: string[]) => {
    const found = path.reduce<unknown>(
      (at, name) => (typeof at === 'object' && at !== null ? Reflect.get(at, name) : undefined),
      data,
    );
    return typeof found === 'string' || typeof found === 'number' ? String(found) : '';
  };
  const counted = (name: string) => (/^\d{1,20}$/.test(text(name)) ? text(name) : '0');
  const sessionId = text('sessionId') || text('id');
  const event: AdminEvent = {
    at: String(BigInt(Date.parse(time) || 0) * 1000n),
    type: type.replace(/^sallyport\.(.*)\.v\d+$/, '$1'),
    ...{ sessionId, user: text('user'), profile: text('profile'), reason: text('reason') },
    address: text('address') || text('client', 'address'),
    node: text('node') || text('lease', 'name'),
    detail: DETAILS.map((name) => text(name) && `${name}=${text(name)}`)
      .filter(Boolean)
      .join(' '),
    ...{ rxBytes: counted('rxBytes'), txBytes: counted('txBytes') },
  };
  return printable(form.eventText(event));
}

/** Clients say what they like of themselves: none of it may command a terminal. */
function printable(text: string): string {
  return text.replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g, '?');
}

const SECRET = new Set(['tokenHash', 'strapKeys']);
const DETAILS = ['verb', 'subject', 'revision', 'detail', 'count', 'sessions'];
