/**
 * Runs inside a namespace: takes connections on a Unix socket, reads `HOST PORT\n`, connects there, answers one byte
 * (`+` connected, `-` refused), then copies bytes both ways. Ends of stream and resets are passed on. It prints one line
 * when it takes connections.
 */
import { connect, createServer, type Socket } from 'node:net';

const path = process.argv[2];
if (path === undefined) throw new Error('usage: relay SOCKET');

createServer({ allowHalfOpen: true, pauseOnConnect: true }, (near) => {
  near.on('error', () => {});
  let head = Buffer.alloc(0);
  const readHead = (chunk: Buffer) => {
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf(10);
    if (end < 0) return;
    near.off('data', readHead);
    near.pause();
    const [host = '', port = ''] = head.toString('latin1', 0, end).split(' ');
    open(near, host, Number(port), head.subarray(end + 1));
  };
  near.on('data', readHead);
  near.resume();
}).listen(path, () => process.stdout.write('listening\n'));

function open(near: Socket, host: string, port: number, early: Buffer): void {
  const far = connect({ host, port, allowHalfOpen: true, noDelay: true });
  far.once('error', () => near.destroyed || near.end('-'));
  far.once('connect', () => {
    far.on('error', () => near.destroy());
    near.once('close', () => far.destroy());
    far.once('close', () => near.destroy());
    near.write('+');
    if (early.length > 0) far.write(early);
    near.pipe(far);
    far.pipe(near);
  });
}
