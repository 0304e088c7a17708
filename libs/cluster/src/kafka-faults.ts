import { MessageRefused, SinkRefused, SinkUnavailable, WriterFenced } from './event-sink.ts';

/**
 * What a failure of Kafka's client means for us, in one line that tells what to do. Reads only names, codes and messages
 * along the chain of causes; none of them holds a password.
 * @param brokers as in the settings, for the reader of the line
 */
export function kafkaFault(
  error: unknown,
  brokers: readonly string[],
): SinkUnavailable | SinkRefused | WriterFenced | MessageRefused {
  if (error instanceof SinkUnavailable || error instanceof SinkRefused) return error;
  if (error instanceof WriterFenced || error instanceof MessageRefused) return error;
  const chain = causes(error);
  const options = { cause: error };
  const where = `Kafka at ${brokers.join(', ')}`;
  const said = chain.map((one) => one.message).join(' ');
  const types = chain.map((one) => one.type);
  if (types.some((type) => FENCED.includes(type)) || /Unknown error code 90\b/.test(said))
    return new WriterFenced(options);
  if (types.some((type) => REFUSED_MESSAGE.includes(type)))
    return new MessageRefused(`${where} refused a message: ${said}`, options);
  if (chain.some((one) => one.name === 'KafkaJSSASLAuthenticationError'))
    return new SinkRefused(
      `${where} did not accept the user name and password: check kafka.sasl (mechanism, username, password-file).`,
      options,
    );
  const denied = types.find((type) => type.endsWith('_AUTHORIZATION_FAILED'));
  if (denied !== undefined)
    return new SinkRefused(
      `${where} does not allow this user what the outbox needs (${denied}): docs/events.md lists the rights.`,
      options,
    );
  if (types.includes('UNKNOWN_TOPIC_OR_PARTITION'))
    return new SinkUnavailable(
      `${where} has no such topic: check kafka.prefix; auth creates the topics when it first runs.`,
      options,
    );
  // Kafka's client swallows the reason.
  if (said.includes('Failed to find group coordinator'))
    return new SinkUnavailable(
      `${where} names no coordinator: it is starting, or this user lacks a right on TransactionalId or Group; docs/events.md lists the rights.`,
      options,
    );
  const certificate = chain.find((one) => TLS_CODES.test(one.code) || TLS_WORDS.test(one.message));
  if (certificate !== undefined) return new SinkRefused(tlsLine(where, certificate.message), options);
  if (chain.some((one) => one.name === 'KafkaJSConnectionClosedError' || CLOSED.test(one.message)))
    return new SinkUnavailable(
      `${where} closed the connection: it is starting or stopping, or this port does not fit kafka.sasl or kafka.tls.`,
      options,
    );
  return new SinkUnavailable(`${where} does not answer: ${chain[0]?.message ?? 'no reason given'}`, options);
}

interface Cause {
  name: string;
  message: string;
  type: string;
  code: string;
}

function causes(error: unknown): Cause[] {
  const chain: Cause[] = [];
  const waiting = [error];
  while (waiting.length > 0 && chain.length < CAUSES) {
    const one = waiting.shift();
    if (!(one instanceof Error)) continue;
    const text = (name: string) => {
      const value: unknown = Reflect.get(one, name);
      return typeof value === 'string' ? value : '';
    };
    chain.push({ name: one.name, message: one.message, type: text('type'), code: text('code') });
    waiting.push(one.cause);
    const several: unknown = Reflect.get(one, 'errors');
    if (Array.isArray(several)) waiting.push(...(several as unknown[]));
  }
  return chain;
}

function tlsLine(where: string, message: string): string {
  if (/wrong version number|packet length too long/i.test(message))
    return `${where} does not speak TLS on this port: remove kafka.tls or use its TLS port.`;
  if (/alert|required/i.test(message))
    return `${where} did not accept our certificate: check kafka.tls (cert, key).`;
  return `${where} has a certificate that kafka.tls does not trust (${message.replace(/^Connection error: /, '')}).`;
}

const FENCED = ['PRODUCER_FENCED', 'INVALID_PRODUCER_EPOCH', 'INVALID_PRODUCER_ID_MAPPING'];
const REFUSED_MESSAGE = ['MESSAGE_TOO_LARGE', 'RECORD_LIST_TOO_LARGE', 'INVALID_RECORD'];
const TLS_CODES =
  /^(DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_.*|CERT_.*|ERR_TLS_.*|ERR_SSL_.*|EPROTO)$/;
const TLS_WORDS = /certificate|wrong version number/i;
const CLOSED = /disconnected before secure TLS|Closed connection|ECONNRESET/i;
const CAUSES = 16;
