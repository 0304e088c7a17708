import type { CloudEvent } from './cloud-events.ts';
import type { SinkMessage, SinkTopic } from './event-sink.ts';
import type { StreamEntry } from './event-stream.ts';

/** One transaction in the making. */
export class Letters {
  readonly taken: StreamEntry[] = [];
  dead = 0;
  readonly #facts: SinkMessage[] = [];
  /** Of one session only the newest counts. */
  readonly #state = new Map<string, SinkMessage>();
  readonly #limit: number;
  #bytes: Record<SinkTopic, number> = { facts: 0, state: 0, dead: 0 };

  constructor(batchBytes: number) {
    this.#limit = batchBytes;
  }

  get messages(): SinkMessage[] {
    return [...this.#facts, ...this.#state.values()];
  }

  /** @returns false = it does not fit beside what is there. */
  take(entry: StreamEntry, messages: readonly SinkMessage[], dead: boolean): boolean {
    const bytes = { ...this.#bytes };
    for (const message of messages) bytes[message.topic] += sizeOf(message);
    if (this.taken.length > 0 && Object.values(bytes).some((sum) => sum > this.#limit)) return false;
    this.#bytes = bytes;
    this.taken.push(entry);
    if (dead) this.dead++;
    for (const message of messages) {
      if (message.topic === 'state' && message.key !== null) this.#state.set(message.key, message);
      else this.#facts.push(message);
    }
    return true;
  }
}

export function toMessage(topic: SinkTopic, event: CloudEvent): SinkMessage {
  return { topic, key: event.key === '' ? null : event.key, value: event.value, headers: event.headers };
}

export function tombstone(sessionId: string): SinkMessage {
  return { topic: 'state', key: sessionId, value: null, headers: {} };
}

/** Bytes, about: text here is nearly always ASCII, and the limit leaves room. */
export function sizeOf({ key, value, headers }: SinkMessage): number {
  let bytes = Buffer.byteLength(value ?? '') + (key?.length ?? 0) + MESSAGE_OVERHEAD;
  for (const [name, text] of Object.entries(headers)) bytes += name.length + text.length + 4;
  return bytes;
}

/** What an operator needs to see what went wrong; the whole entry, unless it is huge. */
export function deadLetter(entry: StreamEntry, reason: string): SinkMessage {
  const headers = {
    sallyport_entry: entry.id,
    sallyport_session: entry.sessionId.slice(0, NAME_CHARACTERS),
    sallyport_type: entry.type.slice(0, NAME_CHARACTERS),
    sallyport_reason: reason,
  };
  return { topic: 'dead', key: null, value: entry.data.slice(0, DEAD_LETTER_CHARACTERS), headers };
}

export const DEAD_LETTER_CHARACTERS = 16_384;
const NAME_CHARACTERS = 200;
/** Bytes of Kafka's format around one message, about. */
const MESSAGE_OVERHEAD = 32;
