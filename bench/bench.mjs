// `npm run bench -- NAME [options]`: builds the measuring programs, runs one against this gateway and its peers, servers in
// turn in every round, keeps each run as a line of JSON in bench/out, and prints medians and ratios.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const BENCH = dirname(fileURLToPath(import.meta.url));
const TOOLS = join(BENCH, 'tools');
const BUILD = join(BENCH, 'build');
const OUT = join(BENCH, 'out');

const SERVERS = {
  ours: join(BENCH, 'serve.sh'),
  ocserv: join(TOOLS, 'servers', 'ocserv.sh'),
  limit: join(TOOLS, 'servers', 'ptun.sh'),
};
const REFERENCE = 'ocserv';

/** CPU per login and memory, with every part of sessbench.py off that is not named. */
const SESSIONS_ONLY = [
  '--sizes',
  '',
  '--threads',
  '',
  '--openconnect',
  '',
  '--key',
  'ecdsa',
  '--dtls',
  '0',
  '--runs',
  '1',
];

const BENCHES = {
  sessions: {
    about:
      'CPU per login, logins per second, memory per idle session (slope from 200 to 1,000 sessions); 2 min a round',
    program: 'sessbench.py',
    args: [...SESSIONS_ONLY, '--sizes', '200,1000', '--threads', '4', '--rate', '200'],
    servers: ['ours', 'ocserv'],
  },
  logins: {
    about: 'CPU per login and logins per second with 1 and with 8 logins at a time; 1 min a round',
    program: 'sessbench.py',
    args: [...SESSIONS_ONLY, '--threads', '1,8', '--rate', '200'],
    servers: ['ours', 'ocserv'],
  },
  idle: {
    about: 'CPU and memory of 500 idle sessions that send a DPD request every 30 s; 2 min a round',
    program: 'sessbench.py',
    args: [...SESSIONS_ONLY, '--idle', '500', '--ka', '30', '--idle-secs', '30'],
    servers: ['ours', 'ocserv'],
  },
  storm: {
    about: 'kill -9 under 200 sessions and a new start: how long until all are back; 2 min a round',
    program: 'sessbench.py',
    args: [...SESSIONS_ONLY, '--storm', '200'],
    servers: ['ours', 'ocserv'],
  },
  openconnect: {
    about: 'memory and time to tunnel up with 20 real openconnect clients; 1 min a round',
    program: 'sessbench.py',
    args: [...SESSIONS_ONLY, '--openconnect', '20'],
    servers: ['ours', 'ocserv'],
  },
  throughput: {
    about: 'Mbit/s and server CPU per GB over TLS, client openconnect; 1 min a round',
    program: 'vpnbench.py',
    args: ['--modes', 'tls', '--tests', 'tcp_up,tcp_down', '--runs', '1', '--secs', '4'],
    servers: ['ours', 'ocserv', 'limit'],
  },
  'throughput-fast': {
    about:
      'the same with the batching client, which costs the machine far less than openconnect; 1 min a round',
    program: 'vpnbench.py',
    args: ['--modes', 'tls', '--tests', 'tcp_up,tcp_down', '--runs', '1', '--secs', '4', '--client', 'fast'],
    servers: ['ours', 'ocserv', 'limit'],
  },
  reconnect: {
    about:
      'how long the tunnel is dead after a cut, an address change, kill -9 and a planned restart; 3 min a round',
    program: 'reconbench.py',
    args: ['--modes', 'tls', '--scenarios', 'blackhole:3,addrchange,killserver,termserver', '--limit', '60'],
    servers: ['ours', 'ocserv'],
  },
};

/** These run over the whole local cluster (test/cluster) and parse their own options. */
const CLUSTER_BENCHES = {
  failover:
    'real clients over a cluster while nodes die, freeze, stop and come back; --clients 100 --nodes 3 --rounds 1 ' +
    '--balancer redispatch|kube-proxy --return-path routed|nat --scenarios a,b --ocserv yes|no; 10 min a round',
  'cluster-storm':
    '2,000 scripted clients lose their node at once; --sessions 2000 --namespaces 20 --nodes 3 --kill node|serving; 5 min',
  racing:
    'many CONNECTs with one cookie on all nodes at the same moment; --connects 100 --runs 100 --nodes 3; 10 min',
};

/** These need nothing but a redis-server, which they start (test/scale), and parse their own options. */
const REDIS_BENCHES = {
  scale:
    'a session table of the given size, made by the real code: bytes per session, logins and claims per second, the cost ' +
    'of each step at several sizes, the longest scripts; --sessions 1000000 --minutes 45 --rounds 15 --calls 200 --workers 2',
  addresses:
    'claims and releases while nodes and Redis are killed: no address in two hands, none lost; --operations 1000000 ' +
    '--nodes 4 --kills 40 --redis-kills 5 --minutes 60',
};

async function main(argv) {
  if (argv[0] in CLUSTER_BENCHES && !argv.includes('--help')) return clusterBench(argv[0], argv.slice(1));
  if (argv[0] in REDIS_BENCHES && !argv.includes('--help'))
    return compiledBench('scale', argv[0], argv.slice(1));
  const options = parse(argv);
  if (options.help) return usage();
  const bench = BENCHES[options.name];
  const names = [BENCHES, CLUSTER_BENCHES, REDIS_BENCHES].flatMap(Object.keys);
  if (!bench) throw new Error(`There is no bench "${options.name}": ${names.join(', ')}.`);
  if (process.getuid?.() !== 0) throw new Error('The benches make network namespaces: run them as root.');
  buildPrograms();
  mkdirSync(OUT, { recursive: true });
  const file = outFile(options.name);
  const servers = options.servers ?? bench.servers;
  for (let round = 1; round <= options.rounds; round++) {
    for (const server of servers) {
      console.log(`# round ${round} of ${options.rounds}: ${server}`);
      await measure(bench, server, file, options.rest);
    }
  }
  const rows = existsSync(file)
    ? readFileSync(file, 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line))
    : [];
  if (rows.length === 0) throw new Error('No run gave a result (see above).');
  printTable(rows, servers);
  console.log(`\nEvery run: ${file}`);
}

function clusterBench(name, args) {
  if (process.getuid?.() !== 0) throw new Error('The benches make network namespaces: run them as root.');
  return compiledBench('bench', name, args);
}

/** A compiled program of test/FOLDER, which makes its own tables and adds its rows to a file in bench/out. */
async function compiledBench(folder, name, args) {
  mkdirSync(BUILD, { recursive: true });
  mkdirSync(OUT, { recursive: true });
  const file = outFile(name);
  const program = join(BENCH, '..', 'test', 'dist', folder, `${name}.js`);
  await ended(spawn(process.execPath, [program, '--out', file, ...args], { stdio: 'inherit' }), name);
  console.log(`\nEvery run: ${file}`);
}

function outFile(name) {
  return join(OUT, `${name}-${new Date().toISOString().replace(/[:.]/g, '-')}.jsonl`);
}

/** Passes signals on to a child and waits for its end. @throws when that was not a good one */
async function ended(child, what) {
  const forward = (signal) => child.kill(signal);
  process.on('SIGTERM', forward);
  process.on('SIGINT', forward);
  const code = await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (status, signal) => resolve(signal ?? status));
  });
  process.off('SIGTERM', forward);
  process.off('SIGINT', forward);
  if (code !== 0) throw new Error(`${what} ended with ${code}`);
}

function parse(argv) {
  const options = { name: undefined, rounds: 1, servers: undefined, rest: [], help: argv.length === 0 };
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i];
    if (word === '--help' || word === '-h') options.help = true;
    else if (word === '--rounds') options.rounds = Number(argv[++i]);
    else if (word === '--servers') options.servers = (argv[++i] ?? '').split(',');
    else if (word === '--') {
      options.rest = argv.slice(i + 1);
      break;
    } else if (options.name === undefined && !word.startsWith('-')) options.name = word;
    else
      throw new Error(`Unknown option "${word}"; options of the measuring program go behind a second "--".`);
  }
  if (!Number.isInteger(options.rounds) || options.rounds < 1)
    throw new Error('--rounds takes a whole number from 1.');
  const unknown = options.servers?.find((server) => !(server in SERVERS));
  if (unknown !== undefined)
    throw new Error(`There is no server "${unknown}": ${Object.keys(SERVERS).join(', ')}.`);
  return options;
}

function usage() {
  console.log(
    `npm run bench -- NAME [--rounds N] [--servers ${Object.keys(SERVERS).join(',')}] [-- options of the program]\n`,
  );
  for (const [name, { about, program }] of Object.entries(BENCHES)) {
    console.log(`  ${name.padEnd(16)} ${about} (${program})`);
  }
  for (const [name, about] of Object.entries({ ...CLUSTER_BENCHES, ...REDIS_BENCHES }))
    console.log(`  ${name.padEnd(16)} ${about}`);
  console.log(`
ours = this gateway, ocserv = Debian's, limit = a throw-away batching server for one client, the practical limit.
Results: bench/out/NAME-TIME.jsonl. Figures compare only within one run: see bench/README.md.`);
}

/** The two C programs, when they are missing or older than their source. */
function buildPrograms() {
  mkdirSync(BUILD, { recursive: true });
  const headers = ['acclient.h', 'acserver.h'];
  const programs = {
    ptun: [
      ['-O3', '-march=native'],
      ['-lcrypto', '-luring', '-lgnutls', '-lpthread'],
    ],
    vpnsess: [['-O2'], ['-lgnutls', '-lpthread']],
  };
  for (const [name, [flags, libraries]] of Object.entries(programs)) {
    const target = join(BUILD, name);
    const source = join(TOOLS, `${name}.c`);
    const newest = Math.max(
      ...[source, ...headers.map((header) => join(TOOLS, header))].map((path) => statSync(path).mtimeMs),
    );
    if (existsSync(target) && statSync(target).mtimeMs > newest) continue;
    const args = [...flags, '-w', '-o', target, source, ...libraries];
    if (spawnSync('gcc', args, { stdio: 'inherit' }).status !== 0)
      throw new Error(`gcc could not build ${source} (see above).`);
  }
}

/** One program against one server; it works in bench/build, in an empty laboratory folder. */
async function measure(bench, server, file, rest) {
  rmSync(join(BUILD, 'perf-work'), { recursive: true, force: true });
  const args = [
    join(TOOLS, bench.program),
    '--server',
    SERVERS[server],
    '--name',
    server,
    '--tag',
    'spb',
    '--out',
    file,
  ];
  const child = spawn('python3', [...args, ...bench.args, ...rest], { cwd: BUILD, stdio: 'inherit' });
  const log = `${BUILD}/perf-work/spb/server.log`;
  await ended(child, `${bench.program} against ${server} (its server's log: ${log})`);
}

function printTable(rows, servers) {
  const names = rows.map(({ server }) => server.replace(/ \| .*/, ''));
  const metrics = new Map(); // label -> { server -> values }
  const add = (label, server, value) => {
    if (typeof value !== 'number' || !Number.isFinite(value)) return;
    const ofServers = metrics.get(label) ?? {};
    (ofServers[server] ??= []).push(value);
    metrics.set(label, ofServers);
  };
  rows.forEach((row, i) => figures(row).forEach(([label, value]) => add(label, names[i], value)));
  for (const server of servers)
    slopes(rows.filter((_, i) => names[i] === server)).forEach((value) =>
      add('kB per session, slope', server, value),
    );
  console.log(
    `\n| figure (median) | ${servers.join(' | ')} | ours / ${REFERENCE} | runs |\n|---|${'---|'.repeat(servers.length + 2)}`,
  );
  for (const [label, ofServers] of metrics) {
    const medians = servers.map((server) => median(ofServers[server] ?? []));
    const [ours, reference] = [median(ofServers.ours ?? []), median(ofServers[REFERENCE] ?? [])];
    const ratio = ours !== undefined && reference ? (ours / reference).toFixed(3) : '';
    console.log(
      `| ${label} | ${medians.map(show).join(' | ')} | ${ratio} | ${Math.max(...Object.values(ofServers).map((values) => values.length))} |`,
    );
  }
  for (const row of rows.filter(({ outcome, error }) => outcome || error)) {
    console.log(
      `${row.server} ${row.scenario}: ${row.outcome ?? row.error}, same address: ${row.same_ip ?? '-'}, new posts: ${row.relogin_posts ?? '-'}`,
    );
  }
}

/** What a line of each program is about. @returns {[label: string, value: unknown][]} */
function figures(row) {
  if (row.test) {
    return [
      [`${row.test}, server CPU s/GB`, row.srv_s_per_gb],
      [`${row.test}, server CPU µs/packet`, row.srv_s_per_mpkt],
      [`${row.test}, Mbit/s`, row.mbps],
    ];
  }
  if (row.scenario) return [[`${row.scenario}, s of silence`, row.longest_gap_s]];
  switch (row.kind) {
    case 'login':
      return [
        [`ms CPU per login, ${row.threads} at a time`, row.srv_ms_per_login],
        [`logins/s, ${row.threads} at a time`, row.logins_per_s],
      ];
    case 'hold':
      return [
        [`kB per session, ${row.n} of ${row.client}`, row.pss_per_session_kb],
        [`idle CPU %, ${row.n} of ${row.client}`, row.idle_cpu_pct],
        ['ms to tunnel up', row.start_to_up_ms?.[0]],
      ];
    case 'idle':
      return [
        ['CPU s per session and hour', row.cpu_s_per_session_hour],
        ['kB per session', row.pss_per_session_kb],
      ];
    case 'storm':
      return [
        ['s until 95 % are back', row.t_95],
        ['s until all are back', row.t_last],
        ['back with their cookie', row.with_cookie],
        ['back with a new login', row.with_login],
      ];
    default:
      return [];
  }
}

/** Memory between the smallest and the largest number of sessions: the cost of a session without that of the program. */
function slopes(rows) {
  const held = rows.filter(({ kind, client }) => kind === 'hold' && client === 'vpnsess');
  const sizes = [...new Set(held.map(({ n }) => n))].sort((a, b) => a - b);
  if (sizes.length < 2) return [];
  const [small, large] = [sizes[0], sizes.at(-1)].map((size) => held.filter(({ n }) => n === size));
  return large.map((row, i) => small[i] && (row.pss_kb - small[i].pss_kb) / (row.ok - small[i].ok));
}

function median(values) {
  if (values.length === 0) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function show(value) {
  if (value === undefined) return '–';
  return value >= 100 ? value.toFixed(0) : value.toFixed(2);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`bench: ${error.message}`);
  process.exitCode = 1;
});
