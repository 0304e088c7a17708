/** The supervisor with a small program of ours below it: what happens to its clients when it dies in every way. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { eventually, PATIENCE_MS, ROOT, sleep, within } from '../harness/index.ts';

const SUPERVISOR = `${ROOT}native/target/release/sallyport-supervisor`;
const skip = existsSync(SUPERVISOR) ? false : 'the supervisor is not built (no cargo)';
const folder = mkdtempSync(join(tmpdir(), 'sallyport-supervisor-'));
const program = join(folder, 'program.mjs');
after(() => rmSync(folder, { recursive: true }));

/** Answers each line that it gets on the inherited socket; tells its supervisor what a service tells. */
writeFileSync(
  program,
  `import { createServer } from 'node:net';
import { readdirSync, readlinkSync, writeSync } from 'node:fs';
import { Supervision } from ${JSON.stringify(`${ROOT}libs/chassis/dist/index.js`)};
const supervision = Supervision.take(process.env, process.pid);
const [mode] = process.argv.slice(2);
if (mode === 'hopeless') { console.error('no good'); process.exit(1); }
if (mode === 'dying') process.exit(9);
const commands = {
  who: () => [process.pid, supervision.starts, supervision.sockets.map(({ fd, name }) => fd + name), process.env.LISTEN_PID ?? 'none'],
  fds: () => readdirSync('/proc/self/fd').filter((fd) => fd > 2).map((fd) => { try { return fd + ' ' + readlinkSync('/proc/self/fd/' + fd); } catch { return ''; } }),
  crash: () => process.exit(9),
  leave: () => { supervision.stopping(); process.exit(5); },
  hang: () => { writeSync(1, 'hangs\\n'); for (;;); },
};
const server = createServer((socket) => {
  socket.on('error', () => {});
  socket.setEncoding('utf8').on('data', (line) => socket.end(JSON.stringify(commands[line.trim()]()) + '\\n'));
});
let reloads = 0;
commands.reloads = () => reloads;
process.on('SIGHUP', () => { reloads++; });
process.on('SIGTERM', () => { supervision.stopping(); setTimeout(() => process.exit(mode === 'stubborn' ? 7 : 0), 50); });
if (mode === 'lingering') {
  process.removeAllListeners('SIGTERM');
  process.on('SIGTERM', () => { supervision.stopping(); server.close(); setInterval(() => {}, 1000); });
  process.on('SIGUSR1', () => process.exit(0));
}
const open = () => server.listen({ fd: supervision.tcp.fd }, 4096, () => supervision.ready());
if (mode === 'slow') setTimeout(open, 700); else if (mode === 'slower') setTimeout(open, 3000); else open();
`,
);

class Supervised {
  static async start(mode = '', options: string[] = [], port?: number): Promise<Supervised> {
    const supervised = new Supervised(mode, options, port ?? (await freePort()));
    running.add(supervised);
    await eventually('start', () => supervised.logged('"msg":"started"') > 0);
    return supervised;
  }

  readonly child: ChildProcess;
  readonly exited: Promise<number>;
  #output = '';

  private constructor(
    mode: string,
    options: string[],
    readonly port: number,
  ) {
    const argv = ['--tcp', `127.0.0.1:${port}`, '--log-level', 'debug', ...options];
    this.child = spawn(SUPERVISOR, [...argv, '--', process.execPath, program, mode], {
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
      detached: true,
    });
    const collect = (chunk: string) => (this.#output += chunk);
    this.child.stdout?.setEncoding('utf8').on('data', collect);
    this.child.stderr?.setEncoding('utf8').on('data', collect);
    this.exited = new Promise((resolve) =>
      this.child.once('close', (code, signal) => resolve(signal === null ? (code ?? -1) : -1)),
    );
  }

  get output(): string {
    return this.#output;
  }
  get children(): number[] {
    const text = readFileSync(`/proc/${this.child.pid}/task/${this.child.pid}/children`, 'utf8');
    return text.split(' ').filter(Boolean).map(Number);
  }
  /** Sends a line on a new connection. */
  async ask(line: string): Promise<unknown> {
    const socket = connect(this.port, '127.0.0.1');
    let answer = '';
    socket.setEncoding('utf8').on('data', (chunk: string) => (answer += chunk));
    socket.write(`${line}\n`);
    await within(PATIENCE_MS, `answer to ${line}`, once(socket, 'close'));
    return answer === '' ? undefined : JSON.parse(answer);
  }
  async who(): Promise<{ pid: number; starts: number }> {
    const [pid, starts] = (await this.ask('who')) as [number, number];
    return { pid, starts };
  }
  /** The same over a connection that is made now, and how long that took. */
  async served(): Promise<{ pid: number; starts: number; ms: number }> {
    const since = performance.now();
    const who = await this.who();
    return { ...who, ms: performance.now() - since };
  }
  logged(message: string): number {
    return this.#output.split(message).length - 1;
  }
}

const running = new Set<Supervised>();
afterEach(async () => {
  for (const one of running) {
    one.child.kill('SIGKILL');
    await one.exited;
  }
  running.clear();
});

test('the process gets its sockets by LISTEN_FDS and no other descriptor', { skip }, async () => {
  const one = await Supervised.start('', ['--udp', `127.0.0.1:${await freePort()}`]);
  const who = await one.ask('who');
  assert.deepEqual(who, [one.children[0], 1, ['3tcp', '4udp'], 'none']);
  const inherited = descriptors(one.children[0] ?? 0).filter((line) => /^[3-9] (socket|pipe)/.test(line));
  assert.match(inherited.join(), /^3 socket:\[\d+\],4 socket:\[\d+\],5 pipe:\[\d+\]/);
  const tun = descriptors(one.child.pid ?? 0).filter(
    (line) => !/ (socket|pipe|anon_inode:\[signalfd\]|\/dev\/null)/.test(line),
  );
  assert.deepEqual(tun, [], 'the supervisor holds sockets and its own pipes');
});

test('kill -9: who connects while nobody serves is served by the next process', { skip }, async (context) => {
  const one = await Supervised.start();
  const { pid } = await one.who();
  process.kill(pid, 'SIGKILL');
  const served = await one.served();
  assert.notEqual(served.pid, pid);
  assert.equal(served.starts, 2);
  context.diagnostic(`served ${served.ms.toFixed(0)} ms after the kill`);
  assert.equal(one.logged('the process died and is started again'), 1);
  assert.deepEqual(one.children, [served.pid], 'no zombie');
});

test('SIGSTOP and a loop without end: a frozen process is replaced', { skip }, async (context) => {
  const one = await Supervised.start();
  const { pid } = await one.who();
  process.kill(pid, 'SIGSTOP');
  const served = await one.served();
  assert.equal(served.starts, 2);
  context.diagnostic(`served ${served.ms.toFixed(0)} ms after SIGSTOP`);
  void one.ask('hang').catch(() => {});
  await eventually('it hangs', () => one.logged('hangs') === 1);
  assert.equal((await one.served()).starts, 3);
  assert.equal(one.logged('the process is killed'), 2);
});

test('a process that is slow to get ready is not taken for a frozen one', { skip }, async () => {
  const one = await Supervised.start('slower', ['--watchdog-ms', '2000']);
  assert.equal((await one.who()).starts, 1);
});

test('three deaths in ten seconds close the port, and later it is tried again', { skip }, async () => {
  const one = await Supervised.start();
  for (let death = 1; death <= 3; death++) {
    assert.equal((await one.who()).starts, death);
    await one.ask('crash');
  }
  await eventually('port closed', () => refused(one.port));
  assert.equal(one.logged('its port is closed until it is tried again'), 1);
  const served = await eventually('tried again', () => one.served().catch(() => undefined));
  assert.equal(served.starts, 4);
});

test('what never gets ready closes the port too, and TERM ends the wait', { skip }, async () => {
  const one = await Supervised.start('dying');
  await eventually('closed', () => one.logged('its port is closed') > 0);
  assert.equal(one.child.exitCode, null);
  one.child.kill('SIGTERM');
  assert.equal(await one.exited, 0);
});

test(
  'what is wrong from the beginning ends at once with code and words of the process',
  { skip },
  async () => {
    const one = await Supervised.start('hopeless');
    assert.equal(await one.exited, 1);
    assert.equal(one.logged('no good'), 1);
    assert.equal(one.logged('"msg":"started"'), 1);
    const none = spawn(SUPERVISOR, ['--', '/nonexistent/program'], { stdio: ['ignore', 'ignore', 'pipe'] });
    const words = String((await once(none.stderr, 'data'))[0]);
    assert.match(words, /cannot run \/nonexistent\/program: No such file/);
    assert.equal((await once(none, 'exit'))[0], 127);
  },
);

test(
  'TERM and INT stop the process once and end with its code; its own planned end does, too',
  { skip },
  async () => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      const one = await Supervised.start(signal === 'SIGTERM' ? 'stubborn' : '');
      await one.who();
      one.child.kill(signal);
      one.child.kill(signal);
      assert.equal(await one.exited, signal === 'SIGTERM' ? 7 : 128 + 2);
    }
    const left = await Supervised.start();
    await left.ask('leave').catch(() => {});
    assert.equal(await left.exited, 5);
    assert.ok(await refused(left.port));
  },
);

test(
  'who comes during a stop is refused, and does not wait for a process that will never serve him',
  { skip },
  async () => {
    const one = await Supervised.start('lingering');
    const { pid } = await one.who();
    one.child.kill('SIGTERM');
    await eventually('the port is closed', () => refused(one.port));
    assert.ok(existsSync(`/proc/${pid}`), 'the process still ends what it has');
    process.kill(pid, 'SIGUSR1');
    assert.equal(await one.exited, 0);
  },
);

test('HUP reaches the process, and one that is not ready yet only later', { skip }, async () => {
  const one = await Supervised.start('slow');
  one.child.kill('SIGHUP');
  assert.equal((await one.who()).starts, 1, 'it would have died of it');
  await eventually('reload', async () => (await one.ask('reloads')) === 1);
  one.child.kill('SIGHUP');
  await eventually('reload', async () => (await one.ask('reloads')) === 2);
});

test(
  'USR2 renews the process: the new one starts when the old one is gone, nobody is refused',
  { skip },
  async () => {
    const one = await Supervised.start();
    const { pid } = await one.who();
    let refusals = 0;
    let isOver = false;
    const knocking = (async () => {
      for (; !isOver; await sleep(5)) if (await refused(one.port)) refusals += 1;
    })();
    one.child.kill('SIGUSR2');
    await eventually('renewed', async () => (await one.who().catch(() => ({ starts: 0 }))).starts === 2);
    isOver = true;
    await knocking;
    assert.equal(refusals, 0);
    assert.equal(existsSync(`/proc/${pid}`), false);
    const lines = one.output.split('\n');
    assert.equal(lines.filter((line) => line.includes('died')).length, 0, 'it is no death');
  },
);

test(
  'a killed supervisor takes the process along, and a supervisor ends with the parent that is named',
  { skip },
  async () => {
    const one = await Supervised.start();
    const { pid } = await one.who();
    one.child.kill('SIGKILL');
    await one.exited;
    await eventually('process gone', () => !existsSync(`/proc/${pid}`));
    const port = await freePort();
    const shell = spawn(
      'sh',
      [
        '-c',
        `${SUPERVISOR} --parent $$ --tcp 127.0.0.1:${port} -- ${process.execPath} ${program} & echo $!; wait`,
      ],
      { stdio: ['ignore', 'pipe', 'ignore'] },
    );
    const supervisor = Number(String((await once(shell.stdout, 'data'))[0]));
    await eventually('serves', async () => !(await refused(port)));
    shell.kill('SIGKILL');
    await eventually('gone', async () => !existsSync(`/proc/${supervisor}`) && (await refused(port)));
  },
);

test('a port that is taken is the business of the process', { skip }, async () => {
  const busy = createServer().listen(0, '127.0.0.1');
  await once(busy, 'listening');
  const address = busy.address();
  const port = typeof address === 'object' && address ? address.port : 0;
  const one = await Supervised.start('hopeless', [], port);
  assert.equal(await one.exited, 1);
  assert.match(one.output, /no good/);
  busy.close();
});

function descriptors(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`)
    .filter((fd) => Number(fd) > 2)
    .flatMap((fd) => {
      try {
        return [`${fd} ${readlinkSync(`/proc/${pid}/fd/${fd}`)}`];
      } catch {
        return []; // closed meanwhile
      }
    });
}

function refused(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(false);
    });
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  return typeof address === 'object' && address ? address.port : 0;
}
