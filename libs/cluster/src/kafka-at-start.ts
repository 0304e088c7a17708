/*
 * What a process looks at before it relies on a Kafka: a password, a certificate or a port that does not fit is told at the
 * start, because waiting does not mend it. A Kafka that is away is no such thing: facts wait in Redis.
 *
 *  1. does anybody listen?            no: it is away
 *  2. a metadata request by kafkajs   its refusals say what is wrong
 *  3. the connection was closed       a broker that stops does that, and one whose port wants something else: ask it
 */
import { SinkRefused, SinkUnavailable } from './event-sink.ts';
import type { KafkaSettings } from './kafka-settings.ts';
import type { Kafka } from './kafka.ts';
import { askPort } from './port-probe.ts';

/** @returns one sentence that says what to mend; undefined: all is well, or Kafka is away. */
export async function kafkaAtStart(kafka: Kafka, settings: KafkaSettings): Promise<string | undefined> {
  const heard = await Promise.all(settings.brokers.map((broker) => listens(broker)));
  if (!heard.includes(true)) return undefined;
  try {
    await kafka.withAdmin('looking at Kafka', (admin) => admin.listTopics());
    return undefined;
  } catch (error) {
    if (error instanceof SinkRefused) return error.message;
    if (!(error instanceof SinkUnavailable)) throw error;
    for (const broker of settings.brokers) {
      const misfit = await portMisfit(broker, settings);
      if (misfit !== undefined) return `Kafka at ${broker} ${misfit}`;
    }
    return undefined;
  }
}

/** What the port speaks against what the settings say. undefined = they fit, or nobody knows. */
async function portMisfit(broker: string, { tls, sasl }: KafkaSettings): Promise<string | undefined> {
  const plain = await askPort(broker, 'tcp', SASL_HANDSHAKE, isAnswer);
  if (tls !== undefined)
    return plain && 'does not speak TLS on this port: remove kafka.tls or use its TLS port.';
  if (plain === undefined) return (await askPort(broker, 'tls')) && 'speaks TLS on this port: set kafka.tls.';
  // Error code 0, or 33 for a mechanism that it does not have: it wants a password. 34: it takes none.
  const wantsPassword = plain.readInt16BE(8) !== ILLEGAL_SASL_STATE;
  if (wantsPassword && sasl === undefined) return 'asks for a user name and password: set kafka.sasl.';
  if (!wantsPassword && sasl !== undefined)
    return 'takes no user name and password on this port: remove kafka.sasl or use another port.';
  return undefined;
}

function listens(broker: string): Promise<boolean> {
  return askPort(broker, 'tcp').then((answer) => answer !== undefined);
}

function isAnswer(bytes: Buffer): boolean {
  return bytes.length >= ANSWER_BYTES && bytes.readInt32BE(4) === CORRELATION;
}

const CORRELATION = 0x53_50;
/** Length, correlation id, error code. */
const ANSWER_BYTES = 4 + 4 + 2;
const ILLEGAL_SASL_STATE = 34;
/** SaslHandshake, version 1, of no client id, for the mechanism PLAIN: changes nothing, and each broker answers it. */
const SASL_HANDSHAKE = framed(Buffer.concat([requestHead(17, 1), Buffer.from([0, 5]), Buffer.from('PLAIN')]));

/** Key and version of the request, correlation id, client id (none). */
function requestHead(key: number, version: number): Buffer {
  const head = Buffer.alloc(10);
  head.writeInt16BE(key, 0);
  head.writeInt16BE(version, 2);
  head.writeInt32BE(CORRELATION, 4);
  head.writeInt16BE(-1, 8);
  return head;
}

function framed(request: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeInt32BE(request.length);
  return Buffer.concat([length, request]);
}
