import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';

/**
 * Finds out what a port speaks, for the sentence that tells an operator why his settings do not fit it. Nothing that comes
 * back is relied on, and no secret is sent.
 * @param address `HOST:PORT`
 * @param request undefined = to be connected, over TLS with whatever certificate, is the answer.
 * @param enough whether this is an answer.
 * @returns undefined: none of this kind came.
 */
export function askPort(
  address: string,
  over: 'tcp' | 'tls',
  request?: Uint8Array,
  enough: (answer: Buffer) => boolean = () => false,
): Promise<Buffer | undefined> {
  const colon = address.lastIndexOf(':');
  const host = address.slice(0, colon).replace(/^\[(.*)\]$/, '$1');
  const place = { host, port: Number(address.slice(colon + 1)) };
  return new Promise((resolve) => {
    let answer = Buffer.alloc(0);
    const socket: Socket =
      over === 'tls' ? connectTls({ ...place, rejectUnauthorized: false }) : connect(place);
    const end = (result: Buffer | undefined) => {
      socket.destroy();
      resolve(result);
    };
    socket.setTimeout(ASK_MS, () => end(undefined));
    socket.on('error', (error) => end(over === 'tls' && isAlert(error) ? answer : undefined));
    socket.on('close', () => end(undefined));
    socket.once(over === 'tls' ? 'secureConnect' : 'connect', () => {
      if (request === undefined) end(answer);
      else socket.write(request);
    });
    socket.on('data', (chunk: Buffer) => {
      answer = Buffer.concat([answer, chunk]);
      if (enough(answer)) end(answer);
      else if (answer.length >= MAX_ANSWER_BYTES) end(undefined);
    });
  });
}

/** A server that speaks TLS, and refuses us for want of a certificate or of a common version. */
function isAlert(error: Error): boolean {
  return /alert/i.test(error.message);
}

const ASK_MS = 3_000;
const MAX_ANSWER_BYTES = 4_096;
