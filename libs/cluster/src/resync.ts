/*
 * The whole session table, written to both topics after facts were lost:
 *
 *   1. `gap` to every partition of the facts: from here on nothing is certain; where facts were given up, also to the
 *      state topic under its own key, until 4
 *   2. every live session: its record to the state topic, and as `snapshot` to the facts
 *   3. tombstones for what the state topic holds beside them
 *   4. `resynced` to every partition: what was not named since the gap is gone
 *
 * The stream is not read meanwhile, so what follows is newer, or older news that consumers ignore by its number.
 */
import type { CloudEvents } from './cloud-events.ts';
import type { FactSink, SinkMessage } from './event-sink.ts';
import { SinkUnavailable, STATE_GAP_KEY } from './event-sink.ts';
import type { StreamGap } from './event-stream.ts';
import { sizeOf, toMessage, tombstone } from './letters.ts';
import type { Micros, Session } from './session.ts';

export interface ResyncOptions {
  sink: FactSink;
  events: CloudEvents;
  /** Undefined = nothing is known to be lost. */
  gap: StreamGap | undefined;
  /** All that are not closed. */
  sessions: readonly Session[];
  now: Micros;
  /** Called between transactions; false = somebody else is the writer now. */
  between: () => Promise<boolean>;
}

/** @returns the number of sessions. */
export async function resync(options: ResyncOptions): Promise<number> {
  const { sink, events, gap, sessions, now } = options;
  const index = await sink.stateIndex();
  const stale = new Set(index.marks.keys());
  for (const session of sessions) stale.delete(session.id);
  // Until the tombstones are there the topic of records holds what may have ended: who reads it must know.
  const open = { ...toMessage('state', events.gap(gap, now, 0)), key: STATE_GAP_KEY };
  const isOpen = index.gap || gap !== undefined;
  await sink.write([
    ...everywhere(sink, (partition) => events.gap(gap, now, partition)),
    ...(isOpen ? [open] : []),
  ]);
  await writeInParts(options, tableMessages(events, sessions, stale));
  await sink.write([
    ...everywhere(sink, (partition) => events.resynced(sessions.length, now, partition)),
    ...(isOpen ? [tombstone(STATE_GAP_KEY)] : []),
  ]);
  return sessions.length;
}

function* tableMessages(events: CloudEvents, sessions: readonly Session[], stale: ReadonlySet<string>) {
  for (const session of sessions) {
    yield [toMessage('facts', events.snapshot(session)), toMessage('state', events.state(session))];
  }
  for (const id of stale) yield [tombstone(id)];
}

async function writeInParts(options: ResyncOptions, groups: Iterable<SinkMessage[]>): Promise<void> {
  const { sink, between } = options;
  let part: SinkMessage[] = [];
  let bytes = 0;
  const write = async () => {
    if (part.length === 0) return;
    await sink.write(part);
    part = [];
    bytes = 0;
    if (!(await between())) throw new SinkUnavailable('the lease of the outbox is lost');
  };
  for (const group of groups) {
    const more = Math.max(...group.map(sizeOf));
    if (bytes + more > sink.batchBytes) await write();
    part.push(...group);
    bytes += more;
  }
  await write();
}

function everywhere(
  sink: FactSink,
  make: (partition: number) => ReturnType<CloudEvents['gap']>,
): SinkMessage[] {
  return Array.from({ length: sink.partitions }, (_, partition) => ({
    ...toMessage('facts', make(partition)),
    partition,
  }));
}
