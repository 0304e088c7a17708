// A Kafka broker (KRaft, one node, small memory) for tests and the local cluster, from Maven's jars; no container.
//
//   node tools/kafka.mjs [options]      runs a broker until SIGTERM, SIGINT or the end of stdin; when it serves, one line
//                                       of JSON on stdout: { pid, port, controllerPort, dir, listeners: { NAME: port } }
//     --dir DIR            its data; kept when given, else a new folder that is removed at the end
//     --port P             port of the PLAINTEXT listener; with --controller-port P and --dir an earlier broker comes back
//     --listener N=PROTO   one more listener (SASL_PLAINTEXT, SSL, SASL_SSL); N=PROTO:P on a given port
//     --properties FILE    lines added to server.properties (certificates, users)
//     --scram FILE         users for SCRAM-SHA-512 and SCRAM-SHA-256: lines NAME=PASSWORD (a new --dir only)
//     --nodes N            N brokers, each also a controller, with copies of everything; `port` is that of the first, and
//                          brokers: [{ pid, port }] tells of all. Without --port and --listener
//   node tools/kafka.mjs --fetch        only fetches the jars
import { spawn, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findTool } from './debian.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const POM = join(ROOT, 'tools', 'kafka', 'pom.xml');
const CACHE = join(ROOT, 'node_modules', '.cache');
const START_MS = 300_000;
const STOP_MS = 20_000;

/**
 * The broker's jars, fetched by Maven when they are missing.
 * @returns {string} their folder
 * @throws {Error} with one sentence that says what to install
 */
export function fetchBroker() {
  const version = createHash('sha256').update(readFileSync(POM)).digest('hex').slice(0, 12);
  const folder = join(CACHE, `kafka-${version}`);
  if (existsSync(folder)) return folder;
  const maven = tool('mvn', 'maven');
  mkdirSync(CACHE, { recursive: true });
  const fresh = mkdtempSync(`${folder}.`);
  console.error("Fetching Kafka's jars with Maven (43 MB, about 10 s)");
  const goal = ['dependency:copy-dependencies', '-DincludeScope=runtime', `-DoutputDirectory=${fresh}`];
  const result = spawnSync(maven, ['-q', '-B', '-ntp', '-f', POM, ...goal], {
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
  });
  if (result.status !== 0) {
    rmSync(fresh, { recursive: true, force: true });
    console.error((result.stdout ?? '') + (result.stderr ?? ''));
    throw new Error("Maven could not fetch Kafka's jars (its words are above): mend that and start again.");
  }
  try {
    renameSync(fresh, folder);
  } catch (error) {
    rmSync(fresh, { recursive: true, force: true });
    if (!existsSync(folder)) throw error; // else another process was first
  }
  return folder;
}

/**
 * @param {{ dir?: string, port?: number, controllerPort?: number, listeners?: Record<string, { protocol: string, port?: number }>, properties?: string }} options
 * @returns {Promise<{ pid: number, port: number, controllerPort: number, dir: string, listeners: Record<string, number>, ended: Promise<void>, stop(): Promise<void> }>}
 */
export async function startBroker(options = {}) {
  const jars = join(fetchBroker(), '*');
  const java = tool('java', 'default-jre-headless');
  const dir = options.dir ?? mkdtempSync(join(tmpdir(), 'sallyport-kafka-'));
  mkdirSync(dir, { recursive: true });
  const port = options.port ?? (await freePort());
  const controllerPort = options.controllerPort ?? (await freePort());
  const listeners = {};
  for (const [name, one] of Object.entries(options.listeners ?? {}))
    listeners[name] = { ...one, port: one.port ?? (await freePort()) };
  const config = join(dir, 'server.properties');
  writeFileSync(
    config,
    serverProperties({ dir, port, controllerPort, listeners, ...options.node }) + (options.properties ?? ''),
    { mode: 0o600 },
  );
  writeFileSync(join(dir, 'log4j2.properties'), logProperties(join(dir, 'broker.log')));
  if (!existsSync(join(dir, 'data', 'meta.properties')))
    format(java, jars, config, options.clusterId ?? newClusterId(), options.scram ?? '');
  const child = run(java, [
    '-Xmx160m',
    '-XX:TieredStopAtLevel=1',
    ...logging(dir),
    '-cp',
    jars,
    'kafka.Kafka',
    config,
  ]);
  const ended = new Promise((resolve) => child.once('exit', () => resolve()));
  const stop = async () => {
    child.kill('SIGTERM');
    setTimeout(() => child.kill('SIGKILL'), STOP_MS).unref();
    await ended;
    if (options.dir === undefined) rmSync(dir, { recursive: true, force: true });
  };
  try {
    await waitFor([port, ...Object.values(listeners).map((one) => one.port)], child);
  } catch (error) {
    const log = join(dir, 'broker.log');
    if (existsSync(log)) console.error(readFileSync(log, 'utf8').split('\n').slice(-20).join('\n'));
    await stop();
    throw error;
  }
  const ports = Object.fromEntries(Object.entries(listeners).map(([name, one]) => [name, one.port]));
  return { pid: child.pid, port, controllerPort, dir, listeners: ports, ended, stop };
}

/**
 * Several brokers with copies of everything: what is acknowledged is on two of three.
 * @returns {ReturnType<typeof startBroker>} the first, with `brokers`, which are all
 */
async function startBrokers(count, options) {
  const dir = options.dir ?? mkdtempSync(join(tmpdir(), 'sallyport-kafka-'));
  const clusterId = newClusterId();
  const controllers = [];
  for (let i = 0; i < count; i++) controllers.push(await freePort());
  const voters = controllers.map((port, i) => `${i + 1}@127.0.0.1:${port}`).join(',');
  const brokers = await Promise.all(
    controllers.map((controllerPort, i) =>
      startBroker({
        ...{ ...options, clusterId, controllerPort, dir: join(dir, String(i + 1)) },
        node: { id: i + 1, voters, copies: count },
      }),
    ),
  );
  const stop = async () => {
    await Promise.all(brokers.map((broker) => broker.stop()));
    if (options.dir === undefined) rmSync(dir, { recursive: true, force: true });
  };
  const ended = Promise.all(brokers.map((broker) => broker.ended)).then(() => undefined);
  return { ...brokers[0], dir, brokers, ended, stop };
}

/** Dies with us, even when we are killed. */
function run(java, args) {
  const setpriv = findTool('setpriv');
  const command = setpriv
    ? [setpriv, '--pdeathsig', 'KILL', java, ...SMALL, ...args]
    : [java, ...SMALL, ...args];
  return spawn(command[0], command.slice(1), { stdio: ['ignore', 'ignore', 'inherit'] });
}

/** One that begins with a dash would be taken for an option. */
function newClusterId() {
  return randomBytes(16).toString('base64url').replace(/^-/, '_');
}

/** @param {string} scram lines NAME=PASSWORD, for tests: StorageTool takes them as arguments only */
function format(java, jars, config, id, scram) {
  const users = scram.split('\n').flatMap((line) => {
    const [, name, password] = /^([^=]+)=(.+)$/.exec(line) ?? [];
    if (!name) return [];
    return ['SCRAM-SHA-512', 'SCRAM-SHA-256'].flatMap((mechanism) => [
      '--add-scram',
      `${mechanism}=[name=${name},password=${password}]`,
    ]);
  });
  const args = [...SMALL, '-cp', jars, 'kafka.tools.StorageTool', 'format', '-t', id, '-c', config, ...users];
  const result = spawnSync(java, args, { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' });
  if (result.status === 0) return;
  console.error((result.stdout ?? '') + (result.stderr ?? ''));
  throw new Error('Kafka could not format its data folder (its words are above).');
}

function serverProperties({ dir, port, controllerPort, listeners, id = 1, voters, copies = 1 }) {
  const quorum = voters ?? `${id}@127.0.0.1:${controllerPort}`;
  const inSync = Math.max(1, copies - 1);
  const all = [
    { name: 'PLAINTEXT', protocol: 'PLAINTEXT', port },
    ...Object.entries(listeners).map(([name, one]) => ({ name, ...one })),
  ];
  const addresses = all.map((one) => `${one.name}://127.0.0.1:${one.port}`);
  const protocols = all.map((one) => `${one.name}:${one.protocol}`);
  return `${[
    'process.roles=broker,controller',
    `node.id=${id}`,
    `controller.quorum.voters=${quorum}`,
    `default.replication.factor=${copies}`,
    `min.insync.replicas=${inSync}`,
    `listeners=${[...addresses, `CONTROLLER://127.0.0.1:${controllerPort}`].join(',')}`,
    `advertised.listeners=${addresses.join(',')}`,
    'controller.listener.names=CONTROLLER',
    'inter.broker.listener.name=PLAINTEXT',
    `listener.security.protocol.map=${[...protocols, 'CONTROLLER:PLAINTEXT'].join(',')}`,
    `log.dirs=${join(dir, 'data')}`,
    'num.network.threads=2',
    'num.io.threads=2',
    'offsets.topic.num.partitions=3',
    `offsets.topic.replication.factor=${copies}`,
    'transaction.state.log.num.partitions=3',
    `transaction.state.log.replication.factor=${copies}`,
    `transaction.state.log.min.isr=${inSync}`,
    'share.coordinator.state.topic.num.partitions=1',
    'share.coordinator.state.topic.replication.factor=1',
    'share.coordinator.state.topic.min.isr=1',
    'group.initial.rebalance.delay.ms=0',
    'auto.create.topics.enable=false',
    // The default is 128 MiB of heap, which the broker would not survive.
    'log.cleaner.dedupe.buffer.size=4194304',
  ].join('\n')}\n`;
}

function logProperties(file) {
  return [
    'appender.file.type=File',
    'appender.file.name=file',
    `appender.file.fileName=${file}`,
    'appender.file.layout.type=PatternLayout',
    'appender.file.layout.pattern=%d %p %c{1} %m%n',
    'rootLogger.level=warn',
    'rootLogger.appenderRef.file.ref=file',
  ].join('\n');
}

function logging(dir) {
  return [`-Dlog4j2.configurationFile=${join(dir, 'log4j2.properties')}`];
}

async function waitFor(ports, child) {
  const deadline = Date.now() + START_MS;
  while (!(await Promise.all(ports.map(isOpen))).every(Boolean)) {
    if (child.exitCode !== null || child.signalCode !== null)
      throw new Error('The Kafka broker ended while it started (its last words are above).');
    if (Date.now() > deadline) throw new Error(`The Kafka broker did not serve within ${START_MS / 1000} s.`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

function isOpen(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function tool(name, debianPackage) {
  const path = findTool(name);
  if (path) return path;
  throw new Error(`A Kafka broker needs "${name}": install it (Debian: apt-get install ${debianPackage}).`);
}

const SMALL = ['-XX:+UseSerialGC', '-Xms32m'];

async function main(args) {
  if (args[0] === '--fetch') {
    fetchBroker();
    return;
  }
  const { nodes, ...chosen } = options(args);
  const broker = nodes > 1 ? await startBrokers(nodes, chosen) : await startBroker(chosen);
  const stop = () => void broker.stop();
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.once(signal, stop);
  process.stdin.once('end', stop).once('error', stop).resume();
  const { pid, port, controllerPort, dir, listeners } = broker;
  const brokers = broker.brokers?.map((one) => ({ pid: one.pid, port: one.port }));
  process.stdout.write(`${JSON.stringify({ pid, port, controllerPort, dir, listeners, brokers })}\n`);
  await broker.ended;
  process.stdin.destroy();
}

function options(args) {
  const chosen = { listeners: {} };
  for (let i = 0; i < args.length; i += 2) {
    const value = args[i + 1];
    if (value === undefined) throw new Error(`${args[i]} needs a value.`);
    if (args[i] === '--dir') chosen.dir = value;
    else if (args[i] === '--port') chosen.port = Number(value);
    else if (args[i] === '--controller-port') chosen.controllerPort = Number(value);
    else if (args[i] === '--nodes') chosen.nodes = Number(value);
    else if (args[i] === '--scram') chosen.scram = readFileSync(value, 'utf8');
    else if (args[i] === '--properties') chosen.properties = readFileSync(value, 'utf8');
    else if (args[i] === '--listener') {
      const [, name, protocol, port] = /^(\w+)=(\w+)(?::(\d+))?$/.exec(value) ?? [];
      if (!name) throw new Error(`--listener takes NAME=PROTOCOL or NAME=PROTOCOL:PORT, not "${value}".`);
      chosen.listeners[name] = { protocol, ...(port && { port: Number(port) }) };
    } else throw new Error(`Unknown option "${args[i]}".`);
  }
  return chosen;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main(process.argv.slice(2)).catch((error) => {
    console.error(`sallyport: ${error.message}`);
    process.exitCode = 1;
  });
}
